"""Detections: from the rows that a model answers to boxes in the picture's own pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_CLASSES = 1_000_000
"""More than any model knows: a class index that is none of these comes of a broken network."""


@dataclass(frozen=True)
class Placement:
    """Where a source picture lies inside the network's input; all in pixels.

    A source point (x, y) is drawn at (x * scale_x + pad_x, y * scale_y + pad_y).
    """

    source_width: int
    source_height: int
    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


@dataclass(frozen=True)
class Detections:
    """What was found in one frame: parallel arrays, best score first, boxes in source pixels.

    boxes_xyxy: float32 [n, 4]; scores: float32 [n]; class_indices: int64 [n].
    saturated: every row of the model's answer was above the threshold, so there may be more.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_indices: IntArray
    saturated: bool = False

    def __len__(self) -> int:
        return len(self.scores)


def from_rows(
    rows: FloatArray,
    placement: Placement,
    *,
    score_threshold: float,
    nms_iou: float | None,
) -> Detections:
    """Threshold one frame's rows, suppress doubles within a class, and map boxes to source pixels.

    Rows that cannot be a detection are dropped: not a number, infinite, or of an impossible class.

    Args:
        rows: float32 [K, 6] of x1, y1, x2, y2 (network pixels), score, class index.
        placement: where the source picture lies in the network's input.
        score_threshold: rows below it are dropped.
        nms_iou: boxes of one class that overlap a better one by more than this are dropped;
            None when the graph has done so already.
    """
    possible = np.isfinite(rows).all(axis=1) & (rows[:, 5] >= 0) & (rows[:, 5] < _CLASSES)
    kept = rows[(rows[:, 4] >= score_threshold) & possible & (rows[:, 4] > 0)]
    saturated = len(rows) > 0 and len(kept) == len(rows)
    if nms_iou is not None and len(kept) > 0:
        kept = kept[_class_aware_nms(kept, nms_iou)]
    kept = kept[np.argsort(-kept[:, 4], kind="stable")]
    boxes = kept[:, :4].astype(np.float64)
    boxes[:, 0::2] = (boxes[:, 0::2] - placement.pad_x) / placement.scale_x
    boxes[:, 1::2] = (boxes[:, 1::2] - placement.pad_y) / placement.scale_y
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, placement.source_width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, placement.source_height)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Detections(
        boxes_xyxy=boxes[inside].astype(np.float32),
        scores=kept[inside, 4],
        class_indices=kept[inside, 5].astype(np.int64),
        saturated=saturated,
    )


def _class_aware_nms(rows: FloatArray, nms_iou: float) -> IntArray:
    corners, sizes = rows[:, :2], rows[:, 2:4] - rows[:, :2]
    boxes_xywh = np.concatenate([corners, sizes], axis=1).astype(np.float64)
    kept = cv2.dnn.NMSBoxesBatched(
        boxes_xywh.tolist(), rows[:, 4].tolist(), rows[:, 5].astype(np.int32).tolist(), 0.0, nms_iou
    )
    return np.asarray(kept, dtype=np.int64).reshape(-1)
