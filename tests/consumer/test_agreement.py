"""The boxes of `detect` against plain ONNX Runtime on the same weights and frames: no I420, no Triton.

What is measured covers everything between the file and the boxes: sampling, colour, letterbox, the contract
graph, the wire, suppression and the way back to the picture's pixels.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from consumer.analysis import Analysis
from consumer.detect import detect
from consumer.detections import Detections
from consumer.detector import TritonEndpoint
from consumer.sample_clip import sample_clip
from consumer.worker import Look, WorkerSettings
from modelops import catalogue
from modelops.embedded import EmbeddedTriton
from modelops.reference import Reference
from modelops.source import Options, read_source

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SCORE = 0.35
NMS_IOU = 0.45
HEIGHT, WIDTH = 384, 640

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Counts over all frames, and the overlap of each pair of boxes that belong together."""

    reference_boxes: int = 0
    found_boxes: int = 0
    overlaps: tuple[float, ...] = ()

    @property
    def recall(self) -> float:
        return len(self.overlaps) / self.reference_boxes

    @property
    def precision(self) -> float:
        return len(self.overlaps) / self.found_boxes

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.reference_boxes + other.reference_boxes,
            self.found_boxes + other.found_boxes,
            self.overlaps + other.overlaps,
        )

    def __str__(self) -> str:
        if not self.overlaps:
            return f"{self.reference_boxes} reference boxes, {self.found_boxes} found"
        return (
            f"{self.reference_boxes} reference boxes, {self.found_boxes} found: recall {self.recall:.4f}, "
            f"precision {self.precision:.4f}, median IoU {np.median(self.overlaps):.4f}"
        )


def iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Overlap of each of a [n, 4] with each of b [m, 4]: [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (a, b)]
    overlap: FloatArray = shared / (areas[0][:, None] + areas[1][None, :] - shared)
    return overlap


def pairs(reference: Detections, found: list[tuple[str, FloatArray]], labels: tuple[str, ...]) -> list[float]:
    """Match one to one within a class, best reference score first, IoU of at least a half."""
    free = list(range(len(found)))
    matched = []
    for box, class_index in zip(reference.boxes_xyxy, reference.class_indices, strict=True):
        of_class = [n for n in free if found[n][0] == labels[class_index]]
        if not of_class:
            continue
        overlaps = iou(box[None].astype(float), np.stack([found[n][1] for n in of_class]))[0]
        best = int(overlaps.argmax())
        if overlaps[best] >= 0.5:
            free.remove(of_class[best])
            matched.append(float(overlaps[best]))
    return matched


def frames_of(clip: Path) -> Iterator[Image]:
    """Decode every frame the plain way."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24").astype(np.uint8)


def write_clip(path: Path, pictures: list[Image]) -> Path:
    """Write pictures as a clip of keyframes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12", "g": "1"})
        stream.height, stream.width = pictures[0].shape[0] // 2 * 2, pictures[0].shape[1] // 2 * 2
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture[: stream.height, : stream.width], format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def crowd(pictures: list[Image], columns: int, rows: int) -> list[Image]:
    """Tile pictures into fewer ones that hold many people."""
    each = columns * rows
    tiled = []
    for first in range(0, len(pictures) - each + 1, each):
        tiles = pictures[first : first + each]
        lines = [np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)]
        tiled.append(np.vstack(lines).astype(np.uint8))
    return tiled


def agreement(triton: EmbeddedTriton, clips: list[tuple[Path, int]]) -> Agreement:
    """Look at so many frames of each clip both ways; writes the figures of each clip."""
    fetched = catalogue.fetch_default()
    source = read_source(fetched.path, Options())
    reference = Reference(fetched.path, source.pixels, height=HEIGHT, width=WIDTH)
    total = Agreement()
    for clip, predictions in clips:
        settings = WorkerSettings(
            Look(predictions, score_threshold=SCORE, nms_iou=NMS_IOU), TritonEndpoint(triton.grpc_url, "yolo")
        )
        ((_, analysis),) = detect([clip], settings, workers=1, time_limit_seconds=120.0)
        assert isinstance(analysis, Analysis), analysis
        assert len(analysis.frames) == predictions
        looked_at = {frame.index: frame for frame in analysis.frames}
        of_clip = Agreement()
        for index, picture in enumerate(frames_of(clip)):
            if index in looked_at:
                expected = reference.detect(picture, score_threshold=SCORE, nms_iou=NMS_IOU)
                found = [(d.label, np.array(d.box_xyxy)) for d in looked_at[index].detections]
                of_clip += Agreement(len(expected), len(found), tuple(pairs(expected, found, source.labels)))
        sys.stdout.write(f"{clip.name}: {of_clip}\n")
        total += of_clip
    sys.stdout.write(f"all: {total}\n")
    return total


def test_detect_finds_the_boxes_that_plain_onnx_runtime_finds(triton: EmbeddedTriton, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("The clips of ../shared/data are not beside this checkout.")
    people = list(frames_of(SHARED / "clips" / "one-by-one-person-detection.mp4"))
    dog = cv2.imread(str(SHARED / "photos" / "dog.jpg"))
    assert dog is not None
    found = agreement(
        triton,
        [
            (SHARED / "clips" / "one-by-one-person-detection.mp4", 120),
            (SHARED / "clips" / "car-detection.mp4", 20),
            (write_clip(tmp_path / "crowd.mp4", crowd(people[::2], 3, 3)), 75),
            (write_clip(tmp_path / "dog.mp4", [dog.astype(np.uint8)]), 1),
        ],
    )
    assert found.reference_boxes >= 500
    assert found.recall >= 0.98, str(found)
    assert found.precision >= 0.98, str(found)
    assert np.median(found.overlaps) >= 0.95, str(found)


def test_motion_blur_and_scores_at_the_threshold_cost_few_boxes(triton: EmbeddedTriton) -> None:
    # Cyclists in motion: many scores lie around the threshold, where a rounding decides.
    found = agreement(triton, [(sample_clip(), 60)])
    assert found.reference_boxes >= 100
    assert found.recall >= 0.94, str(found)
    assert found.precision >= 0.94, str(found)
    assert np.median(found.overlaps) >= 0.95, str(found)
