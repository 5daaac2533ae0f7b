"""The boxes of `detect` against plain ONNX Runtime on the same weights and frames: no I420, no Triton.

What is measured covers everything between the file and the boxes: sampling, colour, letterbox, the contract
graph, the wire, suppression and the way back to the picture's pixels.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from consumer.agreement import Agreement, compare_frame
from consumer.analysis import Analysis
from consumer.detect import detect
from consumer.detector import TritonEndpoint
from consumer.sample_clip import sample_clip
from consumer.worker import Look, WorkerSettings
from modelops import catalogue
from modelops.embedded import EmbeddedTriton
from modelops.gate import named
from modelops.reference import Reference
from modelops.source import Options, read_source

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SCORE = 0.35
NMS_IOU = 0.45
HEIGHT, WIDTH = 384, 640

Image = npt.NDArray[np.uint8]


def figures(found: Agreement) -> str:
    return (
        f"{found.reference_boxes} reference boxes, {found.other_boxes} found: "
        f"recall {found.recall or 0:.4f}, precision {found.precision or 0:.4f}, "
        f"mean IoU {found.mean_iou or 0:.4f}"
    )


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
    every = Agreement()
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
                of_clip += compare_frame(
                    named(expected, source.labels), looked_at[index].detections, source.labels
                )
        sys.stdout.write(f"{clip.name}: {figures(of_clip)}\n")
        every += of_clip
    sys.stdout.write(f"all: {figures(every)}\n")
    return every


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
    assert min(found.recall or 0, found.precision or 0) >= 0.98, figures(found)
    assert (found.mean_iou or 0) >= 0.95, figures(found)


def test_motion_blur_and_scores_at_the_threshold_cost_few_boxes(triton: EmbeddedTriton) -> None:
    # Cyclists in motion: many scores lie around the threshold, where a rounding decides.
    found = agreement(triton, [(sample_clip(), 60)])
    assert found.reference_boxes >= 100
    assert min(found.recall or 0, found.precision or 0) >= 0.94, figures(found)
    assert (found.mean_iou or 0) >= 0.95, figures(found)
