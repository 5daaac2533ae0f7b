"""The network inside a detector's ONNX file, made ready for another picture size and for batches.

Exporters write sizes into the file: the batch into the constants of Reshape, the picture's size into those
and into grids and anchor points. Here each such constant is recognised and written anew, or the file is
refused: a network that answers nonsense would be worse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxslim
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from consumer.errors import SetupError
from modelops.grids import Size, own_size_advice, rewrite_grids
from modelops.onnx_graph import copy_of, drop_unused
from modelops.reshapes import reshape_target

MINIMUM_OPSET = 17
_LARGE = 1000
"""Constants with more numbers than this are never shapes."""
_TELLING_BATCH = 13
"""Where a file takes any batch, shapes are looked at with one that is not another size by chance."""

Array = npt.NDArray[Any]
Shapes = dict[str, list[int | None]]


@dataclass(frozen=True)
class Inputs:
    """What a network takes; None where a number is free.

    picture: name of the input [batch, 3, height, width], float32, or uint8 where `takes_bytes`.
    picture_sizes: name of an int64 input [batch, 2] with width and height in pixels, to which it maps its
        boxes (`orig_target_sizes` of RT-DETR and D-FINE); None where there is none.
    """

    picture: str
    batch: int | None
    height: int | None
    width: int | None
    takes_bytes: bool = False
    picture_sizes: str | None = None

    @property
    def own_size(self) -> Size | None:
        """Height and width that are written into the file."""
        return None if self.height is None or self.width is None else (self.height, self.width)


def load(path: Path) -> ModelProto:
    """Read and check an ONNX file.

    Raises:
        SetupError: not a readable, valid ONNX file.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        # protobuf and onnx raise classes of their own without a common root below Exception.
        raise SetupError(
            f"{path} is no ONNX file, or a damaged one ({first_line(error).rstrip('.: ')}): "
            "copy or export it again."
        ) from error
    return model


def network_inputs(model: ModelProto) -> Inputs:
    """Find the picture that the network takes.

    Raises:
        SetupError: it takes something else than one picture [N, 3, H, W], alone or with its size.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    pictures = [value for value in inputs if _is_picture(value)]
    sizes = [value for value in inputs if _is_size(value)]
    if len(pictures) == 1 and len(sizes) <= 1 and len(inputs) == len(pictures) + len(sizes):
        batch, _, height, width = _dims(pictures[0])
        takes_bytes = pictures[0].type.tensor_type.elem_type == TensorProto.UINT8
        sizes_name = sizes[0].name if sizes else None
        return Inputs(pictures[0].name, batch, height, width, takes_bytes, sizes_name)
    shapes = {value.name: _dims(value) for value in inputs}
    raise SetupError(f"A detector must take one float32 picture [N, 3, H, W]; this file takes {shapes}.")


def at_size(model: ModelProto, height: int, width: int, outputs: Sequence[str] = ()) -> ModelProto:
    """Rewrite the network to take float32 [N, 3, height, width] with any N and nothing else.

    Args:
        model: the source; left as it is.
        height: in pixels, as width.
        width: in pixels.
        outputs: those to keep, in this order; none for all.

    Raises:
        SetupError: not a detector's ONNX, its opset cannot be raised, or something in it depends on the old
            size in a way that is not understood.
    """
    inputs = network_inputs(model)
    network = _at_least_opset(model, MINIMUM_OPSET)
    _keep_outputs(network, outputs)
    old, new = inputs.own_size or (height, width), (height, width)
    batch = inputs.batch or "N"
    network = _folded(_with_inputs(network, inputs, batch, old))
    if old != new:
        rewrite_grids(network, old, new)
    weights = _take_weights(network)
    old_shapes = _shapes(_with_inputs(network, inputs, inputs.batch or _TELLING_BATCH, old))
    _with_inputs(network, inputs, "N", new)
    _forget_shapes(network)
    for node in network.graph.node:
        if node.op_type == "Resize":
            _rewrite_resize(network, node, old_shapes)
        if node.op_type == "Reshape":
            _rewrite_reshape(network, node, old_shapes, old, new, free_batch=inputs.batch is None)
    _put_weights(network, weights)
    if inputs.picture_sizes is not None:
        _say_sizes(network, inputs.picture, inputs.picture_sizes, new)
    drop_unused(network)
    try:
        return onnx.shape_inference.infer_shapes(network, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise SetupError(
            f"The network cannot be rewritten from {old[0]}x{old[1]} to {height}x{width}: "
            f"{first_line(error)}; {own_size_advice(*old)}"
        ) from error


def _keep_outputs(model: ModelProto, names: Sequence[str]) -> None:
    """Leave only these outputs, in this order; none names all."""
    if names:
        by_name = {value.name: value for value in model.graph.output}
        kept = [by_name[name] for name in names]
        del model.graph.output[:]
        model.graph.output.extend(kept)


def first_line(error: Exception) -> str:
    """Shorten an error of onnx or ONNX Runtime, which may fill a page."""
    return str(error).strip().partition("\n")[0]


def _is_picture(value: onnx.ValueInfoProto) -> bool:
    dims = _dims(value)
    kind = value.type.tensor_type.elem_type
    return kind in (TensorProto.FLOAT, TensorProto.UINT8) and len(dims) == 4 and dims[1] in (3, None)


def _is_size(value: onnx.ValueInfoProto) -> bool:
    dims = _dims(value)
    return value.type.tensor_type.elem_type == TensorProto.INT64 and len(dims) == 2 and dims[1] == 2


def _at_least_opset(model: ModelProto, opset: int) -> ModelProto:
    found = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if found >= opset:
        return copy_of(model)
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise SetupError(
            f"The network's opset {found} cannot be raised to {opset}: {first_line(error)}; "
            f"export it again with opset {opset} or newer."
        ) from error


def _folded(model: ModelProto) -> ModelProto:
    """Fold everything that is constant at the set size, so that the shapes to rewrite are plain constants."""
    slim = onnxslim.slim(model)
    if not isinstance(slim, ModelProto):
        raise SetupError("onnxslim could not simplify the network; export it again with a newer exporter.")
    for node in [node for node in slim.graph.node if node.op_type == "Constant"]:
        tensor = numpy_helper.from_array(_constant_value(node), node.output[0])
        slim.graph.initializer.append(tensor)
        slim.graph.node.remove(node)
    return slim


def _with_inputs(model: ModelProto, inputs: Inputs, batch: int | str, size: Size) -> ModelProto:
    """Declare the inputs anew; bytes become float32, and their Cast to that does nothing."""
    shapes: dict[str, tuple[int, list[int | str]]] = {inputs.picture: (TensorProto.FLOAT, [batch, 3, *size])}
    if inputs.picture_sizes is not None:
        shapes[inputs.picture_sizes] = (TensorProto.INT64, [batch, 2])
    for value in model.graph.input:
        if value.name in shapes:
            kind, shape = shapes[value.name]
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
    return model


def _say_sizes(model: ModelProto, picture: str, sizes: str, size: Size) -> None:
    """Turn the input with the pictures' sizes into width and height, once for each picture of the batch."""
    graph = model.graph
    height, width = size
    both = _add_constant(model, f"{sizes}_of_one", np.array([[width, height]], dtype=np.int64))
    two = _add_constant(model, f"{sizes}_two", np.array([2], dtype=np.int64))
    count = helper.make_node("Shape", [picture], [f"{sizes}_count"], start=0, end=1)
    shape = helper.make_node("Concat", [f"{sizes}_count", two], [f"{sizes}_shape"], axis=0)
    expanded = helper.make_node("Expand", [both, f"{sizes}_shape"], [sizes])
    there = list(graph.node)
    del graph.node[:]
    graph.node.extend([count, shape, expanded, *there])
    graph.input.remove(next(value for value in graph.input if value.name == sizes))


