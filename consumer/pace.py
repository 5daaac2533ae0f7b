"""Pace: how many requests a pod may have at Triton, learned from their latency and from rejections.

One window for the pod: additive up, multiplicative down, decided once in a round, as TCP does it (RFC 5681).
Growing latency shows a queue before anything is refused (as in TCP Vegas; Brakmo, O'Malley and Peterson,
SIGCOMM 1994). docs/adr/0018-a-window-for-triton.md has the reasons and the measurements.
"""

from dataclasses import dataclass

from consumer.tally import Requests

TOLERANCE = 4.0
"""Mean latency over the minimum from which the window shrinks; less keeps Triton from filling its batches."""

AFTER_LATENCY, AFTER_REJECTION = 0.7, 0.5
"""What is left of the window; a queue that is only too long is no reason to leave Triton without work."""

CALM_SECONDS = 60.0
"""How often every pod goes down to one request for a moment, all in the same second, to see the minimum.

A pod alone would see it whenever its window has shrunk. Many pods take the queue of the others for the
minimum, and let one another grow."""

MINIMUM_SECONDS = 4 * CALM_SECONDS
"""How long a minimum is remembered at most; then a server that became slower is known for what it is."""

_CALM_PATIENCE_SECONDS = 10.0

STALLED_SECONDS = 10.0
"""A recording that takes longer waits for its download, most likely: it must not fill a small window."""

_MAX_MINIMA = 64


@dataclass
class _Minimum:
    """The lowest of the last one to two halves of MINIMUM_SECONDS; forgets only what is replaced."""

    since: float
    current: float
    before: float

    def note(self, seconds: float, now: float) -> None:
        if now - self.since >= MINIMUM_SECONDS / 2:
            self.before, self.current, self.since = self.current, seconds, now
        self.current = min(self.current, seconds)

    @property
    def seconds(self) -> float:
        return min(self.current, self.before)


@dataclass(frozen=True)
class _Grant:
    began: float
    requests: int
    narrowest: bool
    """Whether the window was as small as it can be."""


@dataclass
class _Round:
    """What was seen since the last decision, of tries that began after it."""

    reports: int = 0
    requests: int = 0
    ratios: float = 0.0
    """Latencies over their minimum, added up."""
    limited: bool = False
    """Whether more could have been done than the window allowed."""
    most_running: int = 1
    most_granted: int = 1


