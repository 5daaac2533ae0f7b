"""One look at a recording: frames sampled, a version of the model asked, boxes in the recording's pixels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumer import detections
from consumer.analysis import Analysis, Detection, FrameResult
from consumer.contract import ModelVersion
from consumer.detections import Detections, Placement
from consumer.detector import FrameBatch, FrameRows, TritonDetector
from consumer.frames import to_network
from consumer.media import Media
from consumer.report import Stopwatch
from consumer.second_look import PATIENCE_SECONDS, SecondLook
from consumer.video import Recording, open_recording


@dataclass(frozen=True)
class Look:
    """How a recording is looked at.

    version: of the model; None for the one that the rollout says.
    """

    predictions: int
    score_threshold: float
    nms_iou: float
    version: int | None = None


@dataclass(frozen=True)
class Seen:
    """What the version that was only compared found.

    frames: as those of the analysis; empty where it failed.
    seconds: that its requests took.
    failed: why it failed, in one word; None where it did not.
    """

    frames: tuple[FrameResult, ...] = ()
    seconds: float = 0.0
    failed: str | None = None


@dataclass(frozen=True)
class Looked:
    """What a look gave: the analysis, the seconds that its requests took, and what was compared with it."""

    analysis: Analysis
    seconds: float = 0.0
    compared: Seen | None = None


def look_once(
    media: Media,
    detector: TritonDetector,
    look: Look,
    stopwatch: Stopwatch,
    *,
    version: int,
    compared: int | None = None,
) -> Looked:
    """Look at a recording with one version; another one may see the same frames, and cannot harm that.

    Raises:
        RecordingError: what is wrong with the recording, or with the server's answer to it.
        ModelChanged: the version is not served.
        TritonAway, ContractError: see `TritonDetector.detect`.
    """
    if compared is None:
        sheet = _Sheet(detector, look, version)
        return Looked(_look(media, detector, stopwatch, sheet), sheet.seconds)
    sheet, other = _Sheet(detector, look, version), _Sheet(detector, look, compared)
    other.sent = sheet.sent
    with SecondLook(lambda batch: detector.begin(batch, compared), other.take) as second:
        analysis = _look(media, detector, stopwatch, sheet, second.offer)
        with stopwatch.stage("compare"):
            second.finish(PATIENCE_SECONDS)
    if second.failed is not None:
        return Looked(analysis, sheet.seconds, Seen(failed=second.failed))
    return Looked(analysis, sheet.seconds, Seen(other.frames(), other.seconds))


@dataclass(frozen=True)
class _Sent:
    """A frame at the server: what its answer needs, without the picture."""

    index: int
    time_seconds: float
    placement: Placement


class _Sheet:
    """What one version finds, frame by frame; boxes only, so memory grows little with the predictions."""

    def __init__(self, detector: TritonDetector, look: Look, version: int) -> None:
        self.model = detector.version(str(version))
        self.contract = detector.contract
        self.look = look
        self.sent: list[_Sent] = []
        """Frames that were sent, in order; shared with the version that sees the same ones."""
        self.found: list[Detections] = []
        self.seconds = 0.0

    def take(self, answer: FrameRows) -> None:
        """Add the answer to the next frame."""
        self.seconds += answer.request_seconds
        found = detections.from_rows(
            answer.rows,
            self.sent[len(self.found)].placement,
            score_threshold=self.look.score_threshold,
            nms_iou=None if self.contract.nms_in_graph else self.look.nms_iou,
        )
        self.found.append(found)

    def frames(self) -> tuple[FrameResult, ...]:
        """Return the frames with this version's labels."""
        size = self.sent[0].placement
        return tuple(
            _frame_result(frame, found, self.model, size)
            for frame, found in zip(self.sent, self.found, strict=True)
        )


def _look(
    media: Media,
    detector: TritonDetector,
    stopwatch: Stopwatch,
    sheet: _Sheet,
    also: Callable[[FrameBatch], None] = lambda batch: None,
) -> Analysis:
    with open_recording(media) as recording:
        tensors = _tensors(recording, sheet, stopwatch)
        for answer in detector.detect(tensors, int(sheet.model.version), also=also):
            stopwatch.add("inference", answer.request_seconds)
            sheet.take(answer)
        ledger = recording.ledger(inferred=len(sheet.found))
        partial_reasons = recording.partial
    size = sheet.sent[0].placement
    return Analysis(
        outcome="partial" if partial_reasons else "done",
        frames=sheet.frames(),
        width=size.source_width,
        height=size.source_height,
        model_name=sheet.contract.model,
        model_version=sheet.model.version,
        model_digest=sheet.model.digest,
        ledger=ledger.to_json(),
        saturated_frames=tuple(
            frame.index for frame, found in zip(sheet.sent, sheet.found, strict=True) if found.saturated
        ),
        partial_reasons=partial_reasons,
    )


def _tensors(recording: Recording, sheet: _Sheet, stopwatch: Stopwatch) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the sampled frames as the network takes them, and note each as sent."""
    sampled = recording.sample(sheet.look.predictions)
    while True:
        with stopwatch.stage("decode"):
            frame = next(sampled, None)
            if frame is None:
                return
            network = to_network(
                frame.picture,
                frame.rotation_degrees,
                height=sheet.contract.height,
                width=sheet.contract.width,
                resize=sheet.contract.resize,
            )
        sheet.sent.append(_Sent(frame.index, frame.time_seconds, network.placement))
        yield network.i420


def _frame_result(frame: _Sent, found: Detections, model: ModelVersion, size: Placement) -> FrameResult:
    width, height = frame.placement.source_width, frame.placement.source_height
    same_size = (width, height) == (size.source_width, size.source_height)
    return FrameResult(
        index=frame.index,
        time_seconds=frame.time_seconds,
        detections=tuple(
            Detection(_label(model, int(class_index)), float(score), (x1, y1, x2, y2))
            for (x1, y1, x2, y2), score, class_index in zip(
                found.boxes_xyxy.tolist(), found.scores, found.class_indices, strict=True
            )
        ),
        width=None if same_size else width,
        height=None if same_size else height,
    )


def _label(model: ModelVersion, class_index: int) -> str:
    # A label file that is too short costs the name, not the box.
    return model.labels[class_index] if class_index < len(model.labels) else f"class {class_index}"
