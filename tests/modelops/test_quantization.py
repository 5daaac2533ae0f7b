"""INT8: Q/DQ as TensorRT takes it, and only where a network bears it."""

import numpy as np
import numpy.typing as npt
import pytest
from onnx import numpy_helper

from consumer.errors import SetupError
from modelops.graph import ContractGraph, PixelFacts, build
from modelops.precision import is_contract, kept_fp32, layers
from modelops.provenance import Precision
from modelops.quantization import NOISE_BUDGET, bearable, to_int8
from tests.modelops import little_models

QDQ = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module")
def frames() -> list[npt.NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (96, 96), np.uint8) for _ in range(8)]


@pytest.fixture(scope="module")
def plain() -> ContractGraph:
    return build(little_models.ultralytics(64, 96), PixelFacts("rgb", "1"), height=64, width=96)


@pytest.fixture(scope="module")
def quantised(plain: ContractGraph, frames: list[npt.NDArray[np.uint8]]) -> ContractGraph:
    return to_int8(plain, frames)


def test_everything_is_symmetric_and_int8(quantised: ContractGraph) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.model.graph.initializer}
    pairs = [node for node in quantised.model.graph.node if node.op_type in QDQ]

    assert pairs
    for node in pairs:
        zero_points = constants[node.input[2]]
        assert zero_points.dtype == np.int8
        assert not zero_points.any()
        quantised_constant = constants.get(node.input[0])
        assert quantised_constant is None or quantised_constant.dtype == np.int8  # a bias would be int32


def test_weights_have_a_scale_for_each_channel(quantised: ContractGraph) -> None:
    constants = {tensor.name: tensor for tensor in quantised.model.graph.initializer}
    weights = [
        node
        for node in quantised.model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]

    assert weights
    for node in weights:
        assert list(constants[node.input[1]].dims) == [constants[node.input[0]].dims[0]]


def test_the_contracts_ends_are_left_alone(plain: ContractGraph, quantised: ContractGraph) -> None:
    ends = [[node for node in graph.model.graph.node if is_contract(node)] for graph in (plain, quantised)]
    made_by = {name: node for node in quantised.model.graph.node for name in node.output}

    assert {node.name: node.op_type for node in ends[0]} == {node.name: node.op_type for node in ends[1]}
    for node in ends[1]:
        assert not [name for name in node.input if name in made_by and made_by[name].op_type in QDQ]


def test_nothing_is_quantised_behind_a_layer(quantised: ContractGraph) -> None:
    made_by = {name: node for node in quantised.model.graph.node for name in node.output}

    for node in quantised.model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in made_by:
            assert made_by[node.input[0]].op_type != "Conv" or _feeds_a_layer(quantised, node.output[0])


def test_a_layer_that_does_not_bear_it_stays_as_it_was(frames: list[npt.NDArray[np.uint8]]) -> None:
    model = little_models.ultralytics(64, 96)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == first.input[1])
    values = numpy_helper.to_array(weights).copy()
    values[0] *= 1000  # one channel that drowns all others in the range of what follows
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    graph = build(model, PixelFacts("rgb", "1"), height=64, width=96)

    kept = kept_fp32(to_int8(graph, frames), "int8")

    assert len(kept) > 0
    assert len(kept) < len(layers(graph.model))


def test_the_noisiest_layers_are_left_out_until_the_rest_fits_the_budget() -> None:
    noise = {"loud": 0.5, "soft": 0.001, "middle": 0.003, "louder": 0.9}

    assert bearable(noise, 0.004) == ["soft", "middle"]
    assert bearable(noise, 0.0039) == ["soft"]
    assert bearable(noise, 0.0001) == []
    assert 0 < NOISE_BUDGET < 0.05


def test_without_pictures_it_asks_for_some(plain: ContractGraph) -> None:
    with pytest.raises(SetupError, match="needs pictures to calibrate with: give a folder, --calibration"):
        to_int8(plain, [])


def test_half_of_yolox_nano_and_more_is_quantised(yolox_graphs: dict[Precision, ContractGraph]) -> None:
    graph = yolox_graphs["int8"]
    of_the_network = len(layers(yolox_graphs["fp32"].model))

    assert len(kept_fp32(graph, "int8")) < of_the_network / 2
    assert len(graph.model.SerializeToString()) < 0.6 * len(yolox_graphs["fp32"].model.SerializeToString())


def _feeds_a_layer(graph: ContractGraph, name: str) -> bool:
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        for node in graph.model.graph.node:
            if tensor in node.input:
                if node.op_type in ("Conv", "MatMul"):
                    return True
                if node.op_type == "DequantizeLinear":
                    waiting.extend(node.output)
    return False
