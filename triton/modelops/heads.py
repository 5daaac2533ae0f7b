"""Detector heads: which family a network's answer belongs to, and its decoding as ONNX operators.

Every family ends as the same three tensors: boxes [N, A, 4] (x1, y1, x2, y2 in network pixels), and per
candidate the best class's score [N, A, 1] and index [N, A, 1].
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from consumer.errors import SetupError
from modelops.network import STRIDES, grid_points, image_input, output_shapes
from modelops.nodes import Nodes

DARKNET_METADATA = "vaultml_darknet"
"""Metadata key that modelops/darknet.py writes: {"classes": C, "heads": [{"stride", "anchors"}]}."""


@dataclass(frozen=True)
class Candidates:
    """Names of the three tensors that every family ends as."""

    boxes: str
    scores: str
    classes: str


Decode = Callable[[Nodes, Sequence[str]], Candidates]
"""Append the decoding of the network's outputs (by name)."""


@dataclass(frozen=True)
class Head:
    """A family of detectors at one picture size."""

    family: str
    classes: int
    candidates: int
    """Rows before top-K, the A above."""
    decode: Decode


def identify(source: ModelProto, height: int, width: int) -> Head:
    """Recognise the family by the outputs of the source file; the decoding is for height x width.

    Raises:
        SetupError: none of the families; says what the file answers.
    """
    for entry in source.metadata_props:
        if entry.key == DARKNET_METADATA:
            try:
                head = _darknet(json.loads(entry.value), height, width)
            except (ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError) as error:
                raise SetupError(
                    f"The metadata {DARKNET_METADATA} in the file is damaged: convert its .weights again."
                ) from error
            return head
    _, own_height, own_width = image_input(source)
    shapes = output_shapes(source)
    cells = sum((height // stride) * (width // stride) for stride in STRIDES)
    own_cells = None
    if own_height is not None and own_width is not None:
        own_cells = sum((own_height // stride) * (own_width // stride) for stride in STRIDES)
    if len(shapes) == 1 and len(shapes[0]) == 3:
        _, rows, columns = shapes[0]
        if columns is not None and columns > 5 and rows in (own_cells, None):
            if any(node.op_type == "Exp" for node in source.graph.node):
                raise SetupError(
                    "This YOLOX file decodes its boxes itself; export it without decode_in_inference."
                )
            return _yolox(columns - 5, cells, height, width)
        if rows is not None and rows > 4 and columns in (own_cells, None):
            return _ultralytics(rows - 4, cells)
    raise SetupError(
        f"The file answers {shapes}, which is none of the known heads: YOLOX [N, {own_cells or 'A'}, "
        f"5 + classes], Ultralytics YOLOv8/11 [N, 4 + classes, {own_cells or 'A'}] or darknet's YOLOv3."
    )


def _yolox(classes: int, cells: int, height: int, width: int) -> Head:
    """YOLOX: cell offsets and log sizes, objectness times class (Megvii yolox/models/yolo_head.py)."""
    points, strides = grid_points(height, width)

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        raw = outputs[0]
        grid = nodes.constant(points.T[np.newaxis])
        stride = nodes.constant(strides[np.newaxis, :, np.newaxis])
        centre = nodes("Mul", nodes("Add", nodes.slice(raw, 2, 0, 2), grid), stride)
        size = nodes("Mul", nodes("Exp", nodes.slice(raw, 2, 2, 4)), stride)
        objectness = nodes.slice(raw, 2, 4, 5)
        score, index = _best_class(nodes, nodes.slice(raw, 2, 5, 5 + classes))
        return Candidates(_corners(nodes, centre, size), nodes("Mul", objectness, score), index)

    return Head("yolox", classes, cells, decode)


def _ultralytics(classes: int, cells: int) -> Head:
    """YOLOv8 and YOLO11: decoded centre boxes in pixels and class scores (ultralytics nn/modules/head.py)."""

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        rows = nodes("Transpose", outputs[0], perm=[0, 2, 1])
        centre, size = nodes.slice(rows, 2, 0, 2), nodes.slice(rows, 2, 2, 4)
        score, index = _best_class(nodes, nodes.slice(rows, 2, 4, 4 + classes))
        return Candidates(_corners(nodes, centre, size), score, index)

    return Head("ultralytics", classes, cells, decode)


def _darknet(facts: dict[str, list[dict[str, list[list[float]]]]], height: int, width: int) -> Head:
    """YOLOv3: per scale [N, anchors * (5 + classes), h, w] of raw values (darknet src/yolo_layer.c)."""
    classes = int(str(facts["classes"]))
    heads = [
        (int(str(head["stride"])), [[float(w), float(h)] for w, h in head["anchors"]])
        for head in facts["heads"]
    ]

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        boxes, scores, indices = [], [], []
        for output, (stride, anchors) in zip(outputs, heads, strict=True):
            h, w, a = height // stride, width // stride, len(anchors)
            cells = nodes.reshape(output, [0, a, 5 + classes, h * w])
            raw = nodes.reshape(nodes("Transpose", cells, perm=[0, 1, 3, 2]), [0, a * h * w, 5 + classes])
            y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
            grid = np.tile(np.stack([x.ravel(), y.ravel()], axis=1), (a, 1))[np.newaxis].astype(np.float32)
            sizes = np.repeat(np.array(anchors, dtype=np.float32), h * w, axis=0)[np.newaxis]
            offset = nodes("Sigmoid", nodes.slice(raw, 2, 0, 2))
            step = nodes.constant(np.array([stride], dtype=np.float32))
            centre = nodes("Mul", nodes("Add", offset, nodes.constant(grid)), step)
            size = nodes("Mul", nodes("Exp", nodes.slice(raw, 2, 2, 4)), nodes.constant(sizes))
            objectness = nodes("Sigmoid", nodes.slice(raw, 2, 4, 5))
            score, index = _best_class(nodes, nodes("Sigmoid", nodes.slice(raw, 2, 5, 5 + classes)))
            boxes.append(_corners(nodes, centre, size))
            scores.append(nodes("Mul", objectness, score))
            indices.append(index)
        return Candidates(*(nodes("Concat", *parts, axis=1) for parts in (boxes, scores, indices)))

    candidates = sum(len(anchors) * math.prod((height // s, width // s)) for s, anchors in heads)
    return Head("darknet", classes, candidates, decode)


def _corners(nodes: Nodes, centre: str, size: str) -> str:
    half = nodes("Mul", size, nodes.constant(np.array([0.5], dtype=np.float32)))
    return nodes("Concat", nodes("Sub", centre, half), nodes("Add", centre, half), axis=2)


def _best_class(nodes: Nodes, scores: str) -> tuple[str, str]:
    index = nodes("Cast", nodes("ArgMax", scores, axis=2, keepdims=1), to=nodes.FLOAT)
    return nodes.reduce_max(scores, axis=2), index
