"""Agreement: how far two looks at the same frames find the same objects."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from consumer.analysis import Detection

MATCH_IOU = 0.5

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Counts over frames, which add up: `reference` is the first look, `other` the second.

    Only boxes whose label both looks know are matched and counted in `reference_boxes`, `other_boxes`;
    `reference_labels` and `other_labels` count every box.
    """

    frames: int = 0
    reference_boxes: int = 0
    other_boxes: int = 0
    matched: int = 0
    iou_sum: float = 0.0
    score_drift_sum: float = 0.0
    """Sum of |score difference| over the matched pairs."""
    reference_labels: Counter[str] = field(default_factory=Counter)
    other_labels: Counter[str] = field(default_factory=Counter)

    def __add__(self, more: "Agreement") -> "Agreement":
        return Agreement(
            self.frames + more.frames,
            self.reference_boxes + more.reference_boxes,
            self.other_boxes + more.other_boxes,
            self.matched + more.matched,
            self.iou_sum + more.iou_sum,
            self.score_drift_sum + more.score_drift_sum,
            self.reference_labels + more.reference_labels,
            self.other_labels + more.other_labels,
        )

    @property
    def recall(self) -> float | None:
        """Share of the reference's boxes that the other found; None without boxes."""
        return self.matched / self.reference_boxes if self.reference_boxes else None

    @property
    def precision(self) -> float | None:
        """Share of the other's boxes that the reference has; None without boxes."""
        return self.matched / self.other_boxes if self.other_boxes else None

    @property
    def agreement(self) -> float | None:
        """One number for both (F1): matched pairs among all boxes of both looks; None without boxes."""
        boxes = self.reference_boxes + self.other_boxes
        return 2 * self.matched / boxes if boxes else None

    @property
    def mean_iou(self) -> float | None:
        """Mean overlap of the matched pairs; None without pairs."""
        return self.iou_sum / self.matched if self.matched else None

    @property
    def score_drift(self) -> float | None:
        """Mean |score difference| of the matched pairs; None without pairs."""
        return self.score_drift_sum / self.matched if self.matched else None


def compare_frame(
    reference: Sequence[Detection], other: Sequence[Detection], shared_labels: Collection[str]
) -> Agreement:
    """Match the boxes of one frame one to one within a label, best reference score first, IoU >= 0.5.

    Args:
        reference: boxes of the first look.
        other: boxes of the second look.
        shared_labels: the labels that both looks know; others are only counted.
    """
    ours = [found for found in reference if found.label in shared_labels]
    free = [found for found in other if found.label in shared_labels]
    others = len(free)
    matched, iou_sum, drift_sum = 0, 0.0, 0.0
    for found in sorted(ours, key=lambda each: -each.score):
        rivals = [n for n, each in enumerate(free) if each.label == found.label]
        if not rivals:
            continue
        overlaps = iou(
            np.array([found.box_xyxy], dtype=np.float64),
            np.array([free[n].box_xyxy for n in rivals], dtype=np.float64),
        )[0]
        best = int(overlaps.argmax())
        if overlaps[best] >= MATCH_IOU:
            partner = free.pop(rivals[best])
            matched, iou_sum = matched + 1, iou_sum + float(overlaps[best])
            drift_sum += abs(found.score - partner.score)
    return Agreement(
        frames=1,
        reference_boxes=len(ours),
        other_boxes=others,
        matched=matched,
        iou_sum=iou_sum,
        score_drift_sum=drift_sum,
        reference_labels=Counter(found.label for found in reference),
        other_labels=Counter(found.label for found in other),
    )


def total(parts: Iterable[Agreement]) -> Agreement:
    """Add up agreements."""
    return sum(parts, Agreement())


def iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the overlap of each box of a [n, 4] with each of b [m, 4] (x1, y1, x2, y2): [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (a, b)]
    joined = areas[0][:, None] + areas[1][None, :] - shared
    overlap: FloatArray = np.divide(shared, joined, out=np.zeros_like(shared), where=joined > 0)
    return overlap
