"""Real weights for one layout make all others: YOLOX-nano's head, rewritten as other exporters shape theirs.

Each function takes the ONNX of YOLOX-nano (raw head, 416x416, batch 1) and returns an ONNX that finds the
same boxes. It bakes in what the exporter bakes in: sizes, grids, batches. No decoding of modelops is used.
"""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from consumer.contract import Resize
from modelops.coco import COCO_LABELS
from tests.modelops.surgery import CLASSES, QUERIES, STRIDES, Surgery, value

ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
    64: ((436, 615), (739, 380), (925, 792)),
}
"""Pixels; models/yolov5s.yaml, and the last line like models/hub/yolov5s6.yaml, of ultralytics/yolov5."""


def yolox(source: ModelProto) -> ModelProto:
    """YOLOX raw: the file as it is."""
    model = ModelProto()
    model.CopyFrom(source)
    return model


def yolox_decoded(source: ModelProto) -> ModelProto:
    """YOLOX with decode_in_inference: pixels, one row a candidate (yolox/models/yolo_head.py)."""
    cut = Surgery(source)
    cut.nodes("Concat", *cut.decoded(), output="output", axis=2)
    return cut.finished({"output": (TensorProto.FLOAT, [1, cut.count, 5 + CLASSES])})


def yolov5(
    source: ModelProto, strides: tuple[int, ...] = STRIDES, *, one_grid_for_all_anchors: bool = False
) -> ModelProto:
    """YOLOv5's Detect: three anchors a cell, grids and anchor grids as constants (yolov5 models/yolo.py)."""
    cut = Surgery(source)
    scales = [_anchored(cut, stride, one_grid_for_all_anchors) for stride in strides]
    cut.nodes("Concat", *scales, output="output0", axis=1)
    count = 3 * sum(rows * columns for rows, columns in map(cut.cells, strides))
    metadata = {} if one_grid_for_all_anchors else {"stride": str(strides[-1]), "names": _names()}
    return cut.finished({"output0": (TensorProto.FLOAT, [1, count, 5 + CLASSES])}, metadata=metadata)


def yolov5_p6(source: ModelProto) -> ModelProto:
    """YOLOv5 with a fourth scale of stride 64; for 384x384, because 416 is no multiple of 64."""
    smaller = ModelProto()
    smaller.CopyFrom(source)
    for dim in smaller.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 384
    return yolov5(smaller, (*STRIDES, 64))


def yolov7(source: ModelProto) -> ModelProto:
    """YOLOv7's `export.py --grid`: one grid for all anchors, times the stride (yolov7 models/yolo.py)."""
    return yolov5(source, one_grid_for_all_anchors=True)


def _anchored(cut: Surgery, stride: int, one_grid: bool) -> str:
    """Decode one scale as [1, 3 * cells, 85]."""
    nodes = cut.nodes
    rows, columns = cut.cells(stride)
    raw = cut.maps.get(stride) or nodes("MaxPool", cut.maps[32], kernel_shape=[2, 2], strides=[2, 2])
    per_anchor = []
    for index, anchor in enumerate(ANCHORS[stride]):
        # What its sigmoid gives: 2 s - 0.5 is the place in the cell, (2 s)^2 * anchor the size.
        place = nodes("Mul", nodes("Add", cut.part(raw, 0, 2, 1), cut.number(0.5)), cut.number(0.5))
        ratio = nodes.constant((stride / np.array(anchor, np.float32)).reshape(1, 2, 1, 1))
        size = nodes("Sqrt", nodes("Mul", nodes("Exp", cut.part(raw, 2, 4, 1)), ratio))
        half = nodes("Mul", size, cut.number(0.5))
        # The other anchors say the same, less sure: suppression removes them.
        sure = cut.number(1.0 / (1 + index) if stride in cut.maps else 0.0)
        objectness = nodes("Mul", cut.part(raw, 4, 5, 1), sure)
        per_anchor += [place, half, objectness, cut.part(raw, 5, 5 + CLASSES, 1)]
    split = cut.reshape(nodes("Concat", *per_anchor, axis=1), 1, 3, 5 + CLASSES, rows, columns)
    values = nodes("Transpose", split, perm=[0, 1, 3, 4, 2])
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    grid = np.stack([x, y], axis=2).astype(np.float32)[np.newaxis, np.newaxis] - np.float32(0.5)
    sizes = np.array(ANCHORS[stride], dtype=np.float32).reshape(1, 3, 1, 1, 2)
    if one_grid:
        doubled = nodes("Mul", cut.part(values, 0, 2, 4), cut.number(2 * stride))
        centre = nodes("Add", doubled, nodes.constant(grid * stride))
    else:
        doubled = nodes("Mul", cut.part(values, 0, 2, 4), cut.number(2))
        grids, sizes = np.tile(grid, (1, 3, 1, 1, 1)), np.tile(sizes, (1, 1, rows, columns, 1))
        centre = nodes("Mul", nodes("Add", doubled, nodes.constant(grids)), cut.number(stride))
    squared = nodes("Pow", nodes("Mul", cut.part(values, 2, 4, 4), cut.number(2)), cut.number(2))
    extent = nodes("Mul", squared, nodes.constant(sizes))
    decoded = nodes("Concat", centre, extent, cut.part(values, 4, 5 + CLASSES, 4), axis=4)
    return cut.reshape(decoded, 1, 3 * rows * columns, 5 + CLASSES)


