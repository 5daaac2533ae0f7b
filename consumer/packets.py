"""Packets: finds a recording's video track, reads its packets without decoding, and goes to a keyframe."""

from array import array
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from consumer.claims import MAX_SAMPLES
from consumer.errors import RecordingTooLarge, RecordingUndecodable
from consumer.limits import blame_memory
from consumer.sampling import Timeline

if TYPE_CHECKING:  # PyAV's classes are generic to type checkers only
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet

_MP4_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2"
_OTHER_FORMATS = "matroska,webm,avi,mpegts,flv,asf"
"""Self-contained containers only: a playlist (HLS, DASH, concat) would make libav open what it names.

What does not begin with a box is not opened as an MP4: nobody has looked into its tables."""

_CODECS = frozenset(
    ["h264", "hevc", "mjpeg", "mpeg4", "mpeg2video", "mpeg1video", "h263", "vp8", "vp9", "libdav1d", "av1"]
)
"""Decoders of what cameras write. libav has some 300 more for video: old, slow, or hardly looked after."""
_AUDIO_CODECS = frozenset(
    ["aac", "mp3float", "mp2float", "pcm_mulaw", "pcm_alaw", "pcm_s16le", "opus", "ac3"]
)
"""Never decoded; without them libav would look for what it cannot know in the first seconds of sound."""

_TABLE_BYTES = 8 * 1024**2
"""What a demuxer asks for at once: a packet, or one more piece of its tables."""
_MAX_DEMUX_ERRORS = 100
_BEFORE_EVERYTHING = -(2**62)


@dataclass(frozen=True)
class Scan:
    """What one pass over all packets found.

    packets: how many were read, with and without a picture to show.
    error: why not all of them could be read; None when the file was read through.
    """

    timeline: Timeline
    packets: int
    error: str | None


def open_container(name: str, file: BinaryIO, max_pixels: int, *, is_mp4: bool) -> InputContainer:
    """Open a recording's container; pictures beyond max_pixels are refused by the decoder too.

    Raises:
        RecordingUndecodable: not a video in a container that we know, or it wants another file opened.
    """

    def nothing_else(url: str, flags: int, options: dict[str, str]) -> NoReturn:
        raise RecordingUndecodable(f"{name} refers to another file or address, which is never opened.")

    options = {
        "format_whitelist": _MP4_FORMATS if is_mp4 else _OTHER_FORMATS,
        "codec_whitelist": ",".join(sorted(_CODECS | _AUDIO_CODECS)),
        "max_pixels": str(max_pixels),
        "fpsprobesize": "0",  # libav would decode frames to guess a frame rate; the packets have times
        "advanced_editlist": "0",  # MP4: everything that is in the file counts, also what an edit cut away
    }
    try:
        return av.open(file, mode="r", options=options, metadata_errors="replace", io_open=nothing_else)
    except FFmpegError as error:
        blame_memory(error, _TABLE_BYTES)
        raise RecordingUndecodable(f"{name} cannot be opened as a video: {error.strerror}.") from error


def video_stream(name: str, container: InputContainer, max_pixels: int) -> VideoStream:
    """Give the video track, ready to decode on one thread.

    Raises:
        RecordingUndecodable: no video track, or a codec that we cannot decode.
        RecordingTooLarge: a picture has more than max_pixels pixels.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise RecordingUndecodable(f"{name} holds no video track (it holds: {kinds}).")
    stream = streams[0]
    decoder = stream.codec_context
    if decoder is None or not decoder.is_decoder:
        raise RecordingUndecodable(f"{name} has a video track in a codec that cannot be decoded here.")
    if decoder.name not in _CODECS:
        raise RecordingUndecodable(f"{name} has a video track in {decoder.name}, which is not decoded here.")
    if decoder.width * decoder.height > max_pixels:
        raise RecordingTooLarge(
            f"{name} has pictures of {decoder.width}x{decoder.height}, over the limit of {max_pixels} pixels."
        )
    decoder.options = {"max_pixels": str(max_pixels)}
    decoder.thread_count = 1  # several worker processes beat threads, and every frame thread holds frames
    return stream


def display_time(packet: VideoPacket) -> int | None:
    """When the packet's picture is shown, in ticks; None where it shows none (cut by an edit list)."""
    if packet.is_discard:
        return None
    return packet.pts if packet.pts is not None else packet.dts


def scan(name: str, container: InputContainer, stream: VideoStream) -> Scan:
    """Read through all packets once; holds 8 bytes per packet, a fraction of what libav's own index takes.

    Raises:
        RecordingTooLarge: more than MAX_SAMPLES packets.
    """
    times, keyframe_times, errors = array("q"), array("q"), list[str]()
    packets, end = 0, -(2**62)
    for packet in _read(container, stream, errors):
        packets += 1
        if packets > MAX_SAMPLES:
            raise RecordingTooLarge(f"{name} has more than {MAX_SAMPLES} pictures: it is not read through.")
        time = display_time(packet)
        if time is None:
            continue
        times.append(time)
        end = max(end, time + (packet.duration or 0))
        if packet.is_keyframe:
            keyframe_times.append(time)
    error = f"not read through: {errors[0]}" if errors else None
    return Scan(_timeline(times, keyframe_times, end), packets, error)


def packets_from(
    container: InputContainer, stream: VideoStream, keyframe_time: int
) -> Generator[VideoPacket]:
    """Yield packets in decoding order, the first being the keyframe shown at this time.

    Yields nothing where the keyframe cannot be reached. A demuxer's seek may land early (then we read on)
    or late (then we begin again at the file's start).
    """
    for seek in (
        partial(container.seek, keyframe_time, stream=stream),
        partial(container.seek, _BEFORE_EVERYTHING, stream=stream),
        partial(container.seek, 0, unsupported_byte_offset=True),  # MPEG-TS too short to seek by time
    ):
        try:
            seek()
        except FFmpegError:
            continue
        with closing(_read(container, stream, errors=[])) as packets:
            for packet in packets:
                if packet.is_keyframe and display_time(packet) == keyframe_time:
                    yield packet
                    yield from packets
                    return
                if packet.dts is not None and packet.dts > keyframe_time:
                    break  # past it


def _read(container: InputContainer, stream: VideoStream, errors: list[str]) -> Generator[VideoPacket]:
    """Yield the stream's packets; after an error go on, as long as that brings further packets."""
    while len(errors) < _MAX_DEMUX_ERRORS:
        got_one = False
        try:
            for packet in container.demux(stream):
                if packet.size > 0:  # PyAV ends with an empty one
                    got_one = True
                    yield packet
            return
        except FFmpegError as error:
            blame_memory(error, _TABLE_BYTES)
            errors.append(error.strerror or type(error).__name__)
            if not got_one:
                return


def _timeline(times: Sequence[int], keyframe_times: Sequence[int], end: int) -> Timeline:
    shown = np.sort(np.array(times, dtype=np.int64))
    keyframes = np.unique(np.array(keyframe_times, dtype=np.int64))
    if len(shown) > 0 and end <= shown[-1]:  # the last packet says no duration: take the mean
        end = int(shown[-1]) + max(1, int(shown[-1] - shown[0]) // max(1, len(shown) - 1))
    return Timeline(shown, keyframes, end)
