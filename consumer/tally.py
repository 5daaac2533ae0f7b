"""Tally: what the requests to Triton of one recording took, kept by the worker as one small digest."""

from dataclasses import dataclass, field
from threading import Lock
from typing import Any


@dataclass(frozen=True)
class FrameTimes:
    """Requests of one size that were answered: how many, their seconds together, and the fastest's."""

    requests: int
    seconds: float
    fastest_seconds: float


@dataclass(frozen=True)
class Requests:
    """The requests of one try at a recording.

    by_frames: times of those that were answered, by the number of frames in a request.
    rejections: how often Triton refused one because its queue was full.
    held_back: whether frames were ready for another request and waited for one before it.
    """

    by_frames: dict[int, FrameTimes] = field(default_factory=dict)
    rejections: int = 0
    held_back: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the digest as JSON values."""
        times = [[n, t.requests, t.seconds, t.fastest_seconds] for n, t in self.by_frames.items()]
        return {"times": times, "rejections": self.rejections, "held_back": self.held_back}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Requests":
        """Return the digest that `to_json` wrote."""
        by_frames = {frames: FrameTimes(*times) for frames, *times in fields["times"]}
        return cls(by_frames, fields["rejections"], fields["held_back"])


class Tally:
    """Counts the requests of one recording; also says how many it may have in flight.

    Called by several threads at once.

    Args:
        in_flight: requests that may be under way at a time.
    """

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self._lock = Lock()
        self._by_frames: dict[int, FrameTimes] = {}
        self._rejections = 0
        self._held_back = False

    def answered(self, frames: int, seconds: float) -> None:
        """Count a request with that many frames that was answered after so many seconds."""
        with self._lock:
            known = self._by_frames.get(frames, FrameTimes(0, 0.0, seconds))
            self._by_frames[frames] = FrameTimes(
                known.requests + 1, known.seconds + seconds, min(known.fastest_seconds, seconds)
            )

    def rejected(self) -> None:
        """Count a request that Triton had no room for; what is left of the recording goes one by one."""
        with self._lock:
            self._rejections += 1
            self.in_flight = 1

    def held_back(self) -> None:
        """Note that frames were ready for a request more than there may be."""
        self._held_back = True

    def requests(self) -> Requests:
        """Return what was counted."""
        with self._lock:
            return Requests(dict(self._by_frames), self._rejections, self._held_back)
