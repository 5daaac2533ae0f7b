"""`vault-ml detect`: the worker of `run` on local files, without Kafka and Vault."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from consumer.analysis import Analysis
from consumer.annotate import write_annotated_frames
from consumer.errors import VaultMLError
from consumer.events import RecordingEvent
from consumer.limits import WorkerLimits
from consumer.media import Media
from consumer.messages import Position
from consumer.pool import WorkerPool
from consumer.report import Costs, Report
from consumer.results import Format, build_result, frames_value
from consumer.worker import Task, WorkerSettings, work

_NO_LIMIT_BYTES = 2**31


def detect(
    clips: Sequence[Path],
    settings: WorkerSettings,
    *,
    workers: int,
    time_limit_seconds: float,
    limits: WorkerLimits | None = None,
    finished: Callable[[Path], None] = lambda clip: None,
) -> Iterator[tuple[Path, Analysis | VaultMLError]]:
    """Look at local recordings and yield what each came to, in the order given.

    Args:
        clips: the files; every one is tried, whatever becomes of the others.
        settings: without Vault.
        workers: processes.
        time_limit_seconds: for one recording.
        limits: for one worker.
        finished: called as each recording is done, in any order.
    """
    with WorkerPool(
        partial(work, settings), workers=workers, time_limit_seconds=time_limit_seconds, limits=limits
    ) as pool:
        waiting = iter(enumerate(clips))
        done: dict[int, Analysis | VaultMLError] = {}
        for number, clip in enumerate(clips):
            while number not in done:
                # A few at a time: what waits in the pool counts against the time for an answer.
                for ticket, next_clip in islice(waiting, workers + 1 - pool.under_way):
                    pool.submit(ticket, Task(key=str(next_clip)).to_json())
                answer = pool.take(wait_seconds=1.0)
                if answer is not None:
                    ticket, came = answer
                    report = Report.from_json(came) if isinstance(came, str) else Report(came, Costs())
                    done[ticket] = report.result
                    finished(clips[ticket])
            yield clip, done.pop(number)


def names(clips: Sequence[Path]) -> list[str]:
    """Return what each clip is called: its file name, or the path as written where that says which one."""
    counts = Counter(clip.name for clip in set(clips))
    called = [clip.name if counts[clip.name] == 1 else str(clip) for clip in clips]
    # A file name is bytes; those that are no UTF-8 must not spoil the line.
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in called]


def line(name: str, result: Analysis | VaultMLError, output: Format) -> str:
    """Return the JSON line of one recording: its frames, its classification, or what went wrong."""
    value: dict[str, Any]
    if isinstance(result, VaultMLError):
        value = {"recording": name, "error": {"reason": result.reason, "sentence": str(result)}}
    elif output == "classification":
        event = RecordingEvent(raw={"payload": {"key": name}}, key=name)
        message = build_result(event, result, Position("", 0, 0), _NO_LIMIT_BYTES)
        return message.value.decode()
    else:
        value = frames_value(name, result)
    return json.dumps(value, ensure_ascii=False)


def remark(clip: Path, result: Analysis | VaultMLError) -> str | None:
    """Return what a person should know beside the line: what failed, or could not be looked at."""
    if isinstance(result, VaultMLError):
        return str(result)
    if result.outcome.startswith("skipped:"):
        return f"{clip} was not looked at: {result.outcome.removeprefix('skipped:').replace('_', ' ')}."
    if result.partial_reasons:
        return f"{clip} could be looked at in part only: {', '.join(result.partial_reasons)}."
    return None


def annotate(media: Media, analysis: Analysis, directory: Path) -> list[Path]:
    """Write the frames in which something was found as JPEG with their boxes; return the files."""
    found = {frame.time_seconds: frame.detections for frame in analysis.frames if frame.detections}
    return write_annotated_frames(media, found, directory)
