"""What was found in one recording: the answer of a worker, and its way as JSON between processes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Detection:
    """One object in one frame: x1, y1, x2, y2 in pixels of the upright picture, as floats."""

    label: str
    score: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class FrameResult:
    """One frame that was looked at; `time_seconds` is the container's, from the start of the recording.

    `width` and `height` are set only where the picture's size differs from the recording's (it can change).
    """

    index: int
    time_seconds: float
    detections: tuple[Detection, ...] = ()
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Analysis:
    """The outcome of one recording (`done`, `partial` or `skipped:<reason>`) and everything found in it.

    Args:
        outcome: see the table "Outcomes" in docs/messages.md.
        frames: every frame that was looked at, with and without detections.
        width, height: of the upright picture in pixels; 0 when no picture was seen.
        model_name, model_version, model_digest: who looked; empty when nobody did.
        ledger: where every frame went; None when the file was not opened.
        saturated_frames: indices of frames in which the model had no room for more.
        partial_reasons: why `partial`, one sentence each.
    """

    outcome: str
    frames: tuple[FrameResult, ...] = ()
    width: int = 0
    height: int = 0
    model_name: str = ""
    model_version: str = ""
    model_digest: str = ""
    ledger: Mapping[str, Any] | None = None
    saturated_frames: tuple[int, ...] = ()
    partial_reasons: tuple[str, ...] = ()

    @classmethod
    def skipped(cls, reason: str) -> "Analysis":
        """Return the outcome `skipped:<reason>`: there was nothing to look at."""
        return cls(outcome=f"skipped:{reason}")

    def to_json(self) -> str:
        """Return the analysis as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Analysis":
        """Return the analysis that `to_json` wrote."""
        fields = json.loads(text)
        for name in ("saturated_frames", "partial_reasons"):
            fields[name] = tuple(fields[name])
        fields["frames"] = tuple(_frame(frame) for frame in fields["frames"])
        return cls(**fields)


def _frame(fields: dict[str, Any]) -> FrameResult:
    detections = tuple(
        Detection(detection["label"], detection["score"], tuple(detection["box_xyxy"]))
        for detection in fields.pop("detections")
    )
    return FrameResult(**fields, detections=detections)
