"""Self-test: a version answers on a pod what ONNX Runtime answered when it was exported."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumer.agreement import compare_frame
from consumer.analysis import Detection
from consumer.detections import Placement, from_rows
from consumer.errors import SetupError
from modelops.fleet import Pod
from modelops.golden import GoldenAnswer

SCORE = 0.5
"""A box from here on must be there."""
SCORE_OF_PARTNER = 0.4
"""What it is matched with may score a little less: rounding at the threshold is no disagreement."""
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
    classes = {each.label for found in answers for each in found}
    directions = [
        compare_frame([each for each in ours if each.score >= SCORE], theirs, classes)
        for ours, theirs in (answers, answers[::-1])
    ]
    return Result(
        boxes=sum(each.reference_boxes for each in directions),
        matched=sum(each.matched for each in directions),
    )


def _found(rows: npt.NDArray[np.float32]) -> list[Detection]:
    """Return the boxes in network pixels; their labels are the numbers of their classes."""
    found = from_rows(
        rows,
        Placement(_ANY_SIZE, _ANY_SIZE, 1.0, 1.0, 0.0, 0.0),
        score_threshold=SCORE_OF_PARTNER,
        nms_iou=_NMS_IOU,
    )
    return [
        Detection(str(index), float(score), (x1, y1, x2, y2))
        for (x1, y1, x2, y2), score, index in zip(
            found.boxes_xyxy.tolist(), found.scores, found.class_indices, strict=True
        )
    ]
