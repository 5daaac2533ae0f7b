"""Heads that answer a row for every cell of their grids: YOLOX, YOLOv5, Ultralytics, YOLO-NAS."""

from collections.abc import Sequence

import numpy as np

from modelops.grids import STRIDES, cells, grid_points, scales_of
from modelops.head import Answers, Candidates, Head, Output, best_class, corners
from modelops.nodes import Nodes


def yolox(answers: Answers, height: int, width: int) -> Head | None:
    """YOLOX: cell offsets and log sizes, objectness times class (Megvii yolox/models/yolo_head.py)."""
    output = _rows(answers, anchors=1)
    if output is None or output.exponential or output.dims[0] != cells(answers.height, answers.width):
        return None
    classes = output.dims[1] - 5
    points, strides = grid_points(height, width)

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        raw = outputs[0]
        grid = nodes.constant(points.T[np.newaxis])
        stride = nodes.constant(strides[np.newaxis, :, np.newaxis])
        centre = nodes("Mul", nodes("Add", nodes.slice(raw, 2, 0, 2), grid), stride)
        size = nodes("Mul", nodes("Exp", nodes.slice(raw, 2, 2, 4)), stride)
        return _times_objectness(nodes, raw, centre, size, classes)

    return Head("yolox", classes, cells(height, width), (output.name,), decode)


def yolox_decoded(answers: Answers, height: int, width: int) -> Head | None:
    """YOLOX exported with `--decode_in_inference`: centre boxes in pixels."""
    output = _rows(answers, anchors=1)
    if output is None or not output.exponential:
        return None
    return _decoded("yolox-decoded", answers, output, 1, (height, width))


def yolov5(answers: Answers, height: int, width: int) -> Head | None:
    """YOLOv5 and YOLOv7: three anchors a cell, centre boxes in pixels (ultralytics/yolov5 models/yolo.py)."""
    output = _rows(answers, anchors=3)
    if output is None:
        return None
    return _decoded("yolov5", answers, output, 3, (height, width))


def ultralytics(answers: Answers, height: int, width: int) -> Head | None:
    """YOLOv8 and later: one column a cell, centre boxes in pixels and class scores, no objectness.

    YOLOv9 that was not converted answers twice, and its main branch is the last (WongKinYiu/yolov9
    detect_dual.py: `pred[0][1]`).
    """
    fitting = [
        output
        for output in answers.floats(rank=3)
        if output.dims[0] > 4 and scales_of(output.dims[1], answers.height, answers.width, 1)
    ]
    if not fitting or len({output.dims for output in fitting}) > 1:
        return None
    output = fitting[-1]
    classes = output.dims[0] - 4

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        rows = nodes("Transpose", outputs[0], perm=[0, 2, 1])
        centre, size = nodes.slice(rows, 2, 0, 2), nodes.slice(rows, 2, 2, 4)
        score, index = best_class(nodes, nodes.slice(rows, 2, 4, 4 + classes))
        return Candidates(corners(nodes, centre, size), score, index)

    strides = scales_of(output.dims[1], answers.height, answers.width, 1) or STRIDES
    return Head("ultralytics", classes, cells(height, width, strides), (output.name,), decode)


def yolo_nas(answers: Answers, height: int, width: int) -> Head | None:
    """YOLO-NAS without postprocessing: corners in pixels, and class scores (Deci-AI/super-gradients)."""
    fitting = [
        output
        for output in answers.floats(rank=3)
        if scales_of(output.dims[0], answers.height, answers.width, 1)
    ]
    if len(fitting) != 2 or len({output.dims[0] for output in fitting}) > 1:
        return None
    boxes, scores = fitting if fitting[0].dims[1] == 4 else reversed(fitting)
    if boxes.dims[1] != 4:
        return None
    strides = scales_of(boxes.dims[0], answers.height, answers.width, 1) or STRIDES

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        return Candidates(outputs[0], *best_class(nodes, outputs[1]))

    names = (boxes.name, scores.name)
    return Head("yolo-nas", scores.dims[1], cells(height, width, strides), names, decode)


def _rows(answers: Answers, *, anchors: int) -> Output | None:
    """The only output [N, candidates, 5 + classes]; feature maps beside it do not count."""
    fitting = [
        output
        for output in answers.floats(rank=3)
        if scales_of(output.dims[0], answers.height, answers.width, anchors)
    ]
    return fitting[0] if len(fitting) == 1 and fitting[0].dims[1] > 5 else None


def _decoded(layout: str, answers: Answers, output: Output, anchors: int, size: tuple[int, int]) -> Head:
    """Centre boxes in pixels, objectness and classes."""
    classes = output.dims[1] - 5
    strides = scales_of(output.dims[0], answers.height, answers.width, anchors) or STRIDES

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        rows = outputs[0]
        centre, size = nodes.slice(rows, 2, 0, 2), nodes.slice(rows, 2, 2, 4)
        return _times_objectness(nodes, rows, centre, size, classes)

    return Head(layout, classes, anchors * cells(*size, strides), (output.name,), decode)


def _times_objectness(nodes: Nodes, rows: str, centre: str, size: str, classes: int) -> Candidates:
    score, index = best_class(nodes, nodes.slice(rows, 2, 5, 5 + classes))
    return Candidates(corners(nodes, centre, size), nodes("Mul", nodes.slice(rows, 2, 4, 5), score), index)
