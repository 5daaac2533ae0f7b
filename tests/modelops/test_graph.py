"""The contract graph answers what the plain way answers."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.detections import Detections, from_rows
from consumer.errors import SetupError
from consumer.frames import from_bgr
from modelops import graph, network
from modelops.graph import PixelFacts
from modelops.heads_darknet import DARKNET_METADATA
from modelops.nodes import Nodes
from modelops.reference import Reference, letterbox
from tests.modelops import little_models

HEIGHT, WIDTH = 384, 640
YOLOX_PIXELS = PixelFacts(colour="bgr", scale="255")
_TILES = ((0.7, 2), (0.5, 3), (0.8, 3))
Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def contract_graph(yolox_nano: Path) -> graph.ContractGraph:
    return graph.build(network.load(yolox_nano), YOLOX_PIXELS, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def session(contract_graph: graph.ContractGraph) -> onnxruntime.InferenceSession:
    return _session(contract_graph)


def _session(built: graph.ContractGraph) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(built.model.SerializeToString(), providers=["CPUExecutionProvider"])


def _answer(session: onnxruntime.InferenceSession, *frames: Picture) -> npt.NDArray[np.float32]:
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: np.stack(frames)})[0])


def _crowds(photo: Picture) -> list[Picture]:
    """Pictures with more objects than the photo: tiled, mirrored, shifted and darkened; many shapes."""
    small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    mirrored, dark = small[:, ::-1], (small * 0.7).astype(np.uint8)
    return [
        photo,
        np.ascontiguousarray(photo[:, ::-1]),
        np.vstack([np.hstack([small, mirrored]), np.hstack([dark, small])]),
        np.hstack([small, mirrored, dark]),
        np.vstack([small, mirrored]),
        np.ascontiguousarray(photo[40:, 100:700]),
        *(
            np.tile(cv2.resize(photo, None, fx=f, fy=f, interpolation=cv2.INTER_AREA), (n, n, 1))
            for f, n in _TILES
        ),
        *(np.ascontiguousarray(photo[20 * n :, 16 * n :]) for n in range(1, 12)),
    ]


def test_detections_equal_the_plain_way(
    yolox_nano: Path, session: onnxruntime.InferenceSession, dog: Picture
) -> None:
    reference = Reference(yolox_nano, YOLOX_PIXELS, height=HEIGHT, width=WIDTH)
    recalled: list[float] = []
    confirmed: list[float] = []
    for picture in _crowds(dog):
        expected = reference.detect(picture, score_threshold=0.35, nms_iou=0.45)
        frame = from_bgr(picture, height=HEIGHT, width=WIDTH, resize="letterbox")
        rows = _answer(session, frame.i420)[0]
        # What lies close to the threshold may fall on either side: look for each in the other's wider list.
        found = from_rows(rows, frame.placement, score_threshold=0.25, nms_iou=0.45)
        recalled += _best_overlaps(expected, found)
        sure = from_rows(rows, frame.placement, score_threshold=0.35, nms_iou=0.45)
        wide = reference.detect(picture, score_threshold=0.25, nms_iou=0.45)
        confirmed += _best_overlaps(sure, wide)

    assert len(recalled) >= 100
    assert np.mean(np.array(recalled) >= 0.5) >= 0.98
    assert np.mean(np.array(confirmed) >= 0.5) >= 0.98
    assert np.median(recalled) >= 0.95


def test_the_photo_shows_a_dog_a_bicycle_and_a_car(
    session: onnxruntime.InferenceSession, dog: Picture
) -> None:
    frame = from_bgr(dog, height=HEIGHT, width=WIDTH, resize="letterbox")
    found = from_rows(_answer(session, frame.i420)[0], frame.placement, score_threshold=0.5, nms_iou=0.45)

    assert set(found.class_indices.tolist()) >= {1, 16, 2}
    bicycle = found.boxes_xyxy[found.class_indices.tolist().index(1)]
    assert np.abs(bicycle - [126, 130, 568, 432]).max() < 25


def test_a_batch_of_four_equals_four_singles(session: onnxruntime.InferenceSession, dog: Picture) -> None:
    frames = [
        from_bgr(picture, height=HEIGHT, width=WIDTH, resize="letterbox").i420 for picture in _crowds(dog)[:4]
    ]
    together = _answer(session, *frames)

    for frame, answer in zip(frames, together, strict=True):
        assert np.abs(_answer(session, frame)[0] - answer).max() < 1e-2
    assert np.abs(together[0] - together[2]).max() > 1


def test_a_file_with_operators_of_another_domain_is_exported() -> None:
    model = little_models.yolox(64, 64)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))

    assert graph.build(model, YOLOX_PIXELS, height=64, width=64).model.ir_version == 8


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"classes": 2, "heads": [{"stride": 0, "anchors": []}]}',
        '{"classes": 3, "heads": [{"stride": 8, "anchors": [[4, 5]]}, {"stride": 16, "anchors": [[8, 9]]}]}',
    ],
    ids=["torn", "list", "null", "empty", "deep", "no stride", "other outputs"],
)
def test_damaged_metadata_of_darknet_is_named_in_one_sentence(tmp_path: Path, metadata: str) -> None:
    model = little_models.yolox(64, 64)
    onnx.helper.set_model_props(model, {DARKNET_METADATA: metadata})

    with pytest.raises(SetupError, match="vaultml_darknet in the file is damaged"):
        graph.build(model, YOLOX_PIXELS, height=64, width=64)


def test_rows_come_best_first_and_no_more_than_asked(yolox_nano: Path, dog: Picture) -> None:
    built = graph.build(network.load(yolox_nano), YOLOX_PIXELS, height=HEIGHT, width=WIDTH, max_detections=50)
    frame = from_bgr(dog, height=HEIGHT, width=WIDTH, resize="letterbox")
    rows = _answer(_session(built), frame.i420)[0]

    assert rows.shape == (50, 6)
    assert (np.diff(rows[:, 4]) <= 0).all()


def test_a_network_with_few_candidates_answers_fewer_rows() -> None:
    built = graph.build(little_models.yolox(64, 64), YOLOX_PIXELS, height=64, width=64, max_detections=1000)

    assert built.max_detections == 64 + 16 + 4
    assert _answer(_session(built), np.zeros((96, 64), np.uint8)).shape == (1, 84, 6)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_every_opset_that_exporters_use_is_wrapped(opset: int) -> None:
    source = little_models.yolox(64, 64, opset=opset)
    built = graph.build(source, YOLOX_PIXELS, height=64, width=96)

    assert _answer(_session(built), np.zeros((96, 96), np.uint8)).shape == (1, 126, 6)


def test_an_opset_that_the_server_does_not_know_is_refused() -> None:
    source = little_models.yolox(64, 64, opset=17)
    source.opset_import[0].version = 22

    with pytest.raises(SetupError, match="opset 22; export it again with opset 21 or older"):
        graph.build(source, YOLOX_PIXELS, height=64, width=96)


@pytest.mark.parametrize("pixels", [PixelFacts("rgb", "1"), PixelFacts("bgr", "255")], ids=str)
def test_colours_are_those_of_opencv(pixels: PixelFacts) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    picture = cv2.resize(
        colours, (128, 128), interpolation=cv2.INTER_NEAREST
    )  # chroma is shared by 2x2 pixels
    yuv = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420))
    expected = np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420)).astype(np.float32)
    y = yuv[:128].astype(np.float32)
    u, v = (yuv[start : start + 32].reshape(64, 64).repeat(2, 0).repeat(2, 1) for start in (128, 160))

    matrix, offset = graph.colour_matrix(pixels)
    planes = np.einsum("oc,chw->hwo", matrix, np.stack([y, u, v])) + offset
    white = 1 if pixels.scale == "1" else 255
    bgr = planes.clip(0, white)[:, :, :: -1 if pixels.colour == "rgb" else 1] / white * 255

    assert np.abs(bgr - expected).max() < 2


def test_an_ultralytics_export_equals_the_plain_way(tmp_path: Path, dog: Picture) -> None:
    import onnx

    pixels = PixelFacts(colour="rgb", scale="1")
    source = little_models.ultralytics(320, 320)
    onnx.save(source, tmp_path / "little.onnx")
    reference = Reference(tmp_path / "little.onnx", pixels, height=256, width=384)
    # A grey picture is the same in I420 and RGB, so the rows must be equal, not just alike.
    grey = cv2.cvtColor(cv2.cvtColor(dog, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).astype(np.uint8)
    framed, _ = letterbox(grey, 256, 384)
    frame = np.asarray(cv2.cvtColor(framed, cv2.COLOR_BGR2YUV_I420), np.uint8)

    built = graph.build(source, pixels, height=256, width=384)
    rows = _answer(_session(built), frame)[0]
    expected, _ = reference.rows(grey)

    assert built.layout == "ultralytics"
    assert np.abs(rows[:, 4] - expected[: len(rows), 4]).max() < 0.02
    assert np.abs(rows[:20, :4] - expected[:20, :4]).max() < 5


@pytest.mark.parametrize("size", [(380, 640), (384, 650), (0, 640)])
def test_a_size_that_is_no_multiple_of_32_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SetupError, match="must be multiples of 32"):
        graph.build(little_models.yolox(64, 64), YOLOX_PIXELS, height=size[0], width=size[1])


def test_an_unknown_head_is_refused_with_what_the_file_answers() -> None:
    source = little_models.yolox(64, 64)
    nodes = Nodes("test", 17)
    nodes("Identity", nodes.slice("output", 1, 0, 77), output="cut")
    nodes.put(source.graph, in_front=False)
    source.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="cut"))

    with pytest.raises(SetupError, match=r"answers cut \[N, 77, 8\] for pictures of 64x64, which is none of"):
        graph.build(source, YOLOX_PIXELS, height=64, width=64)


def _best_overlaps(wanted: Detections, there: Detections) -> list[float]:
    """For each wanted box the best IoU with a box of its class."""
    best = []
    for box, kind in zip(wanted.boxes_xyxy, wanted.class_indices, strict=True):
        others = there.boxes_xyxy[there.class_indices == kind]
        sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        shared = sides.clip(0).prod(axis=1)
        areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
        best.append(float((shared / (areas - shared)).max(initial=0)))
    return best
