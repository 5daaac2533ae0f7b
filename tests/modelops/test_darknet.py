"""Darknet's files become the same network in ONNX."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from consumer.detections import from_rows
from consumer.errors import SetupError
from consumer.frames import from_bgr
from modelops import catalogue, darknet, graph, network

Floats = npt.NDArray[np.float64]

LITTLE_CFG = """
[net]
# all kinds of sections, 2 classes
width=64
height=64
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=4
size=3
stride=1
pad=1
activation=leaky

[shortcut]
from=-2
activation=linear

[maxpool]
size=2
stride=2

[maxpool]
size=2
stride=1

[maxpool]
size=5
stride=1

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

[yolo]
mask = 1,2
anchors = 4,5,  8,9,  20,24
classes=2

[route]
layers = -3

[upsample]
stride=2

[route]
layers = -1, 0

[convolutional]
filters=7
size=1
stride=1
activation=linear

[yolo]
mask = 0
anchors = 4,5,  8,9,  20,24
classes=2
"""


def _weights(seed: int = 0) -> bytes:
    """Numbers for LITTLE_CFG in the file's order: per convolution bias, scale, mean, variance, kernel."""
    random = np.random.default_rng(seed)
    parts: list[npt.NDArray[np.float32]] = []
    for inputs, filters, size, normalised in (
        (3, 4, 3, True),
        (4, 4, 3, True),
        (4, 14, 1, False),
        (8, 7, 1, False),
    ):
        numbers = [random.normal(0, 1, filters)]
        if normalised:
            numbers += [
                random.uniform(0.5, 2, filters),
                random.normal(0, 1, filters),
                random.uniform(0.1, 2, filters),
            ]
        parts += [
            part.astype(np.float32) for part in [*numbers, random.normal(0, 0.3, filters * inputs * size**2)]
        ]
    header = np.array([0, 2, 0, 0, 0], dtype=np.int32).tobytes()  # version 0.2: `seen` takes eight bytes
    return header + np.concatenate(parts).tobytes()