def ultralytics(source: ModelProto) -> ModelProto:
    """YOLOv8 and later: [1, 84, A], anchors and strides as constants (ultralytics nn/modules/head.py)."""
    cut = Surgery(source)
    nodes = cut.nodes
    rows = nodes("Transpose", cut.rows(), perm=[0, 2, 1])
    points, strides = cut.grid()
    # Distances of the sides from the anchor point in cells, which is what that head predicts.
    place = nodes("Sub", cut.part(rows, 0, 2, 1), cut.number(0.5))
    half = nodes("Mul", nodes("Exp", cut.part(rows, 2, 4, 1)), cut.number(0.5))
    before, behind = nodes("Sub", half, place), nodes("Add", half, place)
    anchors = nodes.constant((points.T + np.float32(0.5))[np.newaxis])
    first, last = nodes("Sub", anchors, before), nodes("Add", anchors, behind)
    centre = nodes("Div", nodes("Add", first, last), cut.number(2))
    boxes = nodes("Concat", centre, nodes("Sub", last, first), axis=1)
    pixels = nodes("Mul", boxes, nodes.constant(strides[np.newaxis]))
    scores = nodes("Mul", cut.part(rows, 4, 5, 1), cut.part(rows, 5, 5 + CLASSES, 1))
    nodes("Concat", pixels, scores, output="output0", axis=1)
    return cut.finished(
        {"output0": (TensorProto.FLOAT, [1, 4 + CLASSES, cut.count])}, metadata=_ultralytics_metadata()
    )


def yolov9_dual(source: ModelProto) -> ModelProto:
    """YOLOv9 not converted: the auxiliary branch's answer before the main one's (yolov9 detect_dual.py)."""
    model = ultralytics(source)
    graph = model.graph
    graph.node.append(
        helper.make_node("Mul", ["output0", "auxiliary_factor"], ["auxiliary"], name="auxiliary")
    )
    graph.initializer.append(helper.make_tensor("auxiliary_factor", TensorProto.FLOAT, [], [0.5]))
    main = ValueInfoProto()
    main.CopyFrom(graph.output[0])
    graph.output[0].name = "auxiliary"
    graph.output.append(main)
    return model


def end_to_end(source: ModelProto) -> ModelProto:
    """YOLOv10 and 26: [N, 300, 6], the best of all candidates and classes (nn/modules/head.py there)."""
    cut = Surgery(source)
    nodes = cut.nodes
    centre, size, scores = cut.scored(batch=-1)
    boxes, kept = cut.best(cut.corners(centre, size), scores)
    nodes("Concat", *_ranked(cut, boxes, kept), output="output0", axis=2)
    return cut.finished(
        {"output0": (TensorProto.FLOAT, ["N", QUERIES, 6])}, dynamic=True, metadata=_ultralytics_metadata()
    )


