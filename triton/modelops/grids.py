"""The grids of cells that detectors look through, and the constants that exporters write them into."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, numpy_helper

from consumer.errors import SetupError

STRIDES = (8, 16, 32)
"""Source pixels per cell of the grids that most detectors look through."""
SCALES = (STRIDES, (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""Strides of all known families: most; those named P6; those named P2; the tiny ones."""
ANCHORS = (1, 3)
"""Candidates of one cell: 3 in YOLOv5, YOLOv7 and YOLOv3."""

_NOT_GRIDS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
"""Operators whose constants are weights, whatever their shape."""

Array = npt.NDArray[np.float32]
Size = tuple[int, int]


def cells(height: int, width: int, strides: tuple[int, ...] = STRIDES) -> int:
    """Count the cells of all grids over a picture of height x width pixels."""
    return sum((height // stride) * (width // stride) for stride in strides)


def scales_of(candidates: int, height: int, width: int, anchors: int) -> tuple[int, ...] | None:
    """Strides of the grids that have this many candidates; None if no known ones have."""
    for strides in SCALES:
        if candidates == anchors * cells(height, width, strides):
            return strides
    return None


def grid_points(height: int, width: int) -> tuple[Array, Array]:
    """Cells of the three grids in row order: float32 [2, A] x and y in cells, and [A] strides in pixels."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = np.meshgrid(np.arange(height // stride), np.arange(width // stride), indexing="ij")
        points.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(x.size, stride))
    return np.concatenate(points, axis=1).astype(np.float32), np.concatenate(strides).astype(np.float32)


def rewrite_grids(model: ModelProto, old: Size, new: Size) -> None:
    """Write constants that belong to cells (offsets, anchor points, strides, anchors) anew for another size.

    Two forms are known: one axis over the cells of all grids (Ultralytics, YOLOX, YOLO-NAS), and two axes
    with the rows and columns of one grid (YOLOv5, YOLOv7). Within a grid the numbers must grow by 0, 1 or
    the stride from cell to cell, so that it is known how they go on.

    Raises:
        SetupError: a constant over all cells whose numbers follow another rule.
    """
    weights = {name for node in model.graph.node if node.op_type in _NOT_GRIDS for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in weights:
            continue
        value = numpy_helper.to_array(tensor)
        redrawn = _over_all_cells(value, old, new)
        if redrawn is None:
            redrawn = _over_one_grid(value, old, new)
        if redrawn is not None:
            tensor.CopyFrom(numpy_helper.from_array(redrawn, tensor.name))
        elif any(scales_of(size, *old, anchors) for size in value.shape for anchors in ANCHORS if size > 1):
            raise SetupError(
                f"The constant {tensor.name} of shape {list(tensor.dims)} belongs to pictures of "
                f"{old[0]}x{old[1]} and is not understood; {own_size_advice(*old)}"
            )


def own_size_advice(height: int, width: int) -> str:
    """How a sentence ends that refuses another size."""
    own = f"--size {height}x{width}"
    return f"use its own size ({own}), or let its framework export it at the size that you want."


def _over_all_cells(value: Array, old: Size, new: Size) -> Array | None:
    """Redraw an array with one axis over all grids, one after the other, each [anchors, rows, columns]."""
    for axis, anchors in ((axis, anchors) for axis in range(value.ndim) for anchors in ANCHORS):
        strides = scales_of(value.shape[axis], *old, anchors)
        if strides is None:
            continue
        last = np.moveaxis(value, axis, -1)
        parts, first = [], 0
        for stride in strides:
            rows, columns = old[0] // stride, old[1] // stride
            count = anchors * rows * columns
            grid = last[..., first : first + count].reshape(*last.shape[:-1], anchors, rows, columns)
            redrawn = _redraw(grid, stride, new)
            if redrawn is None:
                break
            parts.append(redrawn.reshape(*last.shape[:-1], -1))
            first += count
        else:
            return np.moveaxis(np.concatenate(parts, axis=-1), -1, axis)
    return None


def _over_one_grid(value: Array, old: Size, new: Size) -> Array | None:
    """Redraw an array with the rows and columns of one grid as two axes that follow each other."""
    for axis, stride in _grid_axes(value, old):
        last = np.moveaxis(value, (axis, axis + 1), (-2, -1))
        redrawn = _redraw(last, stride, new)
        if redrawn is not None:
            return np.moveaxis(redrawn, (-2, -1), (axis, axis + 1))
    return None


def _grid_axes(value: Array, old: Size) -> Iterator[tuple[int, int]]:
    for axis in range(value.ndim - 1):
        for stride in sorted({stride for strides in SCALES for stride in strides}):
            shape = (old[0] // stride, old[1] // stride)
            if value.shape[axis : axis + 2] == shape and math.prod(shape) > 1:
                yield axis, stride


def _redraw(grid: Array, stride: int, new: Size) -> Array | None:
    """Continue grids [..., rows, columns] to another size; None where they follow no known rule."""
    slopes = []
    for axis in (-2, -1):
        if grid.shape[axis] < 2:
            return None  # one cell does not show how it would go on
        steps = np.diff(grid, axis=axis)
        slope = np.take(steps, [0], axis=axis)
        if not np.allclose(steps, slope, atol=1e-3) or not np.isin(np.round(slope, 3), (0, 1, stride)).all():
            return None
        slopes.append(np.round(np.take(slope, [0], axis=-1 if axis == -2 else -2)))
    y = np.arange(new[0] // stride, dtype=np.float32)[:, np.newaxis]
    x = np.arange(new[1] // stride, dtype=np.float32)[np.newaxis, :]
    redrawn = grid[..., :1, :1] + slopes[0] * y + slopes[1] * x
    return np.asarray(redrawn, dtype=np.float32)