class Pace:
    """The window of a pod, in requests to Triton in flight; times are the caller's monotonic seconds.

    A *round* is as many recordings as ran at a time, each begun since the last decision: so what is judged
    was done under the window that is judged, and there is one decision in a round trip at most.

    Args:
        workers: recordings that run at a time at most.
        in_flight: requests that one recording may have under way at most.
    """

    def __init__(self, *, workers: int, in_flight: int) -> None:
        self._workers, self._in_flight = workers, in_flight
        self.window = 1.0
        """Between 1 and `workers` x `in_flight`; its whole part counts."""
        self.latency_ratio = 1.0
        """Mean latency of the last round over the minimum."""
        self._resume_at = float(workers)
        """Where the window goes on after its first good round: one request for each worker is no flood."""
        self._minima: dict[tuple[str, int], _Minimum] = {}
        """By model version and frames in a request."""
        self._running: dict[int, _Grant] = {}
        self._calm_since: float | None = None
        self._round_began = 0.0
        self._round = _Round()

    @property
    def limit(self) -> int:
        """The largest window."""
        return self._workers * self._in_flight

    def has_room(self, now: float) -> bool:
        """Whether another recording may be begun."""
        running = len(self._running)
        if running > self._workers:
            return False
        if running == self._workers:
            # One more than there are workers, so that none waits for the service's next turn.
            return self._size(now) >= self._workers
        return self._granted(now) < self._size(now)

    def more_waits(self) -> None:
        """Note that recordings are ready for which there is no room: only then the window may grow."""
        self._round.limited = self._round.limited or len(self._running) < self._workers

    def begin(self, ticket: int, now: float) -> int:
        """Note a try that begins; return how many requests it may have in flight."""
        window, running = self._size(now), len(self._running)
        if running < self._workers:
            # What is left when each other worker has one.
            requests = window - self._granted(now) - (self._workers - running - 1)
        else:
            requests = window // self._workers
        requests = max(1, min(requests, self._in_flight))
        self._running[ticket] = _Grant(now, requests, self.window < 2)
        self._round.most_running = max(self._round.most_running, min(self._workers, len(self._running)))
        self._round.most_granted = max(self._round.most_granted, self._granted(now))
        return requests

    def end(self, ticket: int, requests: Requests, version: str, now: float) -> None:
        """Take in what the requests of a try took.

        Args:
            ticket: as it began.
            requests: none where it did not come so far.
            version: of the model that answered.
            now: the time.
        """
        grant = self._running.pop(ticket)
        minima = {
            frames: self._minimum(version, frames, times.fastest_seconds, now)
            for frames, times in requests.by_frames.items()
        }
        if grant.began < self._round_began:
            return
        if requests.rejections:
            self._shrink(AFTER_REJECTION, now)
            return
        if self._calm_since is not None:
            if minima:
                self._end_calm(now)
            return
        self._round.reports += 1
        self._round.limited = self._round.limited or requests.held_back
        for frames, times in requests.by_frames.items():
            self._round.ratios += times.seconds / max(minima[frames].seconds, 1e-6)
            self._round.requests += times.requests
        if self._round.reports >= self._round.most_running:
            self._decide(now)

    def at_its_narrowest(self, ticket: int) -> bool:
        """Whether a try began under the smallest window: fewer requests cannot help it."""
        return self._running[ticket].narrowest

    def calm(self, now: float) -> None:
        """Go down to one request until it was answered; to be called every CALM_SECONDS by the wall clock."""
        # Where recordings take long, waiting for the end of all that run would cost more than it is worth.
        if self.window >= 2 and now - self._round_began < _CALM_PATIENCE_SECONDS:
            self._calm_since = now
            self._begin_round(now)

    def lost(self, now: float) -> None:
        """Begin anew with one request: Triton did not answer, so nobody knows what it can take."""
        if self.window > 1:
            self._resume_at = max(1.0, self.window / 2)
            self.window = 1.0
            self._begin_round(now)

    def _size(self, now: float) -> int:
        if self._calm_since is not None and now - self._calm_since > _CALM_PATIENCE_SECONDS:
            self._end_calm(now)
        return 1 if self._calm_since is not None else int(self.window)

    def _end_calm(self, now: float) -> None:
        self._calm_since = None
        self._begin_round(now)

    def _granted(self, now: float) -> int:
        return sum(g.requests for g in self._running.values() if now - g.began < STALLED_SECONDS)

    def _minimum(self, version: str, frames: int, seconds: float, now: float) -> _Minimum:
        known = self._minima.pop((version, frames), None)
        if known is None:
            known = _Minimum(now, seconds, seconds)
        known.note(seconds, now)
        self._minima[version, frames] = known
        if len(self._minima) > _MAX_MINIMA:
            del self._minima[next(iter(self._minima))]
        return known

    def _decide(self, now: float) -> None:
        if self._round.requests:
            self.latency_ratio = self._round.ratios / self._round.requests
            if self.latency_ratio > TOLERANCE:
                self._shrink(AFTER_LATENCY, now)
                return
        if self._round.limited:
            self.window = min(float(self.limit), max(self.window + 1, self._resume_at))
            self._resume_at = 1.0
        self._begin_round(now)

    def _shrink(self, factor: float, now: float) -> None:
        self.window = max(1.0, min(self.window, self._round.most_granted) * factor)
        self._resume_at = 1.0
        self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._round_began = now
        self._round = _Round()
