"""Video: opens a recording, picks the frames to look at, and closes the account.

Decoding goes packet by packet (docs/adr/0002-pyav-decodes.md): one broken packet costs one packet.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame

from consumer import sampling
from consumer.boxes import Layout, inspect, open_mended
from consumer.decoding import Decoding, Fate
from consumer.errors import RecordingUndecodable
from consumer.ledger import Ledger
from consumer.media import Media
from consumer.packets import open_container, scan, video_stream
from consumer.sampling import Run, Stretch

MAX_PIXELS = 8192 * 4352
"""The largest picture that H.265 knows (level 6.2); a decoder may hold 17 of them."""


@dataclass(frozen=True)
class SampledFrame:
    """One frame to look at.

    index: position in display order among all pictures of the file, decodable or not; counted from the
        packets' timestamps, so it holds with B-frames, open GOPs and variable frame rates.
    time_seconds: the container's timestamp, relative to the first picture of the file.
    picture: as decoded: not rotated, in any pixel format.
    rotation_degrees: how far to turn the picture clockwise to see it upright: 0, 90, 180 or 270.
    """

    index: int
    time_seconds: float
    picture: VideoFrame
    rotation_degrees: int


@contextmanager
def open_recording(media: Media, *, max_pixels: int = MAX_PIXELS) -> Iterator["Recording"]:
    """Open a recording and read through its packets once, without decoding.

    Raises:
        RecordingEncrypted, RecordingUnfinished: as `consumer.boxes.inspect` says.
        RecordingTooLarge: a picture has more than max_pixels pixels, or there are too many of them.
        RecordingUndecodable: not a video, no video track, a codec that we do not have, or no keyframe.
    """
    if media.size_bytes == 0:
        raise RecordingUndecodable(f"{media.name} holds no bytes.")
    layout = inspect(media)
    with (
        open_mended(media, layout) as file,
        open_container(media.name, file, max_pixels, is_mp4=layout.is_mp4) as container,
    ):
        yield Recording(media.name, container, layout, max_pixels=max_pixels)


class Recording:
    """An opened recording; made by `open_recording`.

    Attributes:
        codec: the decoder's name, as h264 or hevc.
        width, height: pixels as coded, before rotation; a frame differs where the size changes inside.
        duration_seconds: from the first picture to the end of the last, by the packets' timestamps.
    """

    def __init__(self, name: str, container: InputContainer, layout: Layout, *, max_pixels: int) -> None:
        self._name = name
        self._layout = layout
        stream = video_stream(name, container, max_pixels)
        decoder = stream.codec_context
        self.codec, self.width, self.height = decoder.name, decoder.width, decoder.height
        self._scan = scan(name, container, stream)
        self._timeline = self._scan.timeline
        if len(self._timeline.times) == 0:
            raise RecordingUndecodable(f"{name} has a video track without any picture.")
        if len(self._timeline.keyframe_times) == 0:
            raise RecordingUndecodable(f"{name} has no keyframe, so nothing in it can be decoded.")
        self._seconds_per_tick = Fraction(
            stream.time_base or 1
        )  # a float would turn 4.8 s into 4.800000000000001
        self._first_time = int(self._timeline.times[0])
        self.duration_seconds = float((self._timeline.end - self._first_time) * self._seconds_per_tick)
        self._decoding = Decoding(container, stream, self._timeline)
        self._missing_stretches = 0
        self._concealed = False

    def sample(self, predictions: int) -> Iterator[SampledFrame]:
        """Yield at most `predictions` frames, spread evenly over the recording, in the order of time.

        Lazy: frames are decoded as they are asked for, and memory does not grow with the recording.
        Where the preferred frame of a stretch is damaged, another one of that stretch is given.

        Raises:
            RecordingUndecodable: no frame at all could be decoded.
        """
        return self._frames(sampling.plan(self._timeline, predictions))

    def frames_at(self, times_seconds: Sequence[float]) -> Iterator[SampledFrame]:
        """Yield the frames shown at these times (as `SampledFrame.time_seconds`), in the order of time.

        Raises:
            RecordingUndecodable: none of them could be decoded.
        """
        ticks = [
            round(seconds / float(self._seconds_per_tick)) + self._first_time for seconds in times_seconds
        ]
        positions = np.searchsorted(self._timeline.times, ticks, side="right") - 1
        shown = self._timeline.times[np.maximum(positions, 0)]
        return self._frames(sampling.at_times(self._timeline, shown.tolist()))

    @property
    def partial(self) -> tuple[str, ...]:
        """Why not all of the recording could be looked at; empty when it could. Complete after sampling."""
        reasons = {
            "truncated": self._layout.truncated,
            "damaged_boxes": len(self._layout.gaps) > 0,
            "not_read_through": self._scan.error is not None,
            "undecodable_packets": self._decoding.count(Fate.UNDECODABLE) > 0,
            "missing_stretches": self._missing_stretches > 0,
            "concealed_damage": self._concealed,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    def ledger(self, *, inferred: int, dropped: Mapping[str, int] | None = None) -> Ledger:
        """Close the account.

        Args:
            inferred: how many of the sampled frames the model has looked at.
            dropped: how many of them were lost on the way, by reason.
        """
        dropped = dropped or {}
        reason = self._scan.error
        if self._layout.truncated:
            reason = "truncated: the file ends inside its last box"
        elif self._layout.gaps:
            reason = "damaged boxes: what they held cannot be counted"
        decoded = self._decoding.count(Fate.DECODED)
        undecodable = self._decoding.count(Fate.UNDECODABLE)
        return Ledger(
            packets=self._scan.packets if reason is None else None,
            packets_reason=reason,
            decoded=decoded,
            not_needed=self._scan.packets - decoded - undecodable,
            undecodable=undecodable,
            inferred=inferred,
            not_sampled=decoded - inferred - sum(dropped.values()),
            dropped=dropped,
        )

    def _frames(self, stretches: list[Stretch]) -> Iterator[SampledFrame]:
        # The second round, only where the first found nothing, also takes pictures with concealed damage.
        for intact_only in (True, False):
            found = 0
            for time, picture in self._pick(stretches, intact_only=intact_only):
                found += 1
                yield SampledFrame(
                    index=self._timeline.index_of(time),
                    time_seconds=float((time - self._first_time) * self._seconds_per_tick),
                    picture=picture,
                    rotation_degrees=round(-picture.rotation / 90) * 90 % 360,
                )
            self._missing_stretches = len(stretches) - found
            self._concealed = found > 0 and not intact_only
            if found > 0:
                return
        raise RecordingUndecodable(f"No frame of {self._name} could be decoded.")

    def _pick(self, stretches: list[Stretch], *, intact_only: bool) -> Iterator[tuple[int, VideoFrame]]:
        for run in sampling.runs(self._timeline, stretches):
            for attempt in (run, *sampling.alternatives(self._timeline, run.stretches[0])):
                found = False
                for picked in self._decode(attempt, intact_only=intact_only):
                    found = True
                    yield picked
                if found:
                    break

    def _decode(self, run: Run, *, intact_only: bool) -> Iterator[tuple[int, VideoFrame]]:
        """Yield, for each of the run's stretches that has one, the picture nearest its target."""
        waiting = list(run.stretches)
        nearest: tuple[int, VideoFrame] | None = None
        with closing(self._decoding.pictures(run, intact_only=intact_only)) as pictures:
            for time, picture in pictures:
                while waiting and time >= waiting[0].stop:
                    waiting.pop(0)
                    if nearest is not None:
                        yield nearest
                        nearest = None
                if not waiting:
                    return
                if time < waiting[0].start:
                    continue
                target = waiting[0].target
                if nearest is None or abs(time - target) < abs(nearest[0] - target):
                    nearest = (time, picture)
                if time >= target:  # all that follow are farther away
                    yield nearest
                    nearest = None
                    waiting.pop(0)
                    if not waiting:
                        return
        if nearest is not None:
            yield nearest
