"""Precision of a network: FP16 where that does no harm; the contract's ends and the head stay in FP32."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from consumer.errors import SetupError
from modelops.graph import ContractGraph
from modelops.onnx_graph import copy_of, drop_unused, makers
from modelops.provenance import Precision

CONTRACT_PREFIXES = ("contract_in", "contract_out")
"""Names of the nodes that the contract adds to a network (modelops/graph.py)."""

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_FEW_WEIGHTS = 48
"""A product with a constant of at most so many numbers decodes a box (the 16 bins of YOLOv8, the 33 of
D-FINE); the layers of a network have more."""

_SENSITIVE = ("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "Exp", "Log", "Pow")
"""Sums over many values, and functions that leave FP16's range (65504) soon."""

_CAST_SUFFIX = "_cast_to_fp16"
"""What onnxruntime/transformers/float16.py appends to the name of a tensor before its cast."""


def to_fp16(graph: ContractGraph) -> ContractGraph:
    """Turn the network's weights and operators into FP16, strongly typed, with casts where FP32 begins.

    FP32 stay the contract's ends, all that follows the network's last layers, and sensitive operators. A box
    of 640 pixels is kept to half a pixel by FP16, a colour of 255 to an eighth.

    Raises:
        SetupError: the result is no valid model.
    """
    model = with_node_names(graph.model)
    kept = [node.name for node in model.graph.node if is_contract(node)]
    kept += [node.name for node in decoding(model, graph.raw_outputs)]
    try:
        converted = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_SENSITIVE],
            node_block_list=kept,
        )
        _drop_round_trips(converted)
        checked(converted)
    except (ValueError, AssertionError) as error:
        raise SetupError(
            f"The network cannot be converted to FP16: {error}. Use --precision fp32."
        ) from error
    return replace(graph, model=converted)


def kept_fp32(graph: ContractGraph, precision: Precision) -> tuple[str, ...]:
    """Return the names of the network's layers that are left in FP32."""
    if precision == "fp32":
        return ()
    made_by = makers(graph.model)
    constants = {tensor.name: tensor.data_type for tensor in graph.model.graph.initializer}

    def is_fp32(node: NodeProto) -> bool:
        if precision == "fp16":
            return any(constants.get(name) == TensorProto.FLOAT for name in node.input)
        return not any(name in made_by and made_by[name].op_type == "DequantizeLinear" for name in node.input)

    return tuple(
        node.name for node in graph.model.graph.node
        if node.op_type in _WEIGHTED and not is_contract(node) and is_fp32(node)
    )  # fmt: skip


def decoding(model: ModelProto, outputs: Iterable[str]) -> list[NodeProto]:
    """Return the nodes between a network's last layers and its outputs: what turns features into boxes."""
    made_by = makers(model)
    waiting, found = list(outputs), dict[str, NodeProto]()
    sizes = _constant_sizes(model)
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or node.name in found or is_contract(node) or is_layer(node, sizes):
            continue
        found[node.name] = node
        waiting.extend(node.input)
    return list(found.values())


def features(model: ModelProto, outputs: Iterable[str]) -> list[str]:
    """Return the tensors that the network's last layers make, which its decoding turns into boxes."""
    after = decoding(model, outputs)
    inputs = dict.fromkeys(name for node in after for name in node.input)
    made = {name for node in layers(model) for name in node.output}
    return [name for name in [*inputs, *outputs] if name in made]


def layers(model: ModelProto) -> list[NodeProto]:
    """Return the nodes of the network that hold its weights, in order."""
    sizes = _constant_sizes(model)
    return [node for node in model.graph.node if not is_contract(node) and is_layer(node, sizes)]


def is_layer(node: NodeProto, constant_sizes: dict[str, int]) -> bool:
    """Whether a node is a product with many weights."""
    return node.op_type in _WEIGHTED and any(
        constant_sizes.get(name, 0) > _FEW_WEIGHTS for name in node.input
    )


def is_contract(node: NodeProto) -> bool:
    """Whether a node belongs to the contract's ends."""
    return node.name.startswith(CONTRACT_PREFIXES)


def with_node_names(model: ModelProto) -> ModelProto:
    """Return a copy in which every node has a name of its own, as the converters need it."""
    copy = copy_of(model)
    seen: set[str] = set()
    for number, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_unnamed_{number}"
        seen.add(node.name)
    return copy


def checked(model: ModelProto) -> ModelProto:
    """Check a rewritten model; its inner shapes are inferred anew.

    Raises:
        SetupError: it is not valid.
    """
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SetupError(f"The converted network is not valid ({error}): use --precision fp32.") from error
    return model


def _constant_sizes(model: ModelProto) -> dict[str, int]:
    return {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}


def _drop_round_trips(model: ModelProto) -> None:
    """Take out casts to FP16 and back between two nodes in FP32, which the converter leaves, and sort.

    They would round box coordinates to half a pixel in the middle of their decoding.
    """
    graph = model.graph
    to = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    before = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    same = {
        name: before[before[name]]
        for name, kind in to.items()
        if kind == TensorProto.FLOAT and to.get(before[name]) == TensorProto.FLOAT16
    }
    ends = {same[value.name]: value.name for value in graph.output if value.name in same}
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        node.input[:] = [ends.get(name, name) for name in node.input]
    for node in [node for node in graph.node if node.output[0] in ends.values()]:
        graph.node.remove(node)
    for node in graph.node:
        node.output[:] = [ends.get(name, name) for name in node.output]
    drop_unused(model)
    _give_names_back(graph)
    OnnxModel.graph_topological_sort(graph)


def _give_names_back(graph: GraphProto) -> None:
    """Call a tensor that stayed in FP32 what it was called before the converter put a cast behind it."""
    there = {name for node in graph.node for name in node.output}
    names = {name: name.removesuffix(_CAST_SUFFIX) for name in there if name.endswith(_CAST_SUFFIX)}
    names = {name: before for name, before in names.items() if before not in there}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
