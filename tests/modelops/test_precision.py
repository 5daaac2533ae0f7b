"""FP16: what becomes half precision, what stays, and that every program takes the result."""

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto, shape_inference

from consumer.contract import INPUT_NAME
from modelops import precision
from modelops.graph import ContractGraph, PixelFacts, build
from modelops.precision import decoding, features, is_contract, to_fp16, with_node_names
from modelops.provenance import Precision
from tests.modelops import little_models


@pytest.fixture(scope="module")
def ultralytics() -> ContractGraph:
    """An attention block, a DFL head and boxes decoded inside the network."""
    return build(little_models.ultralytics(64, 96), PixelFacts("rgb", "1"), height=64, width=96)


@pytest.fixture(scope="module")
def halved(ultralytics: ContractGraph) -> ContractGraph:
    return to_fp16(ultralytics)


def element_types(model: ModelProto) -> dict[str, int]:
    """Element type of every tensor, as inferred."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def test_the_weights_are_half_precision(halved: ContractGraph) -> None:
    types = element_types(halved.model)
    convolutions = [
        node for node in halved.model.graph.node if node.op_type == "Conv" and not is_contract(node)
    ]

    assert convolutions
    assert {types[name] for node in convolutions for name in node.input} == {TensorProto.FLOAT16}
    assert precision.kept_fp32(halved, "fp16") == ()


def test_the_contracts_ends_and_the_decoding_are_in_full_precision(
    ultralytics: ContractGraph, halved: ContractGraph
) -> None:
    types = element_types(halved.model)
    full = [node for node in halved.model.graph.node if is_contract(node)]
    full += decoding(with_node_names(ultralytics.model), ultralytics.raw_outputs)
    full += [node for node in halved.model.graph.node if node.op_type == "Softmax"]
    names = {node.name for node in full}
    made = [
        name for node in halved.model.graph.node if node.name in names for name in (*node.input, *node.output)
    ]

    assert len(full) > 20
    assert TensorProto.FLOAT16 not in {types.get(name) for name in made}


def test_no_number_is_rounded_between_two_operators_in_full_precision(halved: ContractGraph) -> None:
    casts = {node.output[0]: node for node in halved.model.graph.node if node.op_type == "Cast"}

    for name, node in casts.items():
        before = casts.get(node.input[0])
        assert before is None or before.attribute[0].i != TensorProto.FLOAT16, name


def test_in_and_out_it_is_the_same_model(ultralytics: ContractGraph, halved: ContractGraph) -> None:
    assert halved.model.graph.input == ultralytics.model.graph.input
    assert halved.model.graph.output == ultralytics.model.graph.output
    assert halved.raw_outputs == ultralytics.raw_outputs
    made = {name for node in halved.model.graph.node for name in node.output}
    assert set(halved.raw_outputs) <= made


def test_onnx_runtime_answers_nearly_the_same(ultralytics: ContractGraph, halved: ContractGraph) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)
    answers = [_raw_answer(graph, frames) for graph in (ultralytics, halved)]

    assert answers[0].shape == answers[1].shape
    np.testing.assert_allclose(answers[1], answers[0], rtol=2e-2, atol=2e-2)


def test_nodes_without_a_name_of_their_own_get_one() -> None:
    model = little_models.yolox(64, 64)
    for node in model.graph.node:
        node.name = "" if node.op_type == "Conv" else "same"

    named = with_node_names(model)

    names = [node.name for node in named.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    assert model.graph.node[0].name in {"", "same"}  # the model itself is left as it is


def test_the_last_features_are_those_before_the_decoding(ultralytics: ContractGraph) -> None:
    made_by = {name: node for node in ultralytics.model.graph.node for name in node.output}
    found = features(ultralytics.model, ultralytics.raw_outputs)

    assert len(found) == 3
    assert {made_by[name].op_type for name in found} == {"Conv"}


@pytest.mark.parametrize("to", ["fp32", "fp16"])
def test_what_stays_in_fp32_is_named(ultralytics: ContractGraph, to: Precision) -> None:
    kept = precision.kept_fp32(ultralytics, to)

    assert bool(kept) is (to == "fp16")  # an FP32 model has nothing that was kept from it


def _raw_answer(graph: ContractGraph, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    model = ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in graph.raw_outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {INPUT_NAME: frames})[0], np.float32)
