"""Decoding: feeds the decoder the packets that a run needs, and remembers what became of each packet."""

from collections.abc import Generator
from contextlib import closing
from enum import IntEnum
from functools import partial
from itertools import chain

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from consumer.limits import blame_memory
from consumer.packets import VideoPacket, display_time, packets_from
from consumer.sampling import Run, Timeline

_MAY_SHOW_NOTHING = frozenset(["vp8", "vp9", "av1", "libdav1d"])
"""Decoders for which a sound packet may hold no picture to show."""

_LARGEST_PIXEL_BYTES = 6
"""Three samples of 16 bits: what a decoder asks for at once is a picture."""


class Fate(IntEnum):
    """What became of one packet; a higher one replaces a lower one."""

    NOT_NEEDED = 0
    UNDECODABLE = 1
    DECODED = 2


class Decoding:
    """The decoder of one recording's video track, with one byte of memory per packet: its fate.

    Pictures shown before the first keyframe are undecodable from the start.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, timeline: Timeline) -> None:
        self._container = container
        self._stream = stream
        self._decoder = stream.codec_context
        self._timeline = timeline
        self._fates = np.full(len(timeline.times), Fate.NOT_NEEDED, dtype=np.uint8)
        self._fates[: timeline.index_of(int(timeline.keyframe_times[0]))] = Fate.UNDECODABLE

    def count(self, fate: Fate) -> int:
        """How many packets met this fate so far."""
        return int(np.count_nonzero(self._fates == fate))

    def pictures(self, run: Run, *, intact_only: bool) -> Generator[tuple[int, VideoFrame]]:
        """Decode from the run's keyframe to the run's end, or until closed.

        Yields display times (ticks) and pictures in display order. With intact_only, pictures that the
        decoder flags as damaged are withheld, and a damaged keyframe ends the run: what builds on it is no
        picture of what was there.
        """
        unseen: set[int] = set()  # fed to the decoder, not out yet
        decode = partial(self._decode, unseen=unseen, intact_only=intact_only)
        keyframe_seen = drained = False
        try:
            with closing(self._needed(run)) as needed:
                for packet in chain(needed, [None]):
                    drained = packet is None
                    for time, picture in decode(packet):
                        damaged = intact_only and picture.is_corrupt
                        if intact_only and not keyframe_seen and (damaged or time != run.keyframe):
                            return
                        keyframe_seen = True
                        if not damaged:
                            yield time, picture
                    if intact_only and self._fate_of(run.keyframe) is Fate.UNDECODABLE:
                        return
        finally:
            if not drained:
                decode(None)
            if self._decoder.name not in _MAY_SHOW_NOTHING:
                for time in unseen:
                    self._note(time, Fate.UNDECODABLE)
            self._decoder.flush_buffers()

    def _needed(self, run: Run) -> Generator[VideoPacket]:
        """Yield the packets that the run's pictures may build on, the keyframe first."""
        with closing(packets_from(self._container, self._stream, run.keyframe)) as packets:
            for packet in packets:
                time = display_time(packet)
                if time == run.keyframe and packet.is_keyframe:
                    yield packet
                    if run.only_keyframe:
                        return
                elif time is None or time >= run.keyframe:
                    # Nothing is shown before it is decoded, so from here on all is beyond the run.
                    decoded = packet.dts if packet.dts is not None else time
                    if decoded is not None and decoded >= run.stretches[-1].stop:
                        return
                    yield packet
                # else: a leading picture of an open GOP, which builds on the GOP before

    def _decode(
        self, packet: VideoPacket | None, *, unseen: set[int], intact_only: bool
    ) -> list[tuple[int, VideoFrame]]:
        """Feed one packet, or None to drain; give the display times and pictures that come out."""
        fed = display_time(packet) if packet is not None else None
        if fed is not None:
            unseen.add(fed)
        try:
            pictures = self._decoder.decode(packet)
        except FFmpegError as error:
            blame_memory(error, _LARGEST_PIXEL_BYTES * self._decoder.width * self._decoder.height)
            if fed is not None:
                unseen.discard(fed)
                self._note(fed, Fate.UNDECODABLE)
            return []
        timed = []
        for picture in pictures:
            # Containers that store no display times (AVI) still show pictures in the order of their times.
            time = picture.pts if picture.pts is not None else min(unseen, default=None)
            if time is None:
                continue
            unseen.discard(time)
            self._note(time, Fate.UNDECODABLE if picture.is_corrupt and intact_only else Fate.DECODED)
            timed.append((time, picture))
        return timed

    def _note(self, time: int, fate: Fate) -> None:
        index = self._timeline.index_of(time)
        if index < len(self._fates):
            self._fates[index] = max(self._fates[index], fate)

    def _fate_of(self, time: int) -> Fate:
        return Fate(int(self._fates[self._timeline.index_of(time)]))
