"""`vault-ml model load|unload|canary|shadow|promote|rollback|prune`: what changes a rollout."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from consumer.errors import SetupError
from modelops.site_options import (
    DEFAULT_REPOSITORY,
    TRITON_VARIABLE,
    JsonOption,
    MaybeVersion,
    Name,
    RepositoryOption,
    TritonOption,
    Version,
    WithinOption,
    console,
    open_fleet,
    open_repository,
    since,
    targets,
)

if TYPE_CHECKING:
    from consumer.rollout import Mode, Rollout
    from modelops.pod_reports import Report
    from modelops.rollouts import Turn

DEFAULT_MIN_BOXES = 300

app = typer.Typer()


@app.command()
def load(
    name: Name,
    version: MaybeVersion = None,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Load a version on every pod, without recordings; without VERSION bring every pod to what is on disk."""
    from modelops import rollouts

    command = f"load {name} {version or ''}"
    _carry_out(command, name, triton, repository, as_json, lambda before: rollouts.load(before, version))


@app.command()
def unload(
    name: Name,
    version: Version,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Put a version that nobody uses back on the shelf, and unload it from every pod."""
    from modelops import rollouts

    def decide(before: "Rollout") -> "Turn":
        return rollouts.unload(before, version, datetime.now(UTC))

    _carry_out(f"unload {name} {version}", name, triton, repository, as_json, decide)


@app.command()
def canary(
    name: Name,
    version: Version,
    percent: Annotated[float, typer.Option(help="Of the recordings, that get its answers.")],
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Give a share of the recordings to a version; the live one sees their frames too, to compare."""
    _trial(name, version, "canary", percent, triton, repository, as_json)


@app.command()
def shadow(
    name: Name,
    version: Version,
    percent: Annotated[float, typer.Option(help="Of the recordings, whose frames it sees.")] = 100,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Show a version the frames of recordings, and compare what it finds; nobody gets its answers."""
    _trial(name, version, "shadow", percent, triton, repository, as_json)


@app.command()
def promote(
    name: Name,
    version: MaybeVersion = None,
    if_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Only if the two agree so far, from 0 to 1, by the diff topic."),
    ] = None,
    min_boxes: Annotated[
        int, typer.Option(min=1, help="Boxes that the agreement must rest on.")
    ] = DEFAULT_MIN_BOXES,
    within: WithinOption = None,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Make a version live, the candidate unless VERSION is given; the old one stays loaded for a rollback."""
    from modelops import agreed, rollouts

    begin = since(within)
    companion = open_repository(repository).companion

    def decide(before: "Rollout") -> "Turn":
        turn = rollouts.promote(before, version, datetime.now(UTC))
        if if_agreement is None or turn.rollout == before:
            return turn
        pair = agreed.pair_of(name, companion(name), before.live, turn.rollout.live)
        figures = agreed.require(agreed.read_drift(pair, begin), if_agreement, min_boxes)
        return dataclasses.replace(turn, sentence=f"{turn.sentence} There is {figures}.")

    _carry_out(f"promote {name} {version or ''}", name, triton, repository, as_json, decide)


@app.command()
def rollback(
    name: Name,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """End the trial of a candidate; without one, make the previous version live again."""
    from modelops import rollouts

    there = open_repository(repository)

    def decide(before: "Rollout") -> "Turn":
        others = {*there.served(name), *there.shelved(name)} - {before.live}
        return rollouts.rollback(before, datetime.now(UTC), others)

    _carry_out(f"rollback {name}", name, triton, repository, as_json, decide, goes_back=True)


@app.command()
def prune(
    name: Name,
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest on the shelf stay.")],
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Delete old versions from the shelf; what is loaded or in use stays."""
    there = open_repository(repository)
    with there.lock():
        used = there.companion(name).rollout.in_use
        waiting = [version for version in there.shelved(name) if version not in used]
        removed = waiting[: max(0, len(waiting) - keep)]
        for version in removed:
            there.remove(name, version)
    kept = waiting[len(removed) :]
    if as_json:
        print(json.dumps({"model": name, "removed": removed, "kept": kept}))
    else:
        numbers = ", ".join(map(str, removed)) or "nothing"
        print(f"Removed of {name}: {numbers}. Kept on the shelf: {', '.join(map(str, kept)) or 'nothing'}.")


def _trial(
    name: str,
    version: int,
    mode: "Mode",
    percent: float,
    triton: list[str] | None,
    repository: str,
    as_json: bool,
) -> None:
    from modelops import rollouts

    def decide(before: "Rollout") -> "Turn":
        return rollouts.trial(before, version, mode, percent, datetime.now(UTC))

    command = f"{mode} {name} {version} --percent {percent:g}"
    _carry_out(command, name, triton, repository, as_json, decide)


def _carry_out(
    command: str,
    name: str,
    triton: list[str] | None,
    repository: str,
    as_json: bool,
    decide: "Callable[[Rollout], Turn]",
    *,
    goes_back: bool = False,
) -> None:
    """Change a rollout, say what became of it, and end with status 1 when it was not done.

    Raises:
        SetupError: there is nothing that could be changed, or `decide` said so.
    """
    from modelops.change import Site, carry_out

    names = targets(triton)
    if not names:
        raise SetupError(
            f"Say which Triton to change: --triton HOST:PORT or {TRITON_VARIABLE}, "
            "with its gRPC port (usually 8001)."
        )
    progress = Console(stderr=True, highlight=False, markup=False)
    with open_fleet(names) as fleet:
        site = Site(open_repository(repository), fleet, name, say=partial(progress.print, soft_wrap=True))
        report = carry_out(site, command.strip(), decide, goes_back=goes_back)
    _print_report(report, as_json)
    if not report.done:
        raise typer.Exit(1)


def _print_report(report: "Report", as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(report), ensure_ascii=False))
        return
    table = Table("pod", "done", "what")
    for pod in report.pods:
        table.add_row(pod.pod, "yes" if pod.done else "no", pod.detail)
    out = console()
    out.print(table)
    for sentence in (*report.remarks, report.sentence):
        out.print(sentence, soft_wrap=True)
