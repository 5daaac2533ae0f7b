"""The golden set: pictures on which an exported model must find what its source finds."""

import contextlib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consumer.contract import Resize
from consumer.errors import RecordingError, SetupError
from consumer.frames import NetworkFrame, UInt8Array, from_bgr, to_bgr, to_network
from consumer.media import FileMedia
from consumer.sample_clip import cached_sample_clip, sample_clip
from consumer.video import SampledFrame, open_recording
from modelops.download import digest_of
from modelops.provenance import File

ROUND_FRAMES = 100
"""Pictures of one round: enough of each clip, few enough to stop soon after there are boxes enough."""

_ROUNDS = 10
_OTHER_PHASE = 1 / 3
"""Not one of the rounds', which are halves, quarters, eighths ..."""

_PHOTOS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_CLIPS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".ts", ".mpg", ".mpeg"})
_SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@dataclass(frozen=True)
class GoldenPicture:
    """One picture of the set, upright.

    name: of its file, with the time for a frame of a clip.
    source: as it was decoded: a frame of a clip, or a photo, uint8 [h, w, 3] in BGR.
    """

    name: str
    source: SampledFrame | UInt8Array

    @property
    def bgr(self) -> UInt8Array:
        """The whole picture, uint8 [h, w, 3]."""
        if isinstance(self.source, SampledFrame):
            return to_bgr(self.source.picture, self.source.rotation_degrees)
        return self.source

    def network_frame(self, *, height: int, width: int, resize: Resize) -> NetworkFrame:
        """Bring it to the network as the consumer does."""
        if isinstance(self.source, SampledFrame):
            turn = self.source.rotation_degrees
            return to_network(self.source.picture, turn, height=height, width=width, resize=resize)
        return from_bgr(self.source, height=height, width=width, resize=resize)


