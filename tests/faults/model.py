"""A detector whose answer depends on every picture, so that a swapped or half-read one is noticed.

It is small, so that the two cores of a test machine are left to what is measured. Its sums are of whole
numbers: the same picture has the same answer in every batch, to the last bit.
"""

from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.rollout import Rollout
from tests import planted
from tests.planted import HEIGHT, MAX_DETECTIONS, WIDTH, Planted

_LABELS = ("even", "odd")


def write_repository(directory: Path) -> Path:
    """Write a repository that serves it as version 1 of `yolo`; returns its directory."""
    written = planted.write_repository(
        directory, {1: Planted(_LABELS, rows=())}, Rollout(1, live=1, previous=None)
    )
    (written / planted.NAME / "1" / "model.onnx").write_bytes(_model().SerializeToString())
    return written


def _model() -> ModelProto:
    """Return FRAMES -> DETECTIONS: one box, made of the brightness of the picture's quarters."""
    nodes = [helper.make_node("Cast", [INPUT_NAME], ["pixels"], to=TensorProto.INT32)]
    constants = {
        "rows and columns": np.array([1, 2]),
        "quarter": np.array(HEIGHT * WIDTH // 4, np.int32),
        "two": np.array(2, np.int32),
        "per value": np.array([1 / 8, 1 / 16, 1 / 8, 1 / 16, 1 / 1024, 1], np.float32),
        "behind": np.array([0, 0, 0, 0, MAX_DETECTIONS - 1, 0]),
        "from": np.array([0, 0, WIDTH / 2, HEIGHT / 2, 0.5, 0], np.float32),
    }
    halves = ((0, HEIGHT // 2), (HEIGHT // 2, HEIGHT)), ((0, WIDTH // 2), (WIDTH // 2, WIDTH))
    for number in range(4):
        (top, bottom), (left, right) = halves[0][number // 2], halves[1][number % 2]
        constants |= {f"start {number}": np.array([top, left]), f"end {number}": np.array([bottom, right])}
        nodes += _mean(number)
    nodes += [
        helper.make_node("Mod", ["mean 1", "two"], ["class"]),
        helper.make_node("Concat", [*(f"mean {n}" for n in range(4)), "mean 0", "class"], ["row"], axis=2),
        helper.make_node("Cast", ["row"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["values", "per value"], ["scaled"]),
        helper.make_node("Add", ["scaled", "from"], ["best"]),
        helper.make_node("Pad", ["best", "behind"], [OUTPUT_NAME]),
    ]
    return _onnx(nodes, constants)


def _mean(number: int) -> list[NodeProto]:
    """Return the mean brightness of one quarter, rounded down: INT32 [N, 1, 1]."""
    cut = ["pixels", f"start {number}", f"end {number}", "rows and columns"]
    return [
        helper.make_node("Slice", cut, [f"part {number}"]),
        helper.make_node("ReduceSum", [f"part {number}", "rows and columns"], [f"sum {number}"], keepdims=1),
        helper.make_node("Div", [f"sum {number}", "quarter"], [f"mean {number}"]),
    ]


def _onnx(
    nodes: list[NodeProto], constants: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]
) -> ModelProto:
    graph: GraphProto = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", HEIGHT * 3 // 2, WIDTH])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", MAX_DETECTIONS, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made
