"""History: what a note beside the committed offset says of recordings; pure values and their text.

The note is Kafka's metadata of an offset: text that a commit carries and a new owner of the partition reads.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from consumer.backlog import MAX_BREAKDOWNS
from consumer.errors import PodDied, Unforeseen, VaultMLError, WorkerDied, WorkerTooLarge
from consumer.messages import Position

MAX_NOTE_BYTES = 2048
"""Kafka takes 4096 (offset.metadata.max.bytes)."""
_MAX_TRIED_BYTES = MAX_NOTE_BYTES // 2

KINDS: Mapping[str, type[VaultMLError]] = {
    kind.reason: kind for kind in (WorkerDied, WorkerTooLarge, PodDied, Unforeseen)
}
"""What counts as a breakdown, by reason."""


@dataclass(frozen=True)
class Breakdowns:
    """How often a recording broke down, and the reason of the last time."""

    count: int
    reason: str


@dataclass(frozen=True)
class History:
    """What a note says of a partition; recordings are named `offset`, or `offset.index` in a list of events.

    by: whose note it is, a word of chance; empty where it left in good order.
    under_way: what it had under way, or was about to begin.
    tried: what broke down, and is not finished.
    """

    by: str = ""
    under_way: frozenset[str] = frozenset()
    tried: Mapping[str, Breakdowns] = field(default_factory=dict)


def encode(history: History) -> str:
    """Return the note of a history, at most MAX_NOTE_BYTES of ASCII; of what has no room, the latest goes."""
    if not history.by and not history.tried:
        return ""
    tried: dict[str, list[object]] = {}
    for name in sorted(history.tried, key=order):
        more = tried | {name: [history.tried[name].count, history.tried[name].reason]}
        if len(_json(more)) > _MAX_TRIED_BYTES:
            break
        tried = more
    note: dict[str, object] = {"v": 1, "tried": tried}
    if history.by:
        note |= {"by": history.by, "open": []}
        room = MAX_NOTE_BYTES - len(_json(note))
        names = []
        for name in sorted(history.under_way, key=order):
            room -= len(name) + 3
            if room < 0:
                break
            names.append(name)
        note["open"] = names
    return _json(note)


def decode(note: str) -> History | None:
    """Return what a note says; None where it is none of ours, or damaged."""
    if not note:
        return History()
    try:
        fields = json.loads(note)
        if fields["v"] != 1:
            return None
        names = [str(name) for name in fields.get("open", ())]
        tried = {
            str(name): Breakdowns(
                min(int(count), MAX_BREAKDOWNS), reason if reason in KINDS else WorkerDied.reason
            )
            for name, (count, reason) in fields["tried"].items()
        }
        for name in (*names, *tried):
            order(name)
        return History(str(fields.get("by", "")), frozenset(names), tried)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def name_of(position: Position) -> str:
    """Return what a recording is called in a note."""
    return f"{position.offset}.{position.index}" if position.index else str(position.offset)


def order(name: str) -> tuple[int, int]:
    """Return offset and index of a name, by which names are in order."""
    offset, _, index = name.partition(".")
    return int(offset), int(index or 0)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
