"""Every layout finds what its original finds: the same weights, shaped as another exporter shapes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from consumer.agreement import Agreement, compare_frame, total
from consumer.analysis import Detection
from consumer.contract import INPUT_NAME, OUTPUT_NAME, Resize
from consumer.detections import Detections, Placement, from_rows
from consumer.frames import from_bgr
from modelops import graph, network
from modelops.answers import open_session
from modelops.coco import COCO_LABELS
from modelops.graph import ContractGraph, PixelFacts
from modelops.reference import Reference
from tests.modelops.layouts import LAYOUTS, OWN_SIZE, resize_of

CLIP = Path(__file__).parents[2].parent / "shared" / "data" / "clips" / "one-by-one-person-detection.mp4"
SIZES: dict[Resize, tuple[int, int]] = {"letterbox": (384, 640), "stretch": (416, 416)}
SURE, WIDE, NMS_IOU = 0.25, 0.2, 0.45
"""What one way is just sure of, the other may just not be: SURE boxes are sought among the WIDE ones."""
BATCH = 4
RECOGNISED_AS = {
    "yolov5-p6": "yolov5",
    "yolov7": "yolov5",
    "yolov9-dual": "ultralytics",
    "yolo-nas-uint8": "yolo-nas",
    "yolo-nas-batched": "yolo-nas",
    "rt-detr-ultralytics": "rt-detr",
    "rt-detr-ranked": "rt-detr",
    "rt-detr-original": "rt-detr",
    "rt-detr-hugging-face": "rt-detr",
}
FINAL = ("end-to-end", "rt-detr", "yolo-nas-batched")

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Original:
    """What the file as it came finds, run the plain way, on pictures of the network's own size.

    frames: uint8 [n, H*3/2, W]; pictures: the same n as BGR, turned back from I420, so that both ways see the
    same colours.
    """

    frames: Picture
    pictures: list[Picture]
    found: list[list[Detection]]
    """With a score of WIDE or more."""


@pytest.fixture(scope="module")
def crowds(dog: Picture) -> list[Picture]:
    """People of a clip, six frames a picture, and the photo tiled in many ways."""
    capture = cv2.VideoCapture(str(CLIP))
    frames = [frame for number in range(1_400) for ok, frame in [capture.read()] if ok and number % 25 == 0]
    assert len(frames) > 50, f"The clip {CLIP} is missing: this test needs ../shared beside the checkout."
    mosaics = [
        np.vstack([np.hstack([each[:, 150:620] for each in frames[n + row : n + row + 3]]) for row in (0, 3)])
        for n in range(0, 48, 6)
    ]
    tiles = [
        np.ascontiguousarray(np.tile(_shrunk(dog, factor), (rows, columns, 1))[cut:, cut:])
        for factor, rows, columns in ((0.7, 2, 2), (0.5, 2, 3), (0.6, 3, 3), (0.5, 3, 4), (0.4, 4, 4))
        for cut in (0, 23, 41, 57)
    ]
    return [np.asarray(picture, np.uint8) for picture in (*mosaics, *tiles)]


@pytest.fixture(scope="module")
def originals(yolox_nano: Path, crowds: list[Picture]) -> dict[Resize, Original]:
    """The original's answers, once for all layouts."""
    answers: dict[Resize, Original] = {}
    for resize, (height, width) in SIZES.items():
        reference = Reference(yolox_nano, _pixels("letterbox"), height=height, width=width)
        frames = [from_bgr(each, height=height, width=width, resize=resize).i420 for each in crowds]
        pictures = [np.asarray(cv2.cvtColor(each, cv2.COLOR_YUV2BGR_I420), np.uint8) for each in frames]
        found = [_labelled(_detect(reference, picture)) for picture in pictures]
        assert len(crowds) % BATCH == 0
        answers[resize] = Original(np.stack(frames), pictures, found)
    return answers


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(layout: str, yolox_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layouts") / f"{layout}.onnx"
    onnx.save(LAYOUTS[layout](network.load(yolox_nano)), path)
    return path


@pytest.fixture(scope="module")
def built(layout: str, file: Path) -> ContractGraph:
    height, width = OWN_SIZE.get(layout, SIZES["letterbox"])
    pixels = _pixels(resize_of(layout))
    return graph.build(network.load(file), pixels, height=height, width=width, labels=len(COCO_LABELS))


def test_a_layout_is_recognised_by_what_it_answers(layout: str, built: ContractGraph) -> None:
    assert built.layout == RECOGNISED_AS.get(layout, layout)
    assert built.classes == len(COCO_LABELS)
    assert built.resize == resize_of(layout)
    assert built.nms_in_graph == layout.startswith(FINAL)
    rows = 300 if built.nms_in_graph else 1000
    assert [dim.dim_value for dim in built.model.graph.output[0].type.tensor_type.shape.dim] == [0, rows, 6]


def test_a_layout_finds_the_boxes_of_the_original_in_batches(
    layout: str, built: ContractGraph, originals: dict[Resize, Original]
) -> None:
    original = originals[built.resize]
    session = open_session(built.model)
    found: list[list[Detection]] = []
    for first in range(0, len(original.frames), BATCH):
        batch = original.frames[first : first + BATCH]
        rows = session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0]
        # The real ones of the final layouts leave no doubles; these do, so all are suppressed alike.
        found += [
            _labelled(from_rows(each, _as_it_is(built), score_threshold=WIDE, nms_iou=NMS_IOU))
            for each in rows
        ]

    sought = _agreement(_sure(original.found), found)
    seen = _agreement(original.found, _sure(found))
    assert sought.reference_boxes >= 300
    assert sought.recall is not None and sought.recall >= 0.99
    assert seen.precision is not None and seen.precision >= 0.99
    assert sought.mean_iou is not None and sought.mean_iou >= 0.95


