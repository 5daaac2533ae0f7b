"""Moments: points in time as people write them for `--from` and `--to`; all of them UTC."""

import re
from datetime import UTC, datetime, timedelta

from consumer.errors import SettingsError

_AGE = re.compile(r"(?=\d)(?:(?P<weeks>\d{1,4})w)?(?:(?P<days>\d{1,5})d)?(?:(?P<hours>\d{1,6})h)?"
                  r"(?:(?P<minutes>\d{1,7})m)?(?:(?P<seconds>\d{1,9})s)?")  # fmt: skip
_DAYS_AGO = {"today": 0, "yesterday": 1}


def parse_moment(text: str, option: str, now: datetime) -> datetime:
    """Return the moment that an option names: `2h`, `1d12h`, `now`, `today`, `yesterday`, or ISO 8601.

    An age counts back from now; a day is its beginning; without a zone it is UTC.

    Raises:
        SettingsError: it is none of them.
    """
    words = text.strip().lower()
    if words == "now":
        return now
    if words in _DAYS_AGO:
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=_DAYS_AGO[words])
    try:
        if age := _AGE.fullmatch(words):
            return now - timedelta(**{unit: int(count) for unit, count in age.groupdict(default="0").items()})
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingsError(
            [
                f"{option} is {text!r}: give an age such as 2h or 1d12h, yesterday, or a time such as "
                "2026-05-01T12:00Z."
            ]
        ) from None


def parse_span(
    since: str | None, until: str | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return the moments of `--from` and `--to`; None where nothing was given.

    Raises:
        SettingsError: one of them is no moment, or nothing lies between them.
    """
    begin = None if since is None else parse_moment(since, "--from", now)
    end = None if until is None else parse_moment(until, "--to", now)
    if begin is not None and end is not None and begin >= end:
        raise SettingsError(
            [f"--to {until} is not after --from {since}: give the earlier one to --from, the later to --to."]
        )
    if begin is not None and begin > now:
        raise SettingsError([f"--from {since} is in the future: give a time that has passed."])
    return begin, end


def in_words(moment: datetime) -> str:
    """Return a moment as our messages write it: ISO 8601 in UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
