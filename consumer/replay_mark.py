"""The mark of an event that was sent again: a Kafka header that goes with it, into its result or dead letter.

It lets a reader tell a replay from the first time, and the letters of a replay that failed say how often it
was tried. Whoever may write to the source topic may write a mark too. What that does: `DUPLICATE_WINDOW` lets
the event past, and `vault-ml dead-letter replay` leaves its letter out until `--again` is given.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

HEADER = "vault-ml-replay"

Origin = Literal["dead-letter", "source"]

_ID = re.compile(r"[\w.:/-]{1,300}")
_MOMENT = re.compile(r"[\dT:.Z+-]{1,40}")
MOST_REPLAYS = 1_000_000
"""What a mark counts up to; a forged one may begin there."""


@dataclass(frozen=True)
class ReplayMark:
    """That an event is looked at again, and why.

    Attributes:
        of: `dead-letter` for `vault-ml dead-letter replay`, `source` for `vault-ml replay`.
        id: the letter's id, or the name of the run.
        count: how often this event was sent again, this time included.
        at: when, as ISO 8601.
    """

    of: Origin
    id: str
    count: int
    at: str

    def to_json(self) -> str:
        """Return the value of the header."""
        return json.dumps(
            {"of": self.of, "id": self.id, "count": self.count, "at": self.at}, separators=(",", ":")
        )

    def to_header(self) -> tuple[str, bytes]:
        """Return the header, for a producer."""
        return HEADER, self.to_json().encode()

    @staticmethod
    def takes_id(text: str) -> bool:
        """Tell whether a mark that names this is read back as one."""
        return _ID.fullmatch(text) is not None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Return the mark; None where it is none: whoever writes to the source topic may write anything."""
        try:
            raw = json.loads(text[:1_000])
        except (ValueError, RecursionError):
            raw = None
        if not isinstance(raw, dict):
            return None
        of, id_, count, at = (raw.get(name) for name in ("of", "id", "count", "at"))
        if of not in ("dead-letter", "source") or not isinstance(id_, str) or not isinstance(at, str):
            return None
        if type(count) is not int or not 1 <= count <= MOST_REPLAYS:
            return None
        if not cls.takes_id(id_) or not _MOMENT.fullmatch(at):
            return None
        return cls(of, id_, count, at)

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self | None:
        """Return the mark that a message carries, or None; of several the last one counts."""
        values = [value for name, value in headers if name == HEADER and value is not None]
        return cls.from_json(values[-1]) if values else None