def _forward(picture: Floats, weights: bytes) -> list[Floats]:
    """LITTLE_CFG computed the slow way, straight from darknet's C: an independent second opinion."""
    numbers = np.frombuffer(weights, np.float32, offset=20).astype(np.float64)
    position = 0

    def take(*shape: int) -> Floats:
        nonlocal position
        count = int(np.prod(shape))
        position += count
        return numbers[position - count : position].reshape(shape)

    def convolution(x: Floats, filters: int, size: int, stride: int, pad: int, *, normalised: bool) -> Floats:
        bias = take(filters)
        scale, mean, variance = (take(filters) for _ in range(3)) if normalised else (None, None, None)
        kernel = take(filters, len(x), size, size)
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[
            :, ::stride, ::stride
        ]
        y = np.einsum("chwij,ocij->ohw", windows, kernel)
        if scale is not None and mean is not None and variance is not None:
            y = (y - mean[:, None, None]) / (np.sqrt(variance) + 1e-6)[:, None, None] * scale[:, None, None]
        y = y + bias[:, None, None]
        return np.asarray(np.where(y > 0, y, 0.1 * y) if normalised else y)

    def maxpool(x: Floats, size: int, stride: int) -> Floats:
        channels, height, width = x.shape
        rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
        y = np.full((channels, rows, columns), -np.inf)
        offset = -((size - 1) // 2)
        for row in range(rows):
            for column in range(columns):
                top, left = row * stride + offset, column * stride + offset
                window = x[:, max(0, top) : top + size, max(0, left) : left + size]
                y[:, row, column] = window.max(axis=(1, 2))
        return y

    first = convolution(picture, 4, 3, 2, 1, normalised=True)
    added = convolution(first, 4, 3, 1, 1, normalised=True) + first
    pooled = maxpool(maxpool(maxpool(added, 2, 2), 2, 1), 5, 1)
    coarse = convolution(pooled, 14, 1, 1, 0, normalised=False)
    joined = np.concatenate([pooled.repeat(2, axis=1).repeat(2, axis=2), first])
    return [coarse, convolution(joined, 7, 1, 1, 0, normalised=False)]


@pytest.mark.parametrize("size", [(64, 64), (32, 96)], ids=["its own size", "another size"])
def test_every_kind_of_section_computes_what_darknet_computes(size: tuple[int, int]) -> None:
    model = darknet.to_onnx(darknet.parse_cfg(LITTLE_CFG), _weights())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pictures = np.random.default_rng(1).uniform(0, 1, (2, 3, *size))
    answers = session.run(None, {"images": pictures.astype(np.float32)})

    for index, picture in enumerate(pictures):
        for answer, expected in zip(answers, _forward(picture, _weights()), strict=True):
            assert answer[index].shape == expected.shape
            assert np.abs(answer[index] - expected).max() < 1e-3


def test_anchors_strides_and_labels_are_in_the_file() -> None:
    model = darknet.to_onnx(darknet.parse_cfg(LITTLE_CFG), _weights(), ["cat", "dog"])
    facts = json.loads(model.metadata_props[0].value)

    assert facts["heads"] == [
        {"stride": 4, "anchors": [[8, 9], [20, 24]]},
        {"stride": 2, "anchors": [[4, 5]]},
    ]
    assert facts["labels"] == ["cat", "dog"]


def test_the_contract_graph_decodes_what_darknet_decodes() -> None:
    source = darknet.to_onnx(darknet.parse_cfg(LITTLE_CFG), _weights())
    built = graph.build(source, darknet.PIXELS, height=32, width=64)
    session = onnxruntime.InferenceSession(
        built.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rows = np.asarray(session.run(None, {"FRAMES": np.full((1, 48, 64), 128, np.uint8)})[0])[0]

    grey = (128 - 16) / 219
    expected = []
    for raw, stride, anchors in zip(
        _forward(np.full((3, 32, 64), grey), _weights()), (4, 2), ([(8, 9), (20, 24)], [(4, 5)]), strict=True
    ):
        for anchor, values in zip(anchors, raw.reshape(len(anchors), 7, *raw.shape[1:]), strict=True):
            for y, x in np.ndindex(raw.shape[1:]):
                tx, ty, tw, th, objectness, *classes = values[:, y, x]
                centre_x, centre_y = (_sigmoid(tx) + x) * stride, (_sigmoid(ty) + y) * stride
                half_width, half_height = np.exp(tw) * anchor[0] / 2, np.exp(th) * anchor[1] / 2
                best = int(np.argmax(classes))
                expected.append(
                    [
                        centre_x - half_width, centre_y - half_height,
                        centre_x + half_width, centre_y + half_height,
                        _sigmoid(objectness) * _sigmoid(classes[best]), best,
                    ]
                )  # fmt: skip
    ordered = np.array(sorted(expected, key=lambda row: -row[4]))

    assert rows.shape == ordered.shape
    assert np.abs(rows[:, 4] - ordered[:, 4]).max() < 1e-3
    assert np.abs(rows[:10] - ordered[:10]).max() < 0.05


def test_yolov3_tiny_finds_what_opencv_found(dog: npt.NDArray[np.uint8]) -> None:
    fetched = catalogue.fetch("yolov3_tiny")
    built = graph.build(network.load(fetched.path), fetched.entry.pixels, height=416, width=416)
    session = onnxruntime.InferenceSession(
        built.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    # Stretched to a square, as OpenCV's blobFromImage does it.
    frame = from_bgr(dog, height=416, width=416, resize="stretch")
    rows = np.asarray(session.run(None, {"FRAMES": frame.i420[np.newaxis]})[0])[0]
    found = from_rows(rows, frame.placement, score_threshold=0.4, nms_iou=0.45)

    by_class = dict(
        zip(found.class_indices.tolist(), zip(found.scores, found.boxes_xyxy, strict=True), strict=True)
    )
    assert by_class.keys() == OPENCV_FOUND.keys()
    for kind, (score, box) in OPENCV_FOUND.items():
        assert by_class[kind][0] == pytest.approx(score, abs=0.06)
        assert np.abs(by_class[kind][1] - box).max() < 12


OPENCV_FOUND = {
    16: (0.811, [124, 219, 382, 516]),
    2: (0.662, [465, 81, 686, 172]),
    7: (0.652, [529, 94, 629, 162]),
}
"""Class: score and box by OpenCV 4.12, readNetFromDarknet, same cfg, weights and photo (RGB, 416x416)."""


@pytest.mark.parametrize(
    ("cfg", "weights", "sentence"),
    [
        pytest.param(LITTLE_CFG, _weights()[:-4], "the weights end 1 numbers early", id="truncated"),
        pytest.param(LITTLE_CFG, _weights() + bytes(8), "hold 2 numbers more than the cfg", id="other cfg"),
        pytest.param(
            LITTLE_CFG.replace("upsample", "lstm"), _weights(), r"\[lstm\] is not supported", id="section"
        ),
        pytest.param(
            LITTLE_CFG.replace("leaky", "mish"), _weights(), "activation mish is not supp", id="activation"
        ),
        pytest.param(LITTLE_CFG.replace("[net]", ""), _weights(), "line 4 is not understood", id="no net"),
        pytest.param("[net]\n", _weights(), r"has no \[yolo\] section", id="no yolo"),
        pytest.param(
            LITTLE_CFG.replace("filters=14", "filters=12"), _weights(), "expects 14 channels", id="filters"
        ),
        pytest.param(LITTLE_CFG, b"", "cannot be converted", id="empty weights"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_sentence(
    tmp_path: Path, cfg: str, weights: bytes, sentence: str
) -> None:
    (tmp_path / "a.cfg").write_text(cfg)
    (tmp_path / "a.weights").write_bytes(weights)

    with pytest.raises(SetupError, match=sentence):
        darknet.convert(tmp_path / "a.cfg", tmp_path / "a.weights", tmp_path / "a.onnx")


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def test_weights_without_their_cfg_are_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "lone.weights").touch()
    with pytest.raises(SetupError, match=r"lone\.cfg is not there: lone\.weights needs it beside it"):
        darknet.convert(tmp_path / "lone.cfg", tmp_path / "lone.weights", tmp_path / "lone.onnx")