@dataclass(frozen=True)
class GoldenAnswer:
    """What ONNX Runtime answered at export, for the self-test of a version: golden.npz.

    frames: uint8 [1, H*3/2, W] of the contract. rows: float32 [1, K, 6].
    """

    frames: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.float32]

    def to_npz(self) -> bytes:
        """Return it as a compressed npz file."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, frames=self.frames, rows=self.rows)
        return buffer.getvalue()


@dataclass(frozen=True)
class GoldenSet:
    """Photos and clips, by their paths.

    without: names of pictures that `rounds` leaves out, because they were calibrated with.
    """

    photos: tuple[Path, ...] = ()
    clips: tuple[Path, ...] = ()
    without: frozenset[str] = frozenset()

    @cached_property
    def files(self) -> tuple[File, ...]:
        """Names and digests of all files."""
        paths = (*self.photos, *self.clips)
        return tuple(File(path.name, f"sha256:{digest_of(path)}", path.stat().st_size) for path in paths)

    def rounds(self) -> Iterator[Iterator[GoldenPicture]]:
        """Yield pictures in rounds of about ROUND_FRAMES; no round repeats a picture of those before.

        A round takes frames from all over each clip, by its share of the footage, so that a few rounds see
        everything; a later one takes frames between those of the earlier ones.

        Raises:
            SetupError: a file cannot be read; raised as its pictures are asked for.
        """
        taken: set[tuple[Path, int]] = set()
        for number in range(_ROUNDS):
            photos = self.photos[number * ROUND_FRAMES : (number + 1) * ROUND_FRAMES]
            frames = self._frames(ROUND_FRAMES, _phase(number), taken)
            every = itertools.chain(map(_photo, photos), frames)
            yield (picture for picture in every if picture.name not in self.without)

    def some_pictures(self, count: int) -> Iterator[GoldenPicture]:
        """Yield up to `count` photos, and as many frames.

        Raises:
            SetupError: a file cannot be read.
        """
        step = max(1, len(self.photos) // count)
        yield from map(_photo, self.photos[::step][:count])
        yield from self._frames(count, _OTHER_PHASE, set())

    def split(self, count: int) -> tuple["GoldenSet", "GoldenSet"]:
        """Return a set for `some_pictures(count)` to calibrate with, and one without these to judge by.

        Raises:
            SetupError: a file cannot be read.
        """
        if self.clips:
            calibration = GoldenSet(clips=self.clips)
            names = frozenset(picture.name for picture in calibration.some_pictures(count))
            return calibration, replace(self, without=names)
        judged = tuple(photo for n, photo in enumerate(self.photos) if n % 4)
        return GoldenSet(self.photos[::4]), GoldenSet(judged or self.photos)

    @cached_property
    def _seconds(self) -> dict[Path, float]:
        return {clip: _duration_seconds(clip) for clip in self.clips}

    def _frames(self, count: int, phase: float, taken: set[tuple[Path, int]]) -> Iterator[GoldenPicture]:
        total = sum(self._seconds.values())
        for clip, seconds in self._seconds.items():
            share = max(1, round(count * seconds / total)) if total > 0 else count
            times = [(n + phase) / share * seconds for n in range(share)]
            yield from _clip_frames(clip, times, taken)


def golden_set(directory: Path | None = None) -> GoldenSet:
    """Find the golden set: the user's folder, else ../shared/data beside the checkout, else the sample clip.

    Raises:
        SetupError: the folder holds neither photos nor clips, or the sample clip cannot be fetched.
    """
    if directory is not None:
        return pictures_in(directory)
    if (_SHARED / "clips").is_dir():
        found = [pictures_in((_SHARED / part).resolve()) for part in ("photos", "clips")]
        return GoldenSet(found[0].photos, found[1].clips)
    return GoldenSet(clips=(sample_clip(),))


def pictures_in(directory: Path) -> GoldenSet:
    """Return all photos and clips in a folder and the folders in it, by name.

    Raises:
        SetupError: there are none.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    photos = tuple(path for path in files if path.suffix.lower() in _PHOTOS)
    clips = tuple(path for path in files if path.suffix.lower() in _CLIPS)
    if not photos and not clips:
        endings = ", ".join(sorted(_PHOTOS | _CLIPS))
        raise SetupError(f"{directory} holds no photo and no clip ({endings}): give a folder that does.")
    return GoldenSet(photos, clips)


def at_hand() -> GoldenSet:
    """Return what `golden_set` finds without the network; empty where that is nothing."""
    if (_SHARED / "clips").is_dir() or cached_sample_clip() is not None:
        return golden_set()
    return GoldenSet()


def _phase(number: int) -> float:
    """1/2, 1/4, 3/4, 1/8, 5/8 ...: van der Corput's sequence, which fills [0, 1) evenly at any length."""
    phase, share, left = 0.0, 0.5, number + 1
    while left:
        phase, share, left = phase + share * (left % 2), share / 2, left // 2
    return phase


def _photo(path: Path) -> GoldenPicture:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SetupError(f"{path} is not a photo that OpenCV reads: take it out of its folder.")
    return GoldenPicture(path.name, np.asarray(image, np.uint8))


def _duration_seconds(clip: Path) -> float:
    with _readable(clip), open_recording(FileMedia(clip, clip.name)) as recording:
        return recording.duration_seconds


def _clip_frames(
    clip: Path, times_seconds: Sequence[float], taken: set[tuple[Path, int]]
) -> Iterator[GoldenPicture]:
    with _readable(clip), open_recording(FileMedia(clip, clip.name)) as recording:
        for frame in recording.frames_at(times_seconds):
            if (clip, frame.index) not in taken:
                taken.add((clip, frame.index))
                yield GoldenPicture(f"{clip.name} at {frame.time_seconds:.2f} s", frame)


@contextlib.contextmanager
def _readable(clip: Path) -> Iterator[None]:
    try:
        yield
    except RecordingError as error:
        raise SetupError(f"{clip} cannot be replayed: {error} Take it out of its folder.") from error
