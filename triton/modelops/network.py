"""The network inside a detector's ONNX file, made ready for another picture size and for batches.

Exporters write sizes into the file: the batch into the constants of Reshape, the picture's size into those
and, in Ultralytics files, into the anchor points. Here each such constant is recognised and written anew, or
the file is refused: a network that answers nonsense would be worse.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxslim
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from consumer.errors import SetupError

MINIMUM_OPSET = 17
STRIDES = (8, 16, 32)
"""Source pixels per cell of the three grids that YOLOX and Ultralytics detectors look at."""

_OWN_SIZE = "use its own size (--size {}x{}), or let its framework export it at the size that you want."

Array = npt.NDArray[Any]


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
        raise SetupError(f"{path} is not a valid ONNX file: {_first_line(error)}") from error
    return model


def image_input(model: ModelProto) -> tuple[str, int | None, int | None]:
    """Name, height and width (None where symbolic) of the one picture that the network takes.

    Raises:
        SetupError: it takes something else than one float32 [N, 3, H, W] picture.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    shapes = {value.name: _dims(value) for value in inputs}
    if len(inputs) == 1:
        name, dims = inputs[0].name, shapes[inputs[0].name]
        is_float = inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
        if is_float and len(dims) == 4 and dims[1] in (3, None):
            return name, dims[2], dims[3]
    raise SetupError(f"A detector must take one float32 picture [N, 3, H, W]; this file takes {shapes}.")


def output_shapes(model: ModelProto) -> list[list[int | None]]:
    """Shapes of the network's outputs; None where symbolic."""
    return [_dims(value) for value in model.graph.output]