def _ranked(cut: Surgery, boxes: str, scores: str) -> tuple[str, str, str]:
    """Boxes [N, 300, 4], scores and classes [N, 300, 1] of the best pairs of a box and a class."""
    nodes = cut.nodes
    flat = cut.reshape(scores, -1, QUERIES * CLASSES)
    best, index = nodes.many("TopK", flat, cut.shape(QUERIES), outputs=2, axis=1, largest=1)
    place = nodes("Div", index, cut.shape(CLASSES))
    label = nodes("Mod", index, cut.shape(CLASSES))
    places = nodes("Tile", nodes("Unsqueeze", place, cut.shape(2)), cut.shape(1, 1, 4))
    labels = nodes("Cast", nodes("Unsqueeze", label, cut.shape(2)), to=TensorProto.FLOAT)
    chosen = nodes("GatherElements", boxes, places, axis=1)
    return chosen, nodes("Unsqueeze", best, cut.shape(2)), labels


def yolo_nas(source: ModelProto) -> ModelProto:
    """YOLO-NAS without postprocessing: corners and class scores (super-gradients, NDFLHeads)."""
    cut = Surgery(source)
    centre, size, scores = cut.scored()
    cut.take(cut.corners(centre, size), "graph2_pred_bboxes")
    cut.take(scores, "graph2_pred_scores")
    return cut.finished(
        {
            "graph2_pred_bboxes": (TensorProto.FLOAT, [1, cut.count, 4]),
            "graph2_pred_scores": (TensorProto.FLOAT, [1, cut.count, CLASSES]),
        }
    )


def yolo_nas_uint8(source: ModelProto) -> ModelProto:
    """YOLO-NAS with its preprocessing inside: the picture is uint8 (super-gradients, model.export)."""
    model = yolo_nas(source)
    graph = model.graph
    picture = graph.input[0]
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == picture.name:
                node.input[position] = "as_float"
    graph.node.insert(0, helper.make_node("Cast", [picture.name], ["as_float"], to=TensorProto.FLOAT))
    picture.type.tensor_type.elem_type = TensorProto.UINT8
    return model


def yolo_nas_batched(source: ModelProto) -> ModelProto:
    """Four outputs, super-gradients' DetectionOutputFormatMode.BATCH_FORMAT; here nothing is suppressed."""
    cut = Surgery(source)
    centre, size, scores = cut.scored(batch=-1)
    boxes, kept = cut.best(cut.corners(centre, size), scores)
    best, labels = cut.labelled(kept)
    sure = cut.nodes("Cast", cut.nodes("Greater", best, cut.number(0.05)), to=TensorProto.INT64)
    cut.nodes("ReduceSum", sure, cut.shape(1), output="num_predictions", keepdims=1)
    for tensor, name in ((boxes, "pred_boxes"), (best, "pred_scores"), (labels, "pred_classes")):
        cut.take(tensor, name)
    return cut.finished(
        {
            "num_predictions": (TensorProto.INT64, ["N", 1]),
            "pred_boxes": (TensorProto.FLOAT, ["N", QUERIES, 4]),
            "pred_scores": (TensorProto.FLOAT, ["N", QUERIES]),
            "pred_classes": (TensorProto.INT64, ["N", QUERIES]),
        },
        dynamic=True,
    )


def rt_detr_ultralytics(source: ModelProto) -> ModelProto:
    """RT-DETR by Ultralytics: [1, 300, 84], boxes as shares of the picture, scores after the sigmoid."""
    cut = Surgery(source)
    centre, size, scores = cut.scored()
    boxes, kept = cut.best(cut.normalised(centre, size), scores)
    cut.nodes("Concat", boxes, kept, output="output0", axis=2)
    return cut.finished(
        {"output0": (TensorProto.FLOAT, [1, QUERIES, 4 + CLASSES])}, metadata=_ultralytics_metadata()
    )


