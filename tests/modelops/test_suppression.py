"""Suppression that an exporter wrote for one picture is left to the consumer, and any batch goes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from modelops import graph, network
from modelops.batches import check_batches
from modelops.nodes import Nodes
from modelops.reference import Reference
from modelops.source import Options, read_source
from modelops.suppression import without_suppression
from tests.modelops import little_models


def _suppressed(metadata: bool = True) -> ModelProto:
    """A little YOLO11 with `nms=True`: rows of the first picture only, padded to 300."""
    model = little_models.ultralytics(64, 64)
    nodes = Nodes("suppression", 17)
    number = {
        name: nodes.constant(np.array(value, dtype=np.float32))
        for name, value in (("iou", 0.7), ("score", 0))
    }
    most = nodes.constant(np.array([300], dtype=np.int64))
    rows = nodes("Transpose", "output0", perm=[0, 2, 1])
    scores = nodes.slice("output0", 1, 4, 7)
    boxes = nodes("Concat", nodes.slice(rows, 2, 0, 4), axis=2)
    kept = nodes("NonMaxSuppression", boxes, scores, most, number["iou"], number["score"], center_point_box=1)
    places = nodes.reshape(nodes.slice(kept, 1, 2, 3), [-1])
    of_first = nodes.reshape(nodes("Gather", rows, places, axis=1), [-1, 7])
    nothing = nodes.constant(np.zeros((300, 6), dtype=np.float32))
    padded = nodes("Concat", nodes.slice(of_first, 1, 0, 6), nothing, axis=0)
    nodes("Unsqueeze", nodes.slice(padded, 0, 0, 300), nodes.constant(np.array([0])), output="suppressed")
    nodes.put(model.graph, in_front=False)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("suppressed", TensorProto.FLOAT, [1, 300, 6]))
    if not metadata:
        del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(_suppressed(), tmp_path / "best.onnx")
    return tmp_path / "best.onnx"


def test_the_answer_before_it_is_taken_and_batches_stay_apart(file: Path) -> None:
    source = read_source(file, Options())
    built = graph.build(source.model, source.pixels, height=64, width=96, layout=source.layout, labels=3)

    assert (source.layout, built.nms_in_graph, built.max_detections) == ("ultralytics", False, 126)
    check_batches(built)


def test_the_plain_way_leaves_it_out_too(file: Path) -> None:
    source = read_source(file, Options())
    reference = Reference(file, source.pixels, height=64, width=64)
    rows, _ = reference.rows(np.full((64, 64, 3), 90, np.uint8))

    assert rows.shape == (84, 6)


@pytest.mark.parametrize(
    "model", [_suppressed(metadata=False), little_models.ultralytics(64, 64)], ids=["of others", "without"]
)
def test_other_files_stay_as_they_are(model: ModelProto) -> None:
    assert without_suppression(model) is model
    assert network.network_inputs(model).own_size == (64, 64)
