"""Backlog: the recordings in hand, from fetched to finished; which may be tried next, and when."""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from consumer.backoff import jittered_wait
from consumer.events import RecordingEvent
from consumer.messages import Position
from consumer.offsets import PartitionProgress
from consumer.replay_mark import ReplayMark


@dataclass(eq=False)
class InHand:
    """One recording in hand; times are seconds of the service's monotonic clock."""

    event: RecordingEvent
    position: Position
    progress: PartitionProgress
    fetched_at: float
    payload: bytes = field(repr=False)
    """The message that it came in, for a dead letter."""
    size_bytes: int = 0
    """What its event takes in memory, roughly and at most."""
    attempts: int = 0
    breakdowns: int = 0
    """Tries that ended with a dead worker or an unforeseen error."""
    failing_since: float | None = None
    """When the first try failed, on the clock that stands still during outages."""
    started_at: float | None = None
    """When its first try began."""
    replay: ReplayMark | None = None
    """The mark of an event that was sent again."""
    duplicate_of: Position | None = None
    """Where the same event stood before, if this is a repetition."""
    suspect: bool = False
    """A pod died while it was under way: it is tried while no other suspect is."""


MAX_BREAKDOWNS = 3
"""A recording on which workers die or fail is not tried for its whole deadline."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0


def next_try_at(
    recording: InHand, now: float, *, working_now: float, deadline_seconds: float, rng: random.Random
) -> float | None:
    """Return when a recording that failed may be tried again, or None when its time is up.

    Args:
        recording: that failed just now; its first failure is noted in it.
        now: on the service's clock.
        working_now: on the clock that stands still during outages.
        deadline_seconds: RECORDING_DEADLINE.
        rng: for the jitter.
    """
    if recording.failing_since is None:
        recording.failing_since = working_now
    left = recording.failing_since + deadline_seconds - working_now
    if left <= 0 or recording.breakdowns >= MAX_BREAKDOWNS:
        return None
    wait = jittered_wait(
        recording.attempts - 1,
        first_seconds=FIRST_RETRY_SECONDS,
        longest_seconds=LONGEST_RETRY_SECONDS,
        rng=rng,
    )
    # Never past the deadline: the last try is made there, and its failure is final.
    return now + min(left, wait)


class Backlog:
    """Recordings that wait for a try, ordered by when it is due, and those that a worker has."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, InHand]] = []
        self._running: dict[int, InHand] = {}
        self._tickets = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def running(self) -> int:
        """How many a worker has."""
        return len(self._running)

    @property
    def size_bytes(self) -> int:
        """What the events of all recordings take in memory, roughly and at most."""
        return sum(recording.size_bytes for recording in self._recordings())

    def _recordings(self) -> Iterator[InHand]:
        yield from self._running.values()
        yield from (recording for _, _, recording in self._waiting)

    def first_of_each(self) -> list[InHand]:
        """Return the recording of each partition with the lowest offset."""
        first: dict[PartitionProgress, InHand] = {}
        for recording in self._recordings():
            known = first.setdefault(recording.progress, recording)
            if recording.position.offset < known.position.offset:
                first[recording.progress] = recording
        return list(first.values())

    def wait(self, recording: InHand, due_at: float) -> None:
        """Put a recording in line for a try at that time."""
        heapq.heappush(self._waiting, (due_at, next(self._tickets), recording))

    def ready(self, now: float) -> int:
        """How many wait whose time has come; suspects are tried one by one and count for nothing here."""
        return sum(due_at <= now and not recording.suspect for due_at, _, recording in self._waiting)

    def under_way(self) -> Iterator[InHand]:
        """The recordings that a worker has."""
        yield from self._running.values()

    @property
    def waiting(self) -> int:
        """How many wait, due or not."""
        return len(self._waiting)

    def start_next(
        self, now: float, may_begin: Callable[[InHand], bool] = lambda recording: True, *, early: bool = False
    ) -> tuple[int, InHand] | None:
        """Take the recording that has been due longest; return it with the ticket of this try.

        Args:
            now: on the service's clock.
            may_begin: asked of one after the other; None is returned where it allows none.
            early: for a probe: also one whose time has not come, and first the newest that was never tried.
                What was tried has failed; a new one may show that this was its own fault.
        """
        recording = self._take_first(now, may_begin, early=early)
        if recording is None:
            return None
        ticket = next(self._tickets)
        recording.attempts += 1
        if recording.started_at is None:
            recording.started_at = now
        self._running[ticket] = recording
        return ticket, recording

    def _take_first(self, now: float, may_begin: Callable[[InHand], bool], *, early: bool) -> InHand | None:
        if not self._waiting or (not early and self._waiting[0][0] > now):
            return None
        if not early and may_begin(self._waiting[0][2]):
            return heapq.heappop(self._waiting)[2]
        in_order = sorted(self._waiting)
        if early:
            in_order.sort(key=lambda entry: (entry[2].started_at is not None, -entry[2].fetched_at))
        for entry in in_order:
            if not early and entry[0] > now:
                return None
            if may_begin(entry[2]):
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
                return entry[2]
        return None

    def finish(self, ticket: int) -> InHand:
        """Take back the recording of a try that ended."""
        return self._running.pop(ticket)

    def forget_running(self) -> None:
        """Forget the recordings that a worker still has; their reports will find nobody."""
        self._running.clear()

    def drop_waiting(self, *, revoked_only: bool) -> list[InHand]:
        """Forget waiting recordings, all of them or those whose partition was taken away; return them."""
        kept: list[tuple[float, int, InHand]] = []
        dropped: list[tuple[float, int, InHand]] = []
        for entry in self._waiting:
            (dropped if not revoked_only or entry[2].progress.revoked else kept).append(entry)
        self._waiting = kept
        heapq.heapify(kept)
        return [recording for _, _, recording in dropped]
