"""The network is rewritten to another size and to batches, or refused."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from consumer.errors import SetupError
from modelops import grids, network, reshapes
from tests.modelops import little_models


def _run(model: ModelProto, pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pictures})[0])


def _pictures(count: int, height: int, width: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0, 255, (count, 3, height, width)).astype(np.float32)


def test_at_its_own_size_the_network_answers_as_before(yolox_nano: Path) -> None:
    model = network.load(yolox_nano)
    pictures = _pictures(3, 416, 416)
    expected = np.concatenate([_run(model, picture[np.newaxis]) for picture in pictures])

    assert np.abs(_run(network.at_size(model, 416, 416), pictures) - expected).max() < 1e-3


def test_a_batch_of_four_equals_four_singles_at_another_size(yolox_nano: Path) -> None:
    model = network.at_size(network.load(yolox_nano), 384, 640)
    pictures = _pictures(4, 384, 640)
    singles = np.concatenate([_run(model, picture[np.newaxis]) for picture in pictures])
    together = _run(model, pictures)

    assert together.shape == (4, 48 * 80 + 24 * 40 + 12 * 20, 85)
    assert np.abs(together - singles).max() < 1e-3
    assert np.abs(together[0] - together[1]).max() > 1, "the four answers must differ, or this proves nothing"


def test_an_ultralytics_export_at_one_size_becomes_that_of_another() -> None:
    exported_there = little_models.ultralytics(320, 320)
    exported_here = little_models.ultralytics(256, 384)
    pictures = _pictures(3, 256, 384) / np.float32(255)
    expected = np.concatenate([_run(exported_here, picture[np.newaxis]) for picture in pictures])

    rewritten = network.at_size(exported_there, 256, 384)

    assert np.abs(_run(rewritten, pictures) - expected).max() < 1e-3


def test_a_file_for_four_pictures_takes_any_number() -> None:
    rewritten = network.at_size(little_models.yolox(64, 64, pictures=4), 64, 96)
    expected = network.at_size(little_models.yolox(64, 96), 64, 96)
    pictures = _pictures(3, 64, 96)

    assert np.abs(_run(rewritten, pictures) - _run(expected, pictures)).max() < 1e-3


@pytest.mark.parametrize("form", ["rows and columns", "all cells", "cells first"])
@pytest.mark.parametrize("pixels", [False, True])
def test_constants_of_the_grids_go_on_at_another_size(form: str, pixels: bool) -> None:
    def constant(height: int, width: int) -> npt.NDArray[np.float32]:
        parts = []
        for stride in (8, 16, 32):
            y, x = np.meshgrid(np.arange(height // stride), np.arange(width // stride), indexing="ij")
            grid = (np.stack([x, y], axis=2) - 0.5) * (stride if pixels else 1)
            parts.append(grid.astype(np.float32))
        if form == "rows and columns":
            return parts[1][np.newaxis, np.newaxis]
        cells = np.concatenate([grid.reshape(-1, 2) for grid in parts])
        return cells[np.newaxis] if form == "cells first" else cells.T[np.newaxis]

    model = ModelProto()
    model.graph.initializer.append(onnx.numpy_helper.from_array(constant(320, 320), "grid"))
    grids.rewrite_grids(model, (320, 320), (256, 384))

    assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), constant(256, 384))


def test_weights_in_the_shape_of_a_grid_are_left_alone() -> None:
    model = ModelProto()
    kernel = np.ones((4, 4, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    model.graph.node.append(helper.make_node("Conv", ["images", "kernel"], ["out"]))
    grids.rewrite_grids(model, (96, 96), (64, 128))

    assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), kernel)


def test_the_source_model_is_left_as_it_was(yolox_nano: Path) -> None:
    model = network.load(yolox_nano)
    before = model.SerializeToString(deterministic=True)
    network.at_size(model, 384, 640)

    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("old_in", "old_out", "new_in", "expected"),
    [
        pytest.param([1, 85, 52, 52], [1, 85, 2704], [None, 85, 48, 80], [0, 85, 3840], id="flatten"),
        pytest.param([1, 64, 8400], [1, 4, 16, 8400], [None, 64, 5040], [0, 4, 16, 5040], id="DFL"),
        pytest.param([1, 1, 4, 8400], [1, 4, 8400], [None, 1, 4, 5040], [0, 4, 5040], id="DFL, back"),
        pytest.param([1, 256, 20, 20], [1, 2, 128, 400], [None, 256, 12, 20], [0, 2, 128, 240], id="heads"),
        pytest.param(
            [1, 2, 64, 400], [1, 128, 20, 20], [None, 2, 64, 240], [0, 128, 12, 20], id="heads, back"
        ),
        pytest.param([1, 2, 64, 400], [2, 64, 400], [None, 2, 64, 240], [-1, 64, 240], id="batch merged"),
        pytest.param([1, 80, 80, 80], [1, 80, 6400], [None, 80, 48, 80], [0, 80, 3840], id="equal numbers"),
        pytest.param(
            [1, 255, 80, 80], [1, 3, 85, 80, 80], [None, 255, 48, 80], [0, 3, 85, 48, 80], id="anchors"
        ),
        pytest.param(
            [1, 3, 80, 80, 85], [1, 19200, 85], [None, 3, 48, 80, 85], [0, 11520, 85], id="anchors, back"
        ),
        pytest.param([400, 1, 256], [400, 8, 32], [400, None, 256], [0, -1, 32], id="batch in the middle"),
        pytest.param([4, 85, 52, 52], [4, 85, 2704], [None, 85, 48, 80], [0, 85, 3840], id="baked for four"),
    ],
)
def test_a_reshape_follows_size_and_batch(
    old_in: list[int], old_out: list[int], new_in: list[int | None], expected: list[int]
) -> None:
    assert reshapes.reshape_target(old_in, old_out, new_in, (640, 640), (384, 640)) == expected


@pytest.mark.parametrize(
    ("old_in", "old_out", "new_in"),
    [
        pytest.param([1, 49], [1, 7, 7], [None, 60], id="no grid"),
        # YOLO12's areas: that 4 stays and 400 follows the picture is not to be seen in the numbers.
        pytest.param([1, 1600, 64], [4, 400, 64], [None, 960, 64], id="areas"),
    ],
)
def test_a_reshape_that_is_not_understood_is_refused(
    old_in: list[int], old_out: list[int], new_in: list[int | None]
) -> None:
    with pytest.raises(
        SetupError, match=r"A Reshape to .* belongs to pictures of 640x640 and is not underst"
    ):
        reshapes.reshape_target(old_in, old_out, new_in, (640, 640), (384, 640))


def test_a_constant_of_the_old_size_that_is_not_understood_is_refused() -> None:
    model = little_models.ultralytics(320, 320)
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [1, 2, 2100]:
            values = onnx.numpy_helper.to_array(tensor) * 1.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    with pytest.raises(
        SetupError, match=r"belongs to pictures of 320x320 and is not understood; use its own"
    ):
        network.at_size(model, 256, 384)


def test_a_file_that_is_no_onnx_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "notes.onnx"
    file.write_text("not a model")

    with pytest.raises(SetupError, match=r"notes\.onnx is no ONNX file, or .* copy or export it again"):
        network.load(file)


def test_a_missing_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nothing\.onnx cannot be read: No such file"):
        network.load(tmp_path / "nothing.onnx")


def test_a_model_that_takes_no_picture_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["words"], ["same"])], "text",
        [helper.make_tensor_value_info("words", TensorProto.INT64, ["N", 12])],
        [helper.make_tensor_value_info("same", TensorProto.INT64, ["N", 12])],
    )  # fmt: skip

    with pytest.raises(SetupError, match=r"one float32 picture \[N, 3, H, W\]; this file takes .*words"):
        network.at_size(helper.make_model(graph), 384, 640)
