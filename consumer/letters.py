"""Dead letters read back from their topic: each as one value, chosen by reason, camera, time or name.

The topic is read to its end as it is now; no group is joined, and whoever else reads it does not notice.
Letters of other services in the same envelope are shown too. Which letters were sent again says a topic
beside it (consumer/resend.py), so that the ecosystem's own tools find nothing but envelopes in this one.
"""

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.credentials import mask_payload
from consumer.dead_letter import REDUCED, SCHEMA
from consumer.errors import SettingsError
from consumer.messages import Position
from consumer.past import Past, PastRecord, Stretch
from consumer.replay_mark import HEADER, ReplayMark

SHORTEST_ID = 6
"""Characters of an id that must be given; letters are shown with twice as many."""

_ID = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},64}}")
_POSITION = re.compile(r"(?:(?P<topic>[A-Za-z0-9._-]+)/)?(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")
_SOURCE = re.compile(r"[A-Za-z0-9._-]+/\d{1,9}/\d{1,18}/\d{1,6}")


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        position: where it lies in its topic: partition/offset.
        id: the recording's; a recording that fails again has the same one.
        at: when it failed.
        reason: our own word for why; the envelope's, where another service wrote the letter.
        envelope_reason: one of the envelope's five words.
        sentence: what is wrong and what to do; may be empty.
        attempts: how often it was tried.
        replays: how often its event had been sent again before; by `dead-letter replay`, that is.
        key, provider, camera: of the recording; may be empty.
        recorded: when the recording began, ISO 8601; may be empty.
        source: where the event stood: topic/partition/offset/index, or the topic alone.
        destination: the topic that the event goes back to; may be empty.
        service: who wrote the letter.
        payload: the event, its credentials masked.
        left_out: why the payload is not the whole event; empty where it is.
    """

    position: str
    id: str
    at: datetime
    reason: str
    envelope_reason: str
    sentence: str
    attempts: int
    replays: int
    key: str
    provider: str
    camera: str
    recorded: str
    source: str
    destination: str
    service: str
    payload: bytes = field(repr=False)
    left_out: str = ""

    @property
    def age(self) -> tuple[datetime, str]:
        """What letters are sorted by: when it failed, then its place."""
        return self.at, self.position

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes: whoever may write letters may write long ones."""
        return sum(len(each) for each in vars(self).values() if isinstance(each, str | bytes))

    @property
    def exhausted(self) -> bool:
        """Whether it might have healed, and did not in time."""
        return self.envelope_reason == "retry_exhausted"

    @property
    def whole(self) -> bool:
        """Whether the payload still names the recording, so that it can be sent again."""
        return self.left_out in ("", REDUCED)

    @property
    def stood_at(self) -> Position | None:
        """Where the event stood; None where the letter does not say so."""
        if not _SOURCE.fullmatch(self.source):
            return None
        topic, *numbers = self.source.split("/")
        return Position(topic, *map(int, numbers))


@dataclass(frozen=True)
class Choice:
    """Which letters are meant; what is empty or None leaves all of them in.

    Attributes:
        reasons: our own words, or the envelope's.
        cameras: as the events name them.
        since, until: when they failed; `until` itself is out.
    """

    reasons: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Tell whether a letter is meant."""
        return (
            (not self.reasons or not {letter.reason, letter.envelope_reason}.isdisjoint(self.reasons))
            and (not self.cameras or letter.camera in self.cameras)
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )


def parse_name(text: str, topic: str) -> str:
    """Return the name of a letter as `is_named` takes it.

    A position in the topic of letters (`0/42`, with the topic in front or without), where the event stood
    (`topic/0/42/0`, as in the log), or the beginning of an id.

    Args:
        text: as people write it.
        topic: of letters.

    Raises:
        SettingsError: it is none of them.
    """
    if position := _POSITION.fullmatch(text):
        if position["topic"] not in (None, topic):
            raise SettingsError(
                [
                    f"{text!r} is in topic {position['topic']!r}, and letters are in {topic!r}: give a "
                    "letter's position like 0/42, or where its event stood with the index, like "
                    f"{text}/0."
                ]
            )
        return f"{position['partition']}/{position['offset']}"
    if _SOURCE.fullmatch(text) or _ID.fullmatch(text):
        return text
    raise SettingsError(
        [
            f"{text!r} names no dead letter: give its position like 0/42, or {SHORTEST_ID} or more "
            "characters of its id, as 'vault-ml dead-letter list' shows them."
        ]
    )


def place_of(name: str) -> tuple[int, int] | None:
    """Return partition and offset of a name that is a position in the topic of letters, else None."""
    position = _POSITION.fullmatch(name)
    return position and (int(position["partition"]), int(position["offset"]))


def is_named(letter: DeadLetter, name: str) -> bool:
    """Tell whether a name of `parse_name` is this letter's."""
    return name in (letter.position, letter.source) or ("/" not in name and letter.id.startswith(name))


