"""Ways to read a recording for a network: the usual loop, and ours. Run as a program, it measures one way.

    python -m tests.bench.ways <way> <predictions> <clip> [<clip> ...]

prints one line of JSON (a Measured). Each way has a process of its own, so that peaks of memory do not mix.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consumer.contract import DEFAULT_HEIGHT, DEFAULT_WIDTH
from consumer.frames import to_network
from consumer.media import FileMedia
from consumer.video import open_recording
from tests.bench.costs import peak_mib

_GREY = (114, 114, 114)
_EVERY_FRAME = 10**6

Reading = Iterator[npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Measured:
    """What one way took of the machine for all its recordings together; imports are not counted."""

    recordings: int
    frames: int
    """Made ready for the network."""
    frame_bytes: int
    """Of one frame as it goes over the wire."""
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float


def usual_all(clip: Path, _predictions: int) -> Reading:
    """Read every frame with OpenCV and make each ready for the network."""
    for image in _opencv_frames(clip):
        yield _letterbox_float32(image)


def usual_some(clip: Path, predictions: int) -> Reading:
    """Read every frame with OpenCV, and make only as many ready as are looked at."""
    # The number of frames is asked of the file, which is how such a loop spreads its predictions.
    capture = cv2.VideoCapture(str(clip))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    wanted = {count * (2 * n + 1) // (2 * predictions) for n in range(predictions)}
    for number, image in enumerate(_opencv_frames(clip)):
        if number in wanted:
            yield _letterbox_float32(image)


def ours_all(clip: Path, _predictions: int) -> Reading:
    """Decode every frame as the consumer does."""
    return ours_some(clip, _EVERY_FRAME)


def ours_some(clip: Path, predictions: int) -> Reading:
    """Decode what is looked at, as the consumer does."""
    with open_recording(FileMedia(clip)) as recording:
        for frame in recording.sample(predictions):
            yield to_network(
                frame.picture,
                frame.rotation_degrees,
                height=DEFAULT_HEIGHT,
                width=DEFAULT_WIDTH,
                resize="letterbox",
            ).i420


WAYS: dict[str, Callable[[Path, int], Reading]] = {
    way.__name__: way for way in (usual_all, usual_some, ours_all, ours_some)
}


def measure(way: Callable[[Path, int], Reading], predictions: int, clips: Sequence[Path]) -> Measured:
    """Read recordings one after the other in this process, and drop what comes out."""
    frames = frame_bytes = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for clip in clips:
        for tensor in way(clip, predictions):
            frames += 1
            frame_bytes = tensor.nbytes
    return Measured(
        recordings=len(clips),
        frames=frames,
        frame_bytes=frame_bytes,
        cpu_seconds=time.process_time() - cpu,
        wall_seconds=time.perf_counter() - wall,
        peak_mib=peak_mib(os.getpid()),
    )


def _opencv_frames(clip: Path) -> Iterator[npt.NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(clip))
    while True:
        there, image = capture.read()
        if not there:
            break
        yield np.asarray(image, np.uint8)
    capture.release()


def _letterbox_float32(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give float32 [3, H, W] in RGB and 0..1, as YOLO's own examples do."""
    height, width = image.shape[:2]
    scale = min(DEFAULT_WIDTH / width, DEFAULT_HEIGHT / height)
    inner_width, inner_height = round(width * scale), round(height * scale)
    left, top = (DEFAULT_WIDTH - inner_width) // 2, (DEFAULT_HEIGHT - inner_height) // 2
    boxed = cv2.copyMakeBorder(
        cv2.resize(image, (inner_width, inner_height)),
        top,
        DEFAULT_HEIGHT - inner_height - top,
        left,
        DEFAULT_WIDTH - inner_width - left,
        cv2.BORDER_CONSTANT,
        value=_GREY,
    )
    return np.ascontiguousarray(boxed[:, :, ::-1].transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


if __name__ == "__main__":
    name, count, *paths = sys.argv[1:]
    sys.stdout.write(json.dumps(asdict(measure(WAYS[name], int(count), [Path(path) for path in paths]))))
