"""The decoding of every layout in numpy, written from their papers' code; the graph's is compared with it."""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Boxes = tuple[Array, Array, Array]
"""Corners [A, 4] in network pixels, score [A] and class index [A]."""
Decoding = Callable[[Sequence[Array], int, int, Mapping[str, str]], Boxes]
"""From one picture's outputs without batch, the network's height and width, and the file's metadata."""

_YOLOX_STRIDES = (8, 16, 32)


def yolox(outputs: Sequence[Array], height: int, width: int, _metadata: Mapping[str, str]) -> Boxes:
    """Decode as `demo_postprocess` of YOLOX (yolox/utils/demo_utils.py)."""
    raw = outputs[0]
    boxes = np.empty((len(raw), 4), dtype=np.float32)
    first = 0
    for stride in _YOLOX_STRIDES:
        for row in range(height // stride):
            last = first + width // stride
            x = (raw[first:last, 0] + np.arange(last - first)) * stride
            y = (raw[first:last, 1] + row) * stride
            with np.errstate(over="ignore"):  # a damaged file's boxes may be endless; the gate says so
                half_width, half_height = (np.exp(raw[first:last, 2:4]) * stride / 2).T
            boxes[first:last] = np.column_stack(
                [x - half_width, y - half_height, x + half_width, y + half_height]
            )
            first = last
    return _best(boxes, raw[:, 4:5] * raw[:, 5:])


def with_objectness(outputs: Sequence[Array], _h: int, _w: int, _metadata: Mapping[str, str]) -> Boxes:
    """Centre boxes in pixels, objectness, classes: YOLOv5 utils/general.py, non_max_suppression."""
    rows = outputs[0]
    return _best(_xyxy(rows[:, :4]), rows[:, 4:5] * rows[:, 5:])


def columns(outputs: Sequence[Array], _h: int, _w: int, _metadata: Mapping[str, str]) -> Boxes:
    """Centre boxes in pixels and classes, one column per candidate (YOLOv8 and later)."""
    rows = outputs[0].T
    return _best(_xyxy(rows[:, :4]), rows[:, 4:])


def end_to_end(outputs: Sequence[Array], _h: int, _w: int, _metadata: Mapping[str, str]) -> Boxes:
    """Rows of x1, y1, x2, y2, score, class."""
    return outputs[0][:, :4], outputs[0][:, 4], outputs[0][:, 5]


def yolo_nas(outputs: Sequence[Array], _h: int, _w: int, _metadata: Mapping[str, str]) -> Boxes:
    """Corners and class scores; or how many rows there are, corners, scores and classes."""
    if len(outputs) == 2:
        return _best(outputs[0], outputs[1])
    there = int(outputs[0][0])
    boxes, scores, classes = (output[:there] for output in outputs[1:])
    return boxes, scores, classes


def rt_detr(outputs: Sequence[Array], height: int, width: int, metadata: Mapping[str, str]) -> Boxes:
    """Boxes, scores and labels; logits and shares; shares and scores in one; or shares, score, class."""
    if len(outputs) == 3:
        return outputs[0], outputs[1], outputs[2]
    sides = np.array([width, height, width, height], dtype=np.float32)
    if len(outputs) == 2:
        return _best(_xyxy(outputs[1] * sides), (1 / (1 + np.exp(-outputs[0]))).astype(np.float32))
    boxes, scores = _xyxy(outputs[0][:, :4] * sides), outputs[0][:, 4:]
    whole = not (scores[:, 1:] % 1).any()
    if metadata.get("head") == "RTDETRDecoder" and scores.shape[1] == 2 and whole:
        return boxes, scores[:, 0], scores[:, 1]
    return _best(boxes, scores)


def darknet(outputs: Sequence[Array], _h: int, _w: int, metadata: Mapping[str, str]) -> Boxes:
    """Raw maps of each scale (darknet src/yolo_layer.c, get_yolo_box)."""
    facts = json.loads(metadata["vaultml_darknet"])
    rows = []
    for output, head in zip(outputs, facts["heads"], strict=True):
        anchors = np.array(head["anchors"], dtype=np.float32)
        maps = output.reshape(len(anchors), 5 + facts["classes"], *output.shape[1:])
        for (anchor_width, anchor_height), values in zip(anchors, maps, strict=True):
            y, x = np.indices(values.shape[1:])
            place = 1 / (1 + np.exp(-values[:2]))
            sure = 1 / (1 + np.exp(-values[4:]))
            centre = (place + np.stack([x, y])) * head["stride"]
            width, height = np.exp(values[2]) * anchor_width, np.exp(values[3]) * anchor_height
            everything = np.concatenate([centre, [width, height], sure])
            rows.append(everything.reshape(len(everything), -1).T)
    together = np.concatenate(rows).astype(np.float32)
    return _best(_xyxy(together[:, :4]), together[:, 4:5] * together[:, 5:])


DECODINGS: dict[str, Decoding] = {
    "yolox": yolox,
    "yolox-decoded": with_objectness,
    "yolov5": with_objectness,
    "ultralytics": columns,
    "end-to-end": end_to_end,
    "yolo-nas": yolo_nas,
    "rt-detr": rt_detr,
    "darknet": darknet,
}


def _best(boxes: Array, scores: Array) -> Boxes:
    return boxes, scores.max(axis=1), scores.argmax(axis=1).astype(np.float32)


def _xyxy(boxes_xywh: Array) -> Array:
    x, y, w, h = boxes_xywh.T
    return np.column_stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).astype(np.float32)