def read_letters(
    past: Past, choice: Choice, secrets: Collection[str] = (), stretches: Sequence[Stretch] | None = None
) -> Iterator[DeadLetter]:
    """Yield the letters that are meant; those of a partition in their order.

    What is no dead letter is left out, and so is what was written after the reading began.

    Args:
        past: of the topic of letters.
        choice: which ones.
        secrets: values of our own settings, masked once more: another service may have written the letter.
        stretches: which part of the topic; None for all that may hold such letters.

    Raises:
        StreamSetupError, BrokerAway: see `Past.read`.
    """
    # A letter is written after it failed, so none that failed later lies before the first written later.
    for each in past.read(past.stretches(choice.since) if stretches is None else stretches):
        letter = parse_letter(each, secrets)
        if letter is not None and choice.takes(letter):
            yield letter


def read_marks(past: Past) -> dict[str, ReplayMark]:
    """Return the marks of the letters that were sent again, by position; the last of each."""
    marks = {}
    for each in past.read(past.stretches()):
        mark = ReplayMark.from_json(each.record.value or b"")
        if mark is not None:
            marks[(each.record.key or b"").decode("ascii", "replace")] = mark
    return marks


def mark_of(letter: DeadLetter, marks: Mapping[str, ReplayMark]) -> ReplayMark | None:
    """Return the mark of a letter that was sent again; None where it was not.

    A topic of letters may be deleted and made anew, and the notes outlive it: a mark for the same place that
    names another recording is not this letter's.
    """
    mark = marks.get(letter.position)
    return mark if mark is not None and mark.id in (letter.id, letter.position) else None


def newest_of_each(
    letters: Iterable[DeadLetter], names: Collection[str]
) -> tuple[list[DeadLetter], list[str]]:
    """Return the letter that each name means, and the names that mean none or more than one recording.

    A recording that failed more than once has several letters of one id: the last one is meant.
    """
    candidates: dict[str, dict[str, DeadLetter]] = {name: {} for name in names}
    for letter in letters:
        for name in names:
            if is_named(letter, name):
                before = candidates[name].get(letter.id)
                if before is None or before.at <= letter.at:
                    candidates[name][letter.id] = letter
    found = {letter.position: letter for of in candidates.values() for letter in of.values()}
    problems = [_problem(name, of) for name, of in candidates.items() if len(of) != 1]
    return list(found.values()), problems


def _problem(name: str, found: Mapping[str, DeadLetter]) -> str:
    if found:
        return f"{name} means {len(found)} recordings: give more characters of the id."
    return f"No dead letter is called {name}: see 'vault-ml dead-letter list'."


def parse_letter(record: PastRecord, secrets: Collection[str] = ()) -> DeadLetter | None:
    """Return the letter that a message of the topic holds; None where it is none."""
    envelope = _object(record.record.value)
    about = envelope.get("deadLetter")
    if envelope.get("schema") != SCHEMA or not isinstance(about, Mapping):
        return None
    try:
        payload = base64.b64decode(_text(envelope.get("payload")), validate=True)
    except (binascii.Error, ValueError):
        return None
    told = about.get("attributes")
    attributes = {name: _text(value) for name, value in told.items()} if isinstance(told, Mapping) else {}
    envelope_reason = _text(about.get("reason")) or "unspecified"
    attempts, replays = about.get("attempts"), attributes.get("replay", "")
    mark = ReplayMark.from_json(record.record.headers.get(HEADER, ""))
    if mark is not None and mark.of == "source":
        replays = ""  # the past was looked at once more: nobody has sent this event again
    return DeadLetter(
        position=f"{record.record.partition}/{record.record.offset}",
        id=(record.record.key or b"").decode("ascii", "replace"),
        at=_moment(_text(about.get("timestamp"))) or record.at,
        reason=attributes.get("reason") or envelope_reason,
        envelope_reason=envelope_reason,
        sentence=attributes.get("sentence", ""),
        attempts=attempts if type(attempts) is int else 0,
        replays=int(replays) if re.fullmatch(r"[0-9]{1,7}", replays) else 0,
        key=attributes.get("key", ""),
        provider=attributes.get("provider", ""),
        camera=attributes.get("camera", ""),
        recorded=attributes.get("recorded", ""),
        source=attributes.get("position") or _text(about.get("source")),
        destination=_text(about.get("replayDestination")) or _text(about.get("source")),
        service=_text(about.get("service")),
        payload=mask_payload(payload, secrets),
        left_out=attributes.get("payload", ""),
    )


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        parsed = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # before the year 1 or after 9999, once it is UTC
        return None
