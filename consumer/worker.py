"""One recording, start to end, inside a worker process: download, decode, infer, assemble."""

import functools
import json
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consumer import detections, logs
from consumer.analysis import Analysis, Detection, FrameResult
from consumer.contract import Contract, ModelVersion
from consumer.detections import Detections, Placement
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import RecordingRefused, VaultMLError
from consumer.events import RecordingEvent
from consumer.frames import to_network
from consumer.logs import LogFormat
from consumer.media import FileMedia, Media
from consumer.report import Costs, Report, Stopwatch
from consumer.vault import VaultClient, VaultSettings
from consumer.video import Recording, open_recording


@dataclass(frozen=True)
class Look:
    """How a recording is looked at."""

    predictions: int
    score_threshold: float
    nms_iou: float


@dataclass(frozen=True)
class WorkerSettings:
    """Everything a worker process needs to know; hashable, and pickled to it once per task."""

    look: Look
    triton: TritonEndpoint
    vault: VaultSettings | None = None
    """None for local files."""
    download_directory: Path = Path(tempfile.gettempdir())
    """Where recordings lie while they are looked at."""
    log_level: str = "info"
    log_format: LogFormat = "auto"


@dataclass(frozen=True)
class Task:
    """One recording to look at: its key in Vault, or its path where there is no Vault."""

    key: str
    source: str = ""
    signed_url: str = field(default="", repr=False)

    @classmethod
    def of_event(cls, event: RecordingEvent) -> "Task":
        """Return the task that an event asks for; only what the download needs leaves the main process."""
        return cls(key=event.key, source=event.source, signed_url=event.signed_url)

    def to_json(self) -> str:
        """Return the task as one line of JSON."""
        return json.dumps(asdict(self))


def work(settings: WorkerSettings, task_json: str) -> str:
    """Look at one recording and return a Report as JSON; what a WorkerPool runs.

    Every error of our tree ends in the report. Anything else is a fault of ours: it passes through and the
    pool hands it to the main process.
    """
    task = Task(**json.loads(task_json))
    stopwatch = Stopwatch()
    size_bytes = 0
    result: Analysis | VaultMLError
    try:
        detector, vault = _clients(settings)
        if vault is None:
            result = analyse(_local(Path(task.key)), detector, settings.look, stopwatch)
        else:
            event = RecordingEvent(raw={}, key=task.key, source=task.source, signed_url=task.signed_url)
            with ExitStack() as downloaded:
                with stopwatch.stage("download"):
                    media = downloaded.enter_context(vault.fetch(event, settings.download_directory))
                size_bytes = media.size_bytes
                result = analyse(media, detector, settings.look, stopwatch)
    except VaultMLError as error:
        result = error
    return Report(result, Costs(stopwatch.seconds, size_bytes)).to_json()


def _local(path: Path) -> FileMedia:
    """Return a local recording, or say why there is none."""
    if path.exists() and not path.is_file():
        raise RecordingRefused(f"{path} is no regular file: name a video file.")
    try:
        with path.open("rb"):
            return FileMedia(path)
    except OSError as error:
        raise RecordingRefused(f"{path} cannot be read: {error.strerror}.") from error


@functools.cache
def _clients(settings: WorkerSettings) -> tuple[TritonDetector, VaultClient | None]:
    """Connections of this process, made at its first task and kept for all that follow."""
    cv2.setNumThreads(
        1
    )  # the workers share the CPUs between them; a thread pool in each would fight for them
    vault = settings.vault
    logs.configure(
        settings.log_level, settings.log_format, (vault.access_key, vault.secret_key) if vault else ()
    )
    return TritonDetector(settings.triton), VaultClient(vault) if vault else None


def analyse(media: Media, detector: TritonDetector, look: Look, stopwatch: Stopwatch) -> Analysis:
    """Look at one recording that is there: sample, ask the model, map the boxes to its pixels.

    Raises:
        RecordingError: what is wrong with the recording, or with the server's answer to it.
        TritonAway, ContractError: see `TritonDetector.detect`.
    """
    if media.size_bytes == 0:
        return Analysis.skipped("zero_bytes")
    contract = detector.contract
    with open_recording(media) as recording:
        # Only what `detect` has not answered yet is held, so memory does not grow with the predictions.
        sent: deque[_Sent] = deque()
        looked_at: list[tuple[_Sent, Detections]] = []
        version = ""
        for answer in detector.detect(_tensors(recording, contract, look, stopwatch, sent)):
            version = answer.model_version
            stopwatch.add("inference", answer.request_seconds)
            frame = sent.popleft()
            found = detections.from_rows(
                answer.rows,
                frame.placement,
                score_threshold=look.score_threshold,
                nms_iou=None if contract.nms_in_graph else look.nms_iou,
            )
            looked_at.append((frame, found))
        ledger = recording.ledger(inferred=len(looked_at))
        partial_reasons = recording.partial
    model = detector.version(version)
    size = looked_at[0][0].placement
    return Analysis(
        outcome="partial" if partial_reasons else "done",
        frames=tuple(_frame_result(frame, found, model, size) for frame, found in looked_at),
        width=size.source_width,
        height=size.source_height,
        model_name=contract.model,
        model_version=model.version,
        model_digest=model.digest,
        ledger=ledger.to_json(),
        saturated_frames=tuple(frame.index for frame, found in looked_at if found.saturated),
        partial_reasons=partial_reasons,
    )


@dataclass(frozen=True)
class _Sent:
    """A frame at the server: what its answer needs, without the picture."""

    index: int
    time_seconds: float
    placement: Placement


def _tensors(
    recording: Recording, contract: Contract, look: Look, stopwatch: Stopwatch, sent: deque[_Sent]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the sampled frames as the network takes them, and note each in `sent`."""
    sampled = recording.sample(look.predictions)
    while True:
        with stopwatch.stage("decode"):
            frame = next(sampled, None)
            if frame is None:
                return
            network = to_network(
                frame.picture,
                frame.rotation_degrees,
                height=contract.height,
                width=contract.width,
                resize=contract.resize,
            )
        sent.append(_Sent(frame.index, frame.time_seconds, network.placement))
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
