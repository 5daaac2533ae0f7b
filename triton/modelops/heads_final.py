"""Heads whose rows are the final boxes, nothing is to be suppressed: end-to-end files, RT-DETR and D-FINE."""

from collections.abc import Sequence

import numpy as np

from modelops.grids import ANCHORS, scales_of
from modelops.head import Answers, Candidates, Head, Output, best_class, corners
from modelops.nodes import Nodes


def end_to_end(answers: Answers, _height: int, _width: int) -> Head | None:
    """YOLOv10, YOLO26 and files exported with NMS: rows of x1, y1, x2, y2 in pixels, score, class.

    A row that holds nothing is zero, so boxes between 0 and 1 are none of these, unless all are zero.
    """
    fitting = answers.floats(rank=3)
    if len(fitting) != 1 or fitting[0].dims[1] != 6 or _is_dense(answers, fitting[0]):
        return None
    output = fitting[0]
    boxes = output.values[..., :4]
    if boxes.any() and boxes.max() <= 1:
        return None

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        parts = (nodes.slice(outputs[0], 2, start, end) for start, end in ((0, 4), (4, 5), (5, 6)))
        return Candidates(*parts)

    return Head("end-to-end", None, output.dims[0], (output.name,), decode, nms_in_graph=True)


def yolo_nas_suppressed(answers: Answers, _height: int, _width: int) -> Head | None:
    """YOLO-NAS with NMS in its `batch` format (Deci-AI/super-gradients documentation, models_export.md).

    Four outputs: how many [N, 1], boxes [N, K, 4] as corners in pixels, scores [N, K], classes [N, K]; rows
    behind the count hold -1.
    """
    counts = [output for output in answers.outputs if output.dims == (1,) and not output.is_float]
    boxes = [output for output in answers.floats(rank=3) if output.dims[1] == 4]
    if len(answers.outputs) != 4 or len(counts) != 1 or len(boxes) != 1:
        return None
    rows = boxes[0].dims[0]
    flat = [output for output in answers.outputs if output.dims == (rows,) and output not in counts]
    if len(flat) != 2:
        return None
    named = [output for output in flat if "score" in output.name.lower()] or answers.floats(rank=2)
    if len(named) != 1:
        return None
    scores = named[0]
    classes = next(output for output in flat if output is not scores)

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        count, box, score, index = outputs
        places = nodes.constant(np.arange(rows, dtype=np.float32)[np.newaxis])
        there = nodes("Less", places, nodes("Cast", count, to=nodes.FLOAT))
        nothing = nodes.constant(np.zeros((1, 1), dtype=np.float32))
        sure = nodes("Where", there, score, nothing)
        kind = nodes("Where", there, nodes("Cast", index, to=nodes.FLOAT), nothing)
        return Candidates(box, _column(nodes, sure, rows), _column(nodes, kind, rows))

    names = (counts[0].name, boxes[0].name, scores.name, classes.name)
    return Head("yolo-nas", None, rows, names, decode, nms_in_graph=True)


def rt_detr(answers: Answers, height: int, width: int) -> Head | None:
    """RT-DETR and D-FINE in any of their exports."""
    recognised = (
        _rt_detr_ranked(answers, height, width),
        _rt_detr_original(answers),
        _rt_detr_hugging_face(answers, height, width),
        _rt_detr_ultralytics(answers, height, width),
    )
    return next((head for head in recognised if head is not None), None)


def _rt_detr_original(answers: Answers) -> Head | None:
    """Labels and scores [N, Q], boxes [N, Q, 4] in pixels (lyuwenyu/RT-DETR tools/export_onnx.py)."""
    by_name = {output.name: output for output in answers.outputs}
    if by_name.keys() != {"labels", "boxes", "scores"} or len(by_name["boxes"].dims) != 2:
        return None
    queries = by_name["boxes"].dims[0]
    if by_name["boxes"].dims[1] != 4 or not by_name["labels"].dims == by_name["scores"].dims == (queries,):
        return None

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        boxes, scores, labels = outputs
        kind = nodes("Cast", labels, to=nodes.FLOAT)
        return Candidates(boxes, _column(nodes, scores, queries), _column(nodes, kind, queries))

    return Head("rt-detr", None, queries, ("boxes", "scores", "labels"), decode, nms_in_graph=True)


def _rt_detr_hugging_face(answers: Answers, height: int, width: int) -> Head | None:
    """Logits [N, Q, classes] and centre boxes as shares (transformers, RTDetrForObjectDetection)."""
    by_name = {output.name: output for output in answers.floats(rank=3)}
    if not {"logits", "pred_boxes"} <= by_name.keys():
        return None
    logits, boxes = by_name["logits"], by_name["pred_boxes"]
    if boxes.dims[1] != 4 or boxes.dims[0] != logits.dims[0]:
        return None

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        best, index = best_class(nodes, outputs[0])
        return Candidates(_from_shares(nodes, outputs[1], height, width), nodes("Sigmoid", best), index)

    names = (logits.name, boxes.name)
    return Head("rt-detr", logits.dims[1], boxes.dims[0], names, decode, nms_in_graph=True)


def _rt_detr_ultralytics(answers: Answers, height: int, width: int) -> Head | None:
    """Centre boxes as shares of the picture and class scores, [N, Q, 4 + classes]: all between 0 and 1."""
    fitting = answers.floats(rank=3)
    if len(fitting) != 1 or fitting[0].dims[1] <= 4 or _is_dense(answers, fitting[0]):
        return None
    output = fitting[0]
    if not output.within_one:
        return None
    classes = output.dims[1] - 4

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        boxes = _from_shares(nodes, nodes.slice(outputs[0], 2, 0, 4), height, width)
        return Candidates(boxes, *best_class(nodes, nodes.slice(outputs[0], 2, 4, 4 + classes)))

    return Head("rt-detr", classes, output.dims[0], (output.name,), decode, nms_in_graph=True)


def _rt_detr_ranked(answers: Answers, height: int, width: int) -> Head | None:
    """Ultralytics since 8.4: the best of all queries and classes, [N, Q, 6]: centre box, score, class.

    With two classes its shape is that of the older export too; here the last column holds whole numbers.
    """
    fitting = answers.floats(rank=3)
    if answers.metadata.get("head") != "RTDETRDecoder" or len(fitting) != 1 or fitting[0].dims[1] != 6:
        return None
    output = fitting[0]
    if (output.values[..., 5] % 1).any():
        return None

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        boxes = _from_shares(nodes, nodes.slice(outputs[0], 2, 0, 4), height, width)
        return Candidates(boxes, nodes.slice(outputs[0], 2, 4, 5), nodes.slice(outputs[0], 2, 5, 6))

    return Head("rt-detr", None, output.dims[0], (output.name,), decode, nms_in_graph=True)


def _from_shares(nodes: Nodes, boxes: str, height: int, width: int) -> str:
    sides = np.array([width, height, width, height], dtype=np.float32)
    pixels = nodes("Mul", boxes, nodes.constant(sides))
    return corners(nodes, nodes.slice(pixels, 2, 0, 2), nodes.slice(pixels, 2, 2, 4))


def _column(nodes: Nodes, tensor: str, rows: int) -> str:
    return nodes.reshape(tensor, [0, rows, 1])


def _is_dense(answers: Answers, output: Output) -> bool:
    """Whether one of its axes goes over cells."""
    return any(
        scales_of(size, answers.height, answers.width, anchors) for size in output.dims for anchors in ANCHORS
    )