def _forget_shapes(model: ModelProto) -> None:
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _shapes(model: ModelProto) -> Shapes:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: _dims(value) for value in [*inferred.input, *inferred.value_info, *inferred.output]}


def _take_weights(model: ModelProto) -> list[TensorProto]:
    """Leave only shapes of large constants: all is copied when shapes are worked out, for each Reshape."""
    weights = [tensor for tensor in model.graph.initializer if math.prod(tensor.dims) > _LARGE]
    for tensor in weights:
        model.graph.initializer.remove(tensor)
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return weights


def _put_weights(model: ModelProto, weights: list[TensorProto]) -> None:
    names = {tensor.name for tensor in weights}
    for value in [value for value in model.graph.input if value.name in names]:
        model.graph.input.remove(value)
    model.graph.initializer.extend(weights)


def _rewrite_resize(model: ModelProto, node: NodeProto, old_shapes: Shapes) -> None:
    """Turn fixed output sizes into the scales that they were."""
    if len(node.input) < 4 or not node.input[3]:
        return
    before, after = old_shapes[node.input[0]], old_shapes[node.output[0]]
    scales = [float(out) / size if size and out else 1.0 for size, out in zip(before, after, strict=True)]
    node.input[2] = _add_constant(model, f"{node.output[0]}_scales", np.array(scales, dtype=np.float32))
    del node.input[3]


def _rewrite_reshape(
    model: ModelProto, node: NodeProto, old_shapes: Shapes, old: Size, new: Size, *, free_batch: bool
) -> None:
    old_in, old_out = old_shapes.get(node.input[0]), old_shapes.get(node.output[0])
    new_in = _shapes(model).get(node.input[0])
    if not old_in or not old_out or not new_in or None in old_in or None in old_out:
        return  # computed while running: then it follows the picture by itself
    if free_batch and old == new and not old_in[0] == old_out[0] == _TELLING_BATCH:
        return  # the batch is not simply in front; but nothing is baked in either
    target = reshape_target([size or 0 for size in old_in], [size or 0 for size in old_out], new_in, old, new)
    # A zero of the new shape means "copy" here, whatever the exporter chose.
    for attribute in [attribute for attribute in node.attribute if attribute.name == "allowzero"]:
        node.attribute.remove(attribute)
    node.input[1] = _add_constant(model, f"{node.output[0]}_shape", np.array(target, dtype=np.int64))


def _add_constant(model: ModelProto, about: str, value: Array) -> str:
    name = f"rewritten/{about}"  # exporters use plain names like these too
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _constant_value(node: NodeProto) -> Array:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    return np.asarray(helper.get_attribute_value(attribute))


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