def rt_detr_ranked(source: ModelProto) -> ModelProto:
    """RT-DETR by Ultralytics since 8.4: [1, 300, 6], the best of all queries and classes."""
    cut = Surgery(source)
    nodes = cut.nodes
    centre, size, scores = cut.scored()
    boxes, kept = cut.best(cut.normalised(centre, size), scores)
    nodes("Concat", *_ranked(cut, boxes, kept), output="output0", axis=2)
    metadata = {**_ultralytics_metadata(), "head": "RTDETRDecoder"}
    return cut.finished({"output0": (TensorProto.FLOAT, [1, QUERIES, 6])}, metadata=metadata)


def rt_detr_original(source: ModelProto) -> ModelProto:
    """RT-DETR and D-FINE by their authors: two inputs, three outputs (their tools/export_onnx.py)."""
    cut = Surgery(source)
    nodes = cut.nodes
    centre, size, scores = cut.scored(batch=-1)
    boxes, kept = cut.best(cut.normalised(centre, size), scores)
    best, labels = cut.labelled(kept)
    corners = cut.corners(cut.part(boxes, 0, 2), cut.part(boxes, 2, 4))
    sides = nodes("Tile", nodes("Cast", "orig_target_sizes", to=TensorProto.FLOAT), cut.shape(1, 2))
    nodes("Mul", corners, nodes("Unsqueeze", sides, cut.shape(1)), output="boxes")
    cut.take(labels, "labels")
    cut.take(best, "scores")
    model = cut.finished(
        {
            "labels": (TensorProto.INT64, ["N", QUERIES]),
            "boxes": (TensorProto.FLOAT, ["N", QUERIES, 4]),
            "scores": (TensorProto.FLOAT, ["N", QUERIES]),
        },
        dynamic=True,
    )
    model.graph.input.append(value("orig_target_sizes", TensorProto.INT64, ["N", 2]))
    return model


def rt_detr_hugging_face(source: ModelProto) -> ModelProto:
    """RT-DETR and D-FINE in transformers: logits before the sigmoid, boxes as shares of the picture."""
    cut = Surgery(source)
    nodes = cut.nodes
    centre, size, scores = cut.scored()
    boxes, kept = cut.best(cut.normalised(centre, size), scores)
    low, high = cut.number(1e-6), cut.number(1 - 1e-6)
    inside = nodes("Clip", kept, low, high)
    odds = nodes("Div", inside, nodes("Sub", cut.number(1), inside))
    nodes("Log", odds, output="logits")
    cut.take(boxes, "pred_boxes")
    return cut.finished(
        {
            "logits": (TensorProto.FLOAT, [1, QUERIES, CLASSES]),
            "pred_boxes": (TensorProto.FLOAT, [1, QUERIES, 4]),
        }
    )


LAYOUTS: dict[str, Callable[[ModelProto], ModelProto]] = {
    "yolox": yolox,
    "yolox-decoded": yolox_decoded,
    "yolov5": yolov5,
    "yolov5-p6": yolov5_p6,
    "yolov7": yolov7,
    "ultralytics": ultralytics,
    "yolov9-dual": yolov9_dual,
    "end-to-end": end_to_end,
    "yolo-nas": yolo_nas,
    "yolo-nas-uint8": yolo_nas_uint8,
    "yolo-nas-batched": yolo_nas_batched,
    "rt-detr-ultralytics": rt_detr_ultralytics,
    "rt-detr-ranked": rt_detr_ranked,
    "rt-detr-original": rt_detr_original,
    "rt-detr-hugging-face": rt_detr_hugging_face,
}
"""Every layout that an export takes (but darknet's, which is no exporter's), by a name for test reports."""

OWN_SIZE: dict[str, tuple[int, int]] = {name: (416, 416) for name in LAYOUTS if name.startswith("rt-detr")}
"""Height and width of those that keep their own size; all others go to any."""


def resize_of(name: str) -> Resize:
    """How pictures reach a layout's network: RT-DETR's are stretched."""
    return "stretch" if name in OWN_SIZE else "letterbox"


def _names() -> str:
    return str(dict(enumerate(COCO_LABELS)))


def _ultralytics_metadata() -> dict[str, str]:
    return {"author": "Ultralytics", "task": "detect", "stride": "32", "batch": "1", "names": _names()}
