"""YOLOv3's head: per scale the raw values of its anchors, as modelops/darknet.py leaves them."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from consumer.errors import SetupError
from modelops.head import Answers, Candidates, Head, best_class, corners
from modelops.nodes import Nodes

DARKNET_METADATA = "vaultml_darknet"
"""Metadata key that modelops/darknet.py writes: {"classes": C, "heads": [{"stride", "anchors"}]}."""

_Scale = tuple[int, list[list[float]]]


def darknet(answers: Answers, height: int, width: int) -> Head | None:
    """YOLOv3: per scale [N, anchors * (5 + classes), h, w] of raw values (darknet src/yolo_layer.c).

    Raises:
        SetupError: the file says that it is one, but its metadata is damaged or does not fit its outputs.
    """
    text = answers.metadata.get(DARKNET_METADATA)
    if text is None:
        return None
    try:
        classes, scales = _facts(json.loads(text))
        fits = [
            (anchors * (5 + classes), answers.height // stride, answers.width // stride)
            for stride, anchors in ((stride, len(sizes)) for stride, sizes in scales)
        ] == [output.dims for output in answers.outputs]
    except (ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError) as error:
        raise _damaged() from error
    if not fits:
        raise _damaged()

    def decode(nodes: Nodes, outputs: Sequence[str]) -> Candidates:
        parts = [
            _scale(nodes, output, scale, classes, (height // scale[0], width // scale[0]))
            for output, scale in zip(outputs, scales, strict=True)
        ]
        boxes = nodes("Concat", *(part.boxes for part in parts), axis=1)
        scores = nodes("Concat", *(part.scores for part in parts), axis=1)
        return Candidates(boxes, scores, nodes("Concat", *(part.classes for part in parts), axis=1))

    candidates = sum(len(anchors) * math.prod((height // s, width // s)) for s, anchors in scales)
    return Head("darknet", classes, candidates, tuple(output.name for output in answers.outputs), decode)


def _scale(nodes: Nodes, output: str, scale: _Scale, classes: int, cells: tuple[int, int]) -> Candidates:
    stride, anchors = scale
    (h, w), a = cells, len(anchors)
    flat = nodes.reshape(output, [0, a, 5 + classes, h * w])
    raw = nodes.reshape(nodes("Transpose", flat, perm=[0, 1, 3, 2]), [0, a * h * w, 5 + classes])
    y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    grid = np.tile(np.stack([x.ravel(), y.ravel()], axis=1), (a, 1))[np.newaxis].astype(np.float32)
    sizes = np.repeat(np.array(anchors, dtype=np.float32), h * w, axis=0)[np.newaxis]
    offset = nodes("Sigmoid", nodes.slice(raw, 2, 0, 2))
    step = nodes.constant(np.array([stride], dtype=np.float32))
    centre = nodes("Mul", nodes("Add", offset, nodes.constant(grid)), step)
    size = nodes("Mul", nodes("Exp", nodes.slice(raw, 2, 2, 4)), nodes.constant(sizes))
    objectness = nodes("Sigmoid", nodes.slice(raw, 2, 4, 5))
    score, index = best_class(nodes, nodes("Sigmoid", nodes.slice(raw, 2, 5, 5 + classes)))
    return Candidates(corners(nodes, centre, size), nodes("Mul", objectness, score), index)


def _facts(
    facts: Mapping[str, Sequence[Mapping[str, Sequence[Sequence[float]]]]],
) -> tuple[int, list[_Scale]]:
    scales = [
        (int(str(head["stride"])), [[float(w), float(h)] for w, h in head["anchors"]])
        for head in facts["heads"]
    ]
    return int(str(facts["classes"])), scales


def _damaged() -> SetupError:
    return SetupError(f"The metadata {DARKNET_METADATA} in the file is damaged: convert its .weights again.")
