"""Self-test: a version answers on a pod what ONNX Runtime answered when it was exported."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumer.agreement import FloatArray, iou
from consumer.detections import Detections, Placement, from_rows
from consumer.errors import SetupError
from modelops.fleet import Pod
from modelops.golden import GoldenAnswer

SCORE = 0.5
"""A box from here on must be there."""
SCORE_OF_PARTNER = 0.4
"""What it is matched with may score a little less: rounding at the threshold is no disagreement."""
IOU = 0.5
SHARE = 0.9
"""Of the boxes of both answers, that must have their partner in the other."""

_NMS_IOU = 0.65
_ANY_SIZE = 1 << 20
"""Pixels: wider than any network's picture, so that boxes stay as they are."""


@dataclass(frozen=True)
class Result:
    """How far a pod's answer is the golden one: boxes of both answers, and how many have their partner."""

    boxes: int
    matched: int

    @property
    def share(self) -> float:
        """Share of the boxes with a partner; 1 where neither answer has any."""
        return self.matched / self.boxes if self.boxes else 1.0


def read_golden(content: bytes, where: str) -> GoldenAnswer:
    """Read a version's golden.npz.

    Raises:
        SetupError: it is not what the export writes.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            golden = GoldenAnswer(arrays["frames"], arrays["rows"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise SetupError(f"{where} cannot be read ({error}): export the version again.") from error
    frames, rows = golden.frames, golden.rows
    if frames.dtype != np.uint8 or frames.ndim != 3 or rows.ndim != 3 or len(frames) != len(rows):
        raise SetupError(
            f"{where} holds frames {frames.dtype} {frames.shape} and rows {rows.shape}: "
            "export the version again."
        )
    return golden


def self_test(pod: Pod, model: str, version: int, golden: GoldenAnswer, timeout_seconds: float) -> Result:
    """Ask one version on one pod about the golden frames; the first answers also warm it.

    Raises:
        SetupError: it does not answer, or it answers something else.
    """
    results = [
        compare(answered, expected)
        for frame, expected in zip(golden.frames, golden.rows, strict=True)
        for answered in pod.rows(model, version, frame[np.newaxis], timeout_seconds)
    ]
    result = Result(sum(each.boxes for each in results), sum(each.matched for each in results))
    if result.share < SHARE:
        raise SetupError(
            f"Version {version} fails its self-test: {result.matched} of {result.boxes} boxes are those that "
            f"ONNX Runtime found at export, and {SHARE:.0%} must be."
        )
    return result


def compare(answered: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> Result:
    """Match the boxes of two answers for one frame, in both directions.

    Args:
        answered: float32 [K, 6] rows of the contract.
        expected: the same.
    """
    answers = [_found(rows) for rows in (answered, expected)]
    boxes, matched = 0, 0
    for ours, theirs in (answers, reversed(answers)):
        sure = ours.scores >= SCORE
        boxes += int(sure.sum())
        matched += _matched(ours, sure, theirs)
    return Result(boxes, matched)


def _found(rows: npt.NDArray[np.float32]) -> Detections:
    return from_rows(
        rows,
        Placement(_ANY_SIZE, _ANY_SIZE, 1.0, 1.0, 0.0, 0.0),
        score_threshold=SCORE_OF_PARTNER,
        nms_iou=_NMS_IOU,
    )


def _matched(ours: Detections, sure: npt.NDArray[np.bool_], theirs: Detections) -> int:
    overlaps: FloatArray = iou(ours.boxes_xyxy.astype(np.float64), theirs.boxes_xyxy.astype(np.float64))
    fits = (overlaps >= IOU) & (ours.class_indices[:, None] == theirs.class_indices[None, :])
    free = np.ones(len(theirs), dtype=bool)
    count = 0
    for n in np.flatnonzero(sure):  # best score first
        partners = np.flatnonzero(fits[n] & free)
        if len(partners):
            free[partners[overlaps[n, partners].argmax()]] = False
            count += 1
    return count
