"""One recording, start to end, inside a worker process: download, decode, infer, assemble."""

import functools
import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2

from consumer import logs
from consumer.analysis import Analysis
from consumer.breaker import Breaker
from consumer.comparison import Trial
from consumer.decryption import unlock
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import RecordingRefused, VaultMLError
from consumer.events import RecordingEvent
from consumer.logs import LogFormat
from consumer.look import Look
from consumer.media import FileMedia
from consumer.report import Costs, Report, Stopwatch
from consumer.tally import Tally
from consumer.trial import look_at_event, look_at_file
from consumer.vault import VaultClient, VaultSettings

__all__ = ["Look", "Task", "WorkerSettings", "work"]


@dataclass(frozen=True)
class WorkerSettings:
    """Everything a worker process needs to know; hashable, and pickled to it once per task."""

    look: Look
    triton: TritonEndpoint
    vault: VaultSettings | None = None
    """None for local files."""
    download_directory: Path = Path(tempfile.gettempdir())
    """Where recordings lie while they are looked at."""
    encryption_key: str | None = field(default=None, repr=False)
    """That the agents encrypt recordings with; None where we hold none."""
    log_level: str = "info"
    log_format: LogFormat = "auto"


@dataclass(frozen=True)
class Task:
    """One recording to look at: its key in Vault, or its path where there is no Vault."""

    key: str
    source: str = ""
    signed_url: str = field(default="", repr=False)
    requests_in_flight: int | None = None
    """Requests to Triton that may be under way at a time; None for as many as the settings say."""

    @classmethod
    def of_event(cls, event: RecordingEvent, requests_in_flight: int | None = None) -> "Task":
        """Return the task that an event asks for; only what the download needs leaves the main process."""
        return cls(event.key, event.source, event.signed_url, requests_in_flight)

    def to_json(self) -> str:
        """Return the task as one line of JSON."""
        return json.dumps(asdict(self))


def work(settings: WorkerSettings, task_json: str) -> str:
    """Look at one recording and return a Report as JSON; what a WorkerPool runs.

    Every error of our tree ends in the report. Anything else is a fault of ours: it passes through and the
    pool hands it to the main process.

    Raises:
        MemoryError: more was asked for than this process may have.
    """
    task = Task(**json.loads(task_json))
    stopwatch = Stopwatch()
    size_bytes = 0
    result: Analysis | VaultMLError
    trial: Trial | None = None
    tally = Tally(task.requests_in_flight or settings.triton.requests_in_flight)
    try:
        detector, vault, breaker = _clients(settings)
        detector.tally = tally
        if vault is None:
            local = unlock(_local(Path(task.key)), settings.encryption_key)
            result = look_at_file(local, detector, settings.look, stopwatch)
        else:
            event = RecordingEvent(raw={}, key=task.key, source=task.source, signed_url=task.signed_url)
            with ExitStack() as downloaded:
                with stopwatch.stage("download"):
                    media = downloaded.enter_context(vault.fetch(event, settings.download_directory))
                size_bytes = media.size_bytes
                plain = unlock(media, settings.encryption_key)
                if settings.look.version is not None:  # of a replay: no rollout has a say in it
                    result = look_at_file(plain, detector, settings.look, stopwatch)
                else:
                    result, trial = look_at_event(
                        plain, detector, settings.look, stopwatch, breaker, source=task.source, key=task.key
                    )
    except VaultMLError as error:
        result = error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise
    return Report(result, Costs(stopwatch.seconds, size_bytes, tally.requests()), trial).to_json()


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
def _clients(settings: WorkerSettings) -> tuple[TritonDetector, VaultClient | None, Breaker]:
    """Connections of this process, and what it knows of a candidate; kept from its first task on."""
    cv2.setNumThreads(
        1
    )  # the workers share the CPUs between them; a thread pool in each would fight for them
    vault = settings.vault
    secrets = [vault.access_key, vault.secret_key] if vault else []
    secrets += [settings.encryption_key] if settings.encryption_key else []
    secrets += settings.triton.access.headers.values()
    logs.configure(settings.log_level, settings.log_format, secrets)
    return TritonDetector(settings.triton), VaultClient(vault) if vault else None, Breaker()
