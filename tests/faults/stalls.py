"""How long somebody waits: the longest time without any outcome, and how soon after a fault results come."""

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.feeder import Sent
from tests.faults.observer import Place
from tests.faults.recordings import RECIPES


@dataclass(frozen=True)
class Stall:
    """A time without any outcome, though there was work; times are those of the run's clock."""

    since: float
    seconds: float


@dataclass(frozen=True)
class Waits:
    """After the faults of one kind, in seconds.

    first: until a recording that was stored afterwards had its outcome.
    everywhere: until every partition had an outcome of one that was stored afterwards.
    """

    first: tuple[float, ...]
    everywhere: tuple[float, ...]


def longest_stall(sent: Sequence[Sent], seen: Mapping[Place, float]) -> Stall:
    """Return the longest time between two outcomes while a recording waited that need not wait."""
    turns: list[tuple[float, int]] = []
    for message in sent:
        at = seen.get((message.partition, message.offset))
        if at is not None and _quick(message):
            turns += [(message.at, 1), (at, -1)]
    longest, waiting, since = Stall(0.0, 0.0), 0, 0.0
    for at, change in sorted(turns):
        if waiting > 0 and change < 0 and at - since > longest.seconds:
            longest = Stall(since, at - since)
        if change < 0 or waiting == 0:
            since = at
        waiting += change
    return longest


def waits_after(
    moments: Iterable[tuple[str, float]], sent: Sequence[Sent], seen: Mapping[Place, float], partitions: int
) -> dict[str, Waits]:
    """Return by kind of fault how long recordings waited that were stored after it.

    Args:
        moments: kind and time of each fault: when it happened, or was over.
        sent: what was sent, in any order.
        seen: when each message had its first outcome.
        partitions: of the source topic.
    """
    quick = [message for message in sorted(sent, key=lambda message: message.at) if _quick(message)]
    first: defaultdict[str, list[float]] = defaultdict(list)
    everywhere: defaultdict[str, list[float]] = defaultdict(list)
    for kind, moment in moments:
        soonest: dict[int, float] = {}
        for message in quick[bisect_left(quick, moment, key=lambda message: message.at) :]:
            if len(soonest) == partitions and message.at > max(soonest.values()):
                break
            at = seen.get((message.partition, message.offset))
            if at is not None:
                soonest[message.partition] = min(at, soonest.get(message.partition, at))
        if soonest:
            first[kind].append(min(soonest.values()) - moment)
        if len(soonest) == partitions:
            everywhere[kind].append(max(soonest.values()) - moment)
    return {kind: Waits(tuple(first[kind]), tuple(everywhere[kind])) for kind in first}


def median_and_worst(seconds: Sequence[float]) -> str:
    """Return both as text for a table."""
    if not seconds:
        return "-"
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f}"


def _quick(message: Sent) -> bool:
    return RECIPES[message.recipe].patience_seconds == 0.0