def at_size(model: ModelProto, height: int, width: int) -> ModelProto:
    """Rewrite the network to take float32 [N, 3, height, width] with any N.

    Raises:
        SetupError: not a detector's ONNX, its opset cannot be raised, or something in it depends on the old
            size in a way that is not understood.
    """
    name, old_height, old_width = image_input(model)
    network = _at_least_opset(model, MINIMUM_OPSET)
    if old_height is None or old_width is None:
        old_height, old_width = height, width
    network = _folded(_with_input(network, name, (1, 3, old_height, old_width)))
    old_shapes = _shapes(network)
    _with_input(network, name, ("N", 3, height, width))
    _forget_shapes(network)
    if (old_height, old_width) != (height, width):
        _rewrite_grids(network, (old_height, old_width), (height, width))
    for node in network.graph.node:
        if node.op_type == "Resize":
            _rewrite_resize(network, node, old_shapes)
        if node.op_type == "Reshape":
            _rewrite_reshape(network, node, old_shapes, (old_height, old_width), (height, width))
    _drop_unused_constants(network)
    try:
        inferred = onnx.shape_inference.infer_shapes(network, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise SetupError(
            f"The network cannot be rewritten from {old_height}x{old_width} to {height}x{width}: "
            f"{_first_line(error)}; {_OWN_SIZE.format(old_height, old_width)}"
        ) from error
    return inferred


def grid_points(height: int, width: int) -> tuple[Array, Array]:
    """Cells of the three grids in row order: float32 [2, A] x and y in cells, and [A] strides in pixels."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = np.meshgrid(np.arange(height // stride), np.arange(width // stride), indexing="ij")
        points.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(x.size, stride))
    return np.concatenate(points, axis=1).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _at_least_opset(model: ModelProto, opset: int) -> ModelProto:
    found = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if found >= opset:
        copy = ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise SetupError(
            f"The network's opset {found} cannot be raised to {opset}: {_first_line(error)}; "
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


def _with_input(model: ModelProto, name: str, shape: Sequence[int | str]) -> ModelProto:
    value = next(value for value in model.graph.input if value.name == name)
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
    return model


def _forget_shapes(model: ModelProto) -> None:
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _shapes(model: ModelProto) -> dict[str, list[int | None]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: _dims(value) for value in [*inferred.input, *inferred.value_info, *inferred.output]}


def _rewrite_grids(model: ModelProto, old: tuple[int, int], new: tuple[int, int]) -> None:
    """Replace anchor points and strides (Ultralytics: cell centres, one column per candidate)."""
    old_points, old_strides = grid_points(*old)
    new_points, new_strides = grid_points(*new)
    pairs = [
        (old_points + 0.5, new_points + 0.5),
        ((old_points + 0.5) * old_strides, (new_points + 0.5) * new_strides),
        (old_strides, new_strides),
    ]
    for tensor in model.graph.initializer:
        if len(old_strides) not in tensor.dims or tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        for before, after in pairs:
            if np.squeeze(value).shape == before.shape and np.allclose(np.squeeze(value), before):
                rank = value.ndim - before.ndim
                shape = [*value.shape[:rank], *after.shape] if value.shape[-1] == len(old_strides) else None
                if shape is not None and math.prod(shape) == after.size:
                    tensor.CopyFrom(numpy_helper.from_array(after.reshape(shape), tensor.name))
                    break
        else:
            raise SetupError(
                f"The constant {tensor.name} of shape {list(tensor.dims)} belongs to pictures of "
                f"{old[0]}x{old[1]} and is not understood; {_OWN_SIZE.format(*old)}"
            )


def _rewrite_resize(model: ModelProto, node: NodeProto, old_shapes: dict[str, list[int | None]]) -> None:
    """Turn fixed output sizes into the scales that they were."""
    if len(node.input) < 4 or not node.input[3]:
        return
    before, after = old_shapes[node.input[0]], old_shapes[node.output[0]]
    scales = [float(out) / size if size and out else 1.0 for size, out in zip(before, after, strict=True)]
    node.input[2] = _add_constant(model, f"{node.output[0]}_scales", np.array(scales, dtype=np.float32))
    del node.input[3]


def _rewrite_reshape(
    model: ModelProto,
    node: NodeProto,
    old_shapes: dict[str, list[int | None]],
    old_size: tuple[int, int],
    new_size: tuple[int, int],
) -> None:
    old_in, old_out = old_shapes.get(node.input[0]), old_shapes.get(node.output[0])
    new_in = _shapes(model).get(node.input[0])
    if not old_in or not old_out or not new_in or None in old_in or None in old_out:
        return  # computed while running: then it follows the picture by itself
    # A zero of the new shape means "copy" here, whatever the exporter chose.
    for attribute in [attribute for attribute in node.attribute if attribute.name == "allowzero"]:
        node.attribute.remove(attribute)
    target = reshape_target(
        [size or 0 for size in old_in], [size or 0 for size in old_out], new_in, old_size, new_size
    )
    node.input[1] = _add_constant(model, f"{node.output[0]}_shape", np.array(target, dtype=np.int64))


def reshape_target(
    old_in: list[int],
    old_out: list[int],
    new_in: list[int | None],
    old_size: tuple[int, int],
    new_size: tuple[int, int],
) -> list[int]:
    """Say what a Reshape from old_in to old_out must become when its input is new_in and its batch is free.

    Both shapes are cut into the shortest runs of equal products; each run is translated by itself.

    Returns:
        The new shape as Reshape takes it: 0 copies a dimension, one -1 is worked out.

    Raises:
        SetupError: a run changed in a way that is not understood.
    """
    target: list[int] = []
    for ins, outs in _runs(old_in, old_out):
        before, after = old_in[ins], old_out[outs]
        now = new_in[ins]
        if ins.start == 0:
            target += [0] if len(before) == len(after) == 1 else [-1, *after[1:]]
        elif before in (now, after):
            target += [size or 0 for size in (after if before == now else now)]
        elif len(after) == 1 and None not in now:
            target.append(math.prod(size or 0 for size in now))
        else:
            target += _split_grid(after, [size or 0 for size in now], old_size, new_size)
    return target


def _split_grid(after: list[int], now: list[int], old: tuple[int, int], new: tuple[int, int]) -> list[int]:
    """Cut a run of cells back into rows and columns."""
    for stride in (1, 2, 4, 8, 16, 32, 64):
        cells = [new[0] // stride, new[1] // stride]
        if after == [old[0] // stride, old[1] // stride] and math.prod(cells) == math.prod(now):
            return cells
    raise SetupError(
        f"A Reshape to {after} belongs to pictures of {old[0]}x{old[1]} and is not understood; "
        f"{_OWN_SIZE.format(*old)}"
    )


def _runs(before: list[int], after: list[int]) -> list[tuple[slice, slice]]:
    """Cut two shapes of one size into the shortest runs with equal products."""
    runs, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        first_i, first_j = i, j
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        if i == len(before) or j == len(after):  # ones at the end belong to the last run
            i, j = len(before), len(after)
        runs.append((slice(first_i, i), slice(first_j, j)))
    return runs


def _drop_unused_constants(model: ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def _add_constant(model: ModelProto, name: str, value: Array) -> str:
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
