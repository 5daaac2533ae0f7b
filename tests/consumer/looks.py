"""Look at a recording as the worker does, checking on the way what must hold for every recording."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from av.video.frame import VideoFrame

from consumer.ledger import Ledger
from consumer.media import FileMedia, Media
from consumer.video import open_recording
from tests.clips import number_of
from tests.consumer.ledgers import assert_balances


class InMemory:
    """A recording whose bytes a test has written itself."""

    def __init__(self, data: bytes, name: str = "a.mp4") -> None:
        self.name = name
        self.size_bytes = len(data)
        self._data = data

    def open(self) -> BytesIO:
        """Give a reader at position 0."""
        return BytesIO(self._data)


@dataclass(frozen=True)
class SeenFrame:
    """A sampled frame and the number that its picture carries."""

    index: int
    number: int
    time_seconds: float
    rotation_degrees: int
    picture: VideoFrame


@dataclass(frozen=True)
class Seen:
    """What a look at a recording gave."""

    frames: list[SeenFrame]
    ledger: Ledger
    partial: tuple[str, ...]
    duration_seconds: float


def look(path: Path, predictions: int) -> Seen:
    """Sample a recording in a file; see look_at."""
    return look_at(FileMedia(path), predictions)


def look_at(media: Media, predictions: int) -> Seen:
    """Sample a recording; the frames must come once each, in order, with a ledger that balances."""
    with open_recording(media) as recording:
        frames = [
            SeenFrame(f.index, number_of(f.picture), f.time_seconds, f.rotation_degrees, f.picture)
            for f in recording.sample(predictions)
        ]
        ledger = recording.ledger(inferred=len(frames))
        partial = recording.partial
    assert_balances(ledger)
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    assert len(frames) <= predictions
    return Seen(frames, ledger, partial, recording.duration_seconds)
