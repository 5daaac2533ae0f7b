"""Clips: functions that make recordings, sound and awkward. Each picture carries its number."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

Image = npt.NDArray[np.uint8]

_BITS = 16
KERBEROS_FRAGMENTS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "video_track_timescale": "1000",
}
"""As kerberos-io/agent machinery/src/video/mp4.go writes: milliseconds, a fragment per keyframe."""


@dataclass(frozen=True)
class Clip:
    """What to write; by default a sound little recording: 80 frames, 25 a second, a keyframe every 20."""

    frames: int = 80
    fps: int = 25
    width: int = 320
    height: int = 192
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    keyframe_every: int = 20
    b_frames: int = 0
    encoder_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    times_ms: Sequence[int] | None = None
    rotation_degrees: int = 0
    """Clockwise turn that makes the pictures upright."""
    full_range: bool = False
    bt709: bool = False
    with_audio: bool = False
    draw: Callable[[int, int, int], Image] | None = None
    """Gives the BGR picture of (number, width, height); default `numbered`."""


def numbered(number: int, width: int, height: int) -> Image:
    """Draw a BGR picture (uint8 [height, width, 3]) with its number as a row of light and dark bars."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)
    image[..., 1] = np.linspace(60, 180, height, dtype=np.uint8)[:, None]
    image[..., 2] = 120
    left = number * 7 % max(1, width - 40)
    image[height // 4 : height // 2, left : left + 40] = (30, 60, 220)
    for bit in range(_BITS):
        bar = image[height * 3 // 4 :, width * bit // _BITS : width * (bit + 1) // _BITS]
        bar[:] = 220 if number >> bit & 1 else 30
    return image


def number_of(picture: VideoFrame) -> int:
    """Read the number back from a decoded picture."""
    grey = np.asarray(picture.to_ndarray(format="gray"))
    height, width = grey.shape
    row = grey[height * 7 // 8]
    return sum(1 << bit for bit in range(_BITS) if row[width * (2 * bit + 1) // (2 * _BITS)] > 125)


def write(path: Path, clip: Clip | None = None) -> Path:
    """Encode a clip; the ending of the path says the container."""
    clip = clip or Clip()
    with av.open(str(path), "w", options=clip.container_options) as container:
        stream = container.add_stream(clip.codec, rate=clip.fps)
        assert isinstance(stream, VideoStream)
        _configure(stream.codec_context, clip)
        if clip.rotation_degrees:
            stream.set_display_rotation(-clip.rotation_degrees)
        audio = container.add_stream("aac", rate=48000) if clip.with_audio else None
        for picture in _pictures(clip):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(_silence(clip.frames / clip.fps)))
            container.mux(audio.encode(None))
    return path


def write_audio_only(path: Path) -> Path:
    """Write an MP4 that holds sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        container.mux(stream.encode(_silence(1.0)))
        container.mux(stream.encode(None))
    return path


def write_unfinished(path: Path) -> Path:
    """Write what an agent leaves while it records: a `free` box where the head will be, then fragments."""
    data = write(path, Clip(container_options=KERBEROS_FRAGMENTS)).read_bytes()
    head = data.index(b"moof") - 4
    path.write_bytes(head.to_bytes(4, "big") + b"free" + bytes(head - 8) + data[head:])
    return path


def write_kerberos_like(path: Path, clip: Clip) -> Path:
    """Write a fragmented clip with the padding that an agent leaves between head and fragments."""
    with_options = Clip(**{**clip.__dict__, "container_options": KERBEROS_FRAGMENTS})
    data = write(path, with_options).read_bytes()
    head = data.index(b"moof") - 4
    path.write_bytes(data[:head] + (1024).to_bytes(4, "big") + b"free" + bytes(1016) + data[head:])
    return path


def encrypt(path: Path, passphrase: str) -> Path:
    """Replace a file by what an agent that encrypts uploads in its place, written by OpenSSL itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("There is no openssl: run scripts/test, or install it.")
    command = [openssl, "aes-256-cbc", "-md", "md5", "-salt", "-pass", "env:PASSPHRASE", "-in", str(path)]
    done = subprocess.run(
        command, env={"PASSPHRASE": passphrase}, capture_output=True, check=True, timeout=60
    )
    path.write_bytes(done.stdout)
    return path


def write_encrypted_looking(path: Path) -> Path:
    """Write what OpenSSL's `enc` writes: its magic, a salt, noise."""
    path.write_bytes(b"Salted__" + np.random.default_rng(1).bytes(5000))
    return path


def write_without_first_keyframe(path: Path, clip: Clip | None = None) -> Path:
    """Write a clip whose first packet is missing, so that it begins with pictures that build on nothing."""
    return remux(path, clip or Clip(), keep=lambda number, packet: number > 0)


def write_without_keyframes(path: Path) -> Path:
    """Write a clip from which every keyframe has been taken."""
    return remux(path, Clip(), keep=lambda number, packet: not packet.is_keyframe)


def write_repeated(path: Path, clip: Clip, times: int) -> Path:
    """Write a long clip cheaply: the packets of a short one (no B-frames), again and again."""
    return remux(path, clip, repeat=times)


def remux(
    path: Path,
    clip: Clip,
    *,
    keep: Callable[[int, "Packet[VideoStream]"], bool] = lambda number, packet: True,
    repeat: int = 1,
) -> Path:
    """Write the packets of a clip that `keep` chooses by number and packet, `repeat` times in a row."""
    whole = write(path.with_name(f"whole-{path.name}"), clip)
    with av.open(str(path), "w", options=clip.container_options) as target:
        stream = None
        for turn in range(repeat):
            with av.open(str(whole)) as source:
                track = source.streams.video[0]
                assert track.time_base is not None
                stream = stream or target.add_stream_from_template(track)
                shift = round(turn * clip.frames / clip.fps / track.time_base)
                for number, packet in enumerate(source.demux(track)):
                    if packet.size == 0 or not keep(number, packet):
                        continue
                    assert packet.pts is not None and packet.dts is not None
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    target.mux(packet)
    whole.unlink()
    return path


def write_size_changing(path: Path) -> Path:
    """Write 40 pictures of 320x192 and then 40 of 480x288 into one track, the new head inside the packets."""
    small = Clip(frames=40, encoder_options={"x264-params": "repeat-headers=1"})
    large = Clip(**{**small.__dict__, "width": 480, "height": 288})
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=small.fps)
        assert isinstance(stream, VideoStream)
        _configure(stream.codec_context, small)
        for first, clip in ((0, small), (40, large)):
            encoder = stream.codec_context
            if clip is large:
                created = av.CodecContext.create("libx264", "w")
                assert isinstance(created, VideoCodecContext)
                encoder = created
                _configure(encoder, large)
                encoder.time_base = Fraction(1, large.fps)
                encoder.framerate = Fraction(large.fps)
            for picture in [*_pictures(clip, first), None]:
                for packet in encoder.encode(picture):
                    packet.stream = stream
                    target.mux(packet)
    return path


def damage(path: Path, packets: Sequence[int], *, zeros: bool = False) -> Path:
    """Overwrite these packets (counted in decoding order) with noise or zeros."""
    noise = np.random.default_rng(7)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size > 0]
    data = bytearray(path.read_bytes())
    for number in packets:
        position, size = places[number]
        assert position is not None
        data[position : position + size] = bytes(size) if zeros else noise.bytes(size)
    path.write_bytes(data)
    return path


def truncate(path: Path, share: float) -> Path:
    """Cut a file after this share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _configure(encoder: VideoCodecContext, clip: Clip) -> None:
    encoder.width, encoder.height = clip.width, clip.height
    encoder.pix_fmt = clip.pixel_format
    encoder.gop_size = clip.keyframe_every
    encoder.max_b_frames = clip.b_frames
    encoder.thread_count = 1
    if clip.times_ms is not None:
        encoder.time_base = Fraction(1, 1000)
    if clip.full_range:
        encoder.color_range = ColorRange.JPEG
    if clip.bt709:
        encoder.colorspace = 1
    options = {"crf": "23", "preset": "veryfast"} if clip.codec in ("libx264", "libx265") else {}
    if clip.codec == "libx264":
        options["sc_threshold"] = "0"
    if clip.codec == "libx265":
        params = f"log-level=none:scenecut=0:pools=1:keyint={clip.keyframe_every}:bframes={clip.b_frames}"
        options["x265-params"] = params
    encoder.options = options | clip.encoder_options


def _pictures(clip: Clip, first: int = 0) -> Iterator[VideoFrame]:
    return (_picture(clip, number) for number in range(first, first + clip.frames))


def _picture(clip: Clip, number: int) -> VideoFrame:
    image = (clip.draw or numbered)(number, clip.width, clip.height)
    picture = VideoFrame.from_ndarray(image, format="bgr24").reformat(
        format=clip.pixel_format,
        dst_colorspace=Colorspace.ITU709 if clip.bt709 else Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG if clip.full_range else ColorRange.MPEG,
    )
    if clip.times_ms is not None:
        picture.pts, picture.time_base = clip.times_ms[number], Fraction(1, 1000)
    else:
        picture.pts, picture.time_base = number, Fraction(1, clip.fps)
    return picture


def _silence(seconds: float) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, int(48000 * seconds)), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 48000
    return frame


def as_bgr(picture: VideoFrame) -> Image:
    """Convert a decoded picture to BGR."""
    return np.asarray(cv2.cvtColor(picture.to_ndarray(format="rgb24"), cv2.COLOR_RGB2BGR), np.uint8)