def test_the_plain_way_reads_a_layout_as_the_original(
    layout: str, file: Path, built: ContractGraph, originals: dict[Resize, Original]
) -> None:
    original = originals[built.resize]
    pixels = _pixels("letterbox")
    reference = Reference(file, pixels, height=built.height, width=built.width, layout=built.layout)
    few = sorted(range(len(original.found)), key=lambda n: -len(original.found[n]))[:3]

    agreement = _agreement(
        [original.found[n] for n in few], [_labelled(_detect(reference, original.pictures[n])) for n in few]
    )

    assert agreement.reference_boxes >= 30
    # Those that rank all pairs of a box and a class may give a box a second name.
    assert agreement.agreement is not None and agreement.agreement >= 0.99
    assert agreement.mean_iou is not None and agreement.mean_iou >= 0.99


def _pixels(resize: Resize) -> PixelFacts:
    return PixelFacts(colour="bgr", scale="255", resize=resize)


def _shrunk(picture: Picture, factor: float) -> Picture:
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def _detect(reference: Reference, picture: Picture) -> Detections:
    return reference.detect(picture, score_threshold=WIDE, nms_iou=NMS_IOU)


def _as_it_is(built: ContractGraph) -> Placement:
    """Of a picture that has the network's size already."""
    return Placement(built.width, built.height, 1, 1, 0, 0)


def _labelled(found: Detections) -> list[Detection]:
    return [
        Detection(
            COCO_LABELS[kind], float(score), (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        )
        for box, score, kind in zip(found.boxes_xyxy, found.scores, found.class_indices, strict=True)
    ]


def _sure(found: Sequence[list[Detection]]) -> list[list[Detection]]:
    return [[each for each in frame if each.score >= SURE] for frame in found]


def _agreement(expected: Sequence[list[Detection]], found: Sequence[list[Detection]]) -> Agreement:
    return total(compare_frame(a, b, COCO_LABELS) for a, b in zip(expected, found, strict=True))
