"""Sampling: which frames of a recording are looked at. Pure arithmetic on timestamps, no decoder."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Ticks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """When a recording's pictures are shown, in ticks of the container's time base.

    times: int64 [n], display times of every packet that shows a picture, ascending.
    keyframe_times: int64 [k], display times of the keyframes, ascending.
    end: when the last picture ceases to be shown.
    """

    times: Ticks
    keyframe_times: Ticks
    end: int

    def index_of(self, time: int) -> int:
        """Position in display order of the picture shown at `time`."""
        return int(np.searchsorted(self.times, time))

    def keyframe_before(self, time: int) -> int | None:
        """Display time of the last keyframe at or before `time`."""
        position = int(np.searchsorted(self.keyframe_times, time, side="right"))
        return int(self.keyframe_times[position - 1]) if position > 0 else None


@dataclass(frozen=True)
class Stretch:
    """A part of the recording from which one frame is taken; all in ticks.

    start, stop: the stretch is [start, stop).
    target: display time of the frame to prefer: the keyframe, else the frame, nearest the middle.
    keyframes: display times of the keyframes inside, nearest the middle first. Of more than
        MAX_KEYFRAMES, half are the nearest, and half are spread over the others.
    """

    start: int
    stop: int
    target: int
    keyframes: tuple[int, ...]


MAX_KEYFRAMES = 100
"""Of a stretch, that are tried one by one where others are damaged: a hostile file may have a million."""


@dataclass(frozen=True)
class Run:
    """Stretches that one pass of the decoder serves, beginning at `keyframe` (its display time)."""

    keyframe: int
    stretches: tuple[Stretch, ...]

    @property
    def only_keyframe(self) -> bool:
        """Whether the keyframe alone answers the run, so that nothing else need be decoded."""
        return len(self.stretches) == 1 and self.stretches[0].target == self.keyframe


def plan(timeline: Timeline, predictions: int) -> list[Stretch]:
    """Cut a recording into equal stretches, one per prediction, in the order of time.

    The cut runs from the first keyframe (what is shown before it cannot be decoded) to the end. It is
    made by time; where that leaves a stretch in which nothing is shown (the timestamps jump, or there are
    hardly more frames than predictions) it is made by the number of frames. With no more frames than
    predictions, every frame is a stretch of its own.
    """
    if predictions < 1:
        raise ValueError(f"predictions must be at least 1, not {predictions}")
    if len(timeline.keyframe_times) == 0:
        return []
    usable = np.unique(timeline.times[timeline.index_of(int(timeline.keyframe_times[0])) :])
    count = min(predictions, len(usable))
    first, span = int(usable[0]), timeline.end - int(usable[0])
    starts = [first + span * n // count for n in range(count)]
    filled = np.unique(np.searchsorted(usable, starts))
    if len(filled) < count or filled[-1] == len(usable):
        starts = [int(usable[len(usable) * n // count]) for n in range(count)]
    bounds = [*starts, timeline.end]
    return [_stretch(timeline, start, stop) for start, stop in itertools.pairwise(bounds)]


def at_times(timeline: Timeline, times: list[int]) -> list[Stretch]:
    """Ask for exactly the frames shown at these display times."""
    return [_stretch(timeline, time, time + 1) for time in sorted(set(times))]


def runs(timeline: Timeline, stretches: list[Stretch]) -> list[Run]:
    """Group stretches so that no packet is decoded twice: those that build on one keyframe go together."""
    grouped: list[Run] = []
    for stretch in stretches:
        keyframe = stretch.keyframes[0] if stretch.keyframes else timeline.keyframe_before(stretch.target)
        if keyframe is None:
            continue
        if grouped and grouped[-1].keyframe == keyframe:
            grouped[-1] = Run(keyframe, (*grouped[-1].stretches, stretch))
        else:
            grouped.append(Run(keyframe, (stretch,)))
    return grouped


def alternatives(timeline: Timeline, stretch: Stretch) -> list[Run]:
    """Where else to look when the keyframe nearest a stretch's middle is damaged, best first.

    The stretch's other keyframes, then the stretch as it is seen from the keyframe before it: what is shown
    before its first keyframe, and a keyframe of an open GOP that the decoder does not begin with.
    """
    others = [Run(time, (replace(stretch, target=time),)) for time in stretch.keyframes[1:]]
    if stretch.keyframes:
        first = _between(timeline.keyframe_times, stretch.start, stretch.stop)[0]
        before = timeline.keyframe_before(int(first) - 1)
        if before is not None:
            others.append(Run(before, (stretch,)))
    return others


def _stretch(timeline: Timeline, start: int, stop: int) -> Stretch:
    """Describe [start, stop), in which at least one picture is shown."""
    middle = (start + stop) // 2
    keyframes = _between(timeline.keyframe_times, start, stop)
    if len(keyframes) > 0:
        nearest_first = keyframes[np.argsort(np.abs(keyframes - middle), kind="stable")]
        if len(nearest_first) > MAX_KEYFRAMES:
            half = MAX_KEYFRAMES // 2
            spread = np.linspace(half, len(nearest_first) - 1, half, dtype=np.int64)
            nearest_first = nearest_first[[*range(half), *spread]]
        return Stretch(start, stop, int(nearest_first[0]), tuple(nearest_first.tolist()))
    inside = _between(timeline.times, start, stop)
    return Stretch(start, stop, int(inside[np.argmin(np.abs(inside - middle))]), ())


def _between(times: Ticks, start: int, stop: int) -> Ticks:
    low, high = np.searchsorted(times, [start, stop])
    return times[low:high]
