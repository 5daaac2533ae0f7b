"""Reports: what became of a command on every pod, and the sentences of those where it failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelops.fleet import Answer


@dataclass(frozen=True)
class PodReport:
    """What became of one pod."""

    pod: str
    done: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """What became of a command.

    done: on disk and on every pod; else it was undone, and `sentence` says what was in the way.
    remarks: what else was done: commands that had been interrupted, versions put on the shelf.
    """

    done: bool
    sentence: str
    pods: tuple[PodReport, ...] = ()
    remarks: tuple[str, ...] = ()


def failures(answers: Sequence[Answer[Any]]) -> str:
    """Say which pods failed, and why; nothing where none did."""
    return " ".join(f"{answer.pod.name}: {answer.failure}" for answer in answers if answer.failure)


def not_undone(undone: Sequence[Answer[Any]]) -> str:
    """Say which pods an undo did not reach, as a further sentence; nothing where it reached all."""
    failed = [answer.pod.name for answer in undone if answer.failure]
    return f" The disk has the former state; not so {', '.join(failed)}." if failed else ""


def reports(answers: Sequence[Answer[None]], detail: str) -> list[PodReport]:
    """Report on each pod: the detail where it did what it was asked, else why it did not."""
    return [PodReport(a.pod.name, not a.failure, a.failure or detail) for a in answers]


def undone_reports(
    tried: Sequence[Answer[Any]],
    undone: Sequence[Answer[Any]],
    detail: str,
) -> list[PodReport]:
    """What each pod says after an undo: why it could not, or where the undo failed, that."""
    reports = []
    for first, second in zip(tried, undone, strict=True):
        said = [first.failure, f"not undone: {second.failure}" if second.failure else detail]
        reports.append(PodReport(first.pod.name, False, " ".join(filter(None, said))))
    return reports
