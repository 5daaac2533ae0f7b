"""`vault-ml model list|show|compare`: what there is, where it comes from, how far two versions agree."""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.table import Table

from consumer.errors import SetupError
from modelops.site_options import (
    DEFAULT_REPOSITORY,
    JsonOption,
    MaybeVersion,
    Name,
    RepositoryOption,
    TritonOption,
    WithinOption,
    access,
    console,
    open_fleet,
    open_repository,
    since,
    targets,
)

if TYPE_CHECKING:
    from consumer.look import Look
    from modelops.drift import Drift
    from modelops.inventory import Inventory, VersionRow
    from modelops.repository import Repository

app = typer.Typer()


@app.command("list")
def list_models(
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """List every version of every model: what it does, what is known of it, which pods have it."""
    inventory = _inventory(open_repository(repository), triton, None)
    if as_json:
        print(json.dumps(dataclasses.asdict(inventory), ensure_ascii=False))
    else:
        _print_inventory(inventory)
    if not inventory.complete:
        raise typer.Exit(1)


@app.command()
def show(
    name: Name,
    version: MaybeVersion = None,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Show the rollout of a model and all that is known of its versions, or of one of them; as YAML."""
    there = open_repository(repository)
    rollout = there.companion(name).rollout
    inventory = _inventory(there, triton, name)
    shown = [row for row in inventory.versions if version in {None, row.version}]
    if not shown:
        numbers = ", ".join(str(row.version) for row in inventory.versions)
        raise SetupError(f"There is no version {version} of {name!r}; there are {numbers}.")
    fields = {
        "model": name,
        "rollout": json.loads(rollout.to_json()),
        "versions": [dataclasses.asdict(row) for row in shown],
        "pods": inventory.pods,
        "remarks": inventory.remarks,
    }
    line = json.dumps(fields, ensure_ascii=False)
    print(
        line
        if as_json
        else yaml.safe_dump(
            json.loads(line), allow_unicode=True, sort_keys=False, default_flow_style=None, width=110
        ),
        end="\n" if as_json else "",
    )
    if not inventory.complete:
        raise typer.Exit(1)


@app.command()
def compare(
    name: Name,
    clips: Annotated[
        list[Path] | None,
        typer.Argument(help="Recordings to look at now; none for the diff topic.", show_default=False),
    ] = None,
    versions: Annotated[
        str | None, typer.Option(metavar="A,B", help="Which two; else the live one and the candidate.")
    ] = None,
    predictions: Annotated[int, typer.Option(min=1, max=1000, help="Frames of each recording.")] = 10,
    score_threshold: Annotated[
        float | None, typer.Option(help="Leave lower scores out; else as consumers do.")
    ] = None,
    within: WithinOption = None,
    triton: TritonOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    as_json: JsonOption = False,
) -> None:
    """Say how far two versions agree: on recordings at hand, or by the diff topic of the consumers."""
    from modelops import agreed

    there = open_repository(repository)
    companion = there.companion(name)
    live, candidate = agreed.versions_of(companion, versions)
    pair = agreed.pair_of(name, companion, live, candidate)
    if clips:
        drift = _look(
            there, name, (live, candidate), clips, _as_consumers(predictions, score_threshold), triton
        )
    else:
        drift = agreed.read_drift(pair, since(within))
    if as_json:
        print(json.dumps({"model": name, "live": live, "candidate": candidate, **drift.to_dict()}))
    else:
        _print_drift(drift, live, candidate)
    if clips and not drift.recordings:
        raise typer.Exit(1)


def _look(
    repository: "Repository",
    name: str,
    versions: tuple[int, int],
    clips: list[Path],
    look: "Look",
    triton: list[str] | None,
) -> "Drift":
    """Look at clips with both versions; says on standard error which could not be looked at."""
    from consumer.errors import VaultMLError
    from modelops import offline
    from modelops.drift import Drift
    from modelops.models_extra import require_models_extra

    names = targets(triton)
    if not names:
        require_models_extra()
    drift = Drift()
    media = offline.local(clips)
    with offline.detector_of(repository, name, versions, names[0] if names else None, access()) as detector:
        for clip, result in offline.compare(detector, look, versions, media):
            if isinstance(result, VaultMLError):
                print(f"vault-ml: {clip.name}: {result}", file=sys.stderr)
                drift += Drift.of_failure(result.reason)
            else:
                drift += result
    return drift


def _as_consumers(predictions: int, score_threshold: float | None) -> "Look":
    """Return how consumers look, by the same variables and with the same defaults, but for what was given."""
    from consumer import settings
    from consumer.look import Look

    loaded = settings.load_detect(
        os.environ, options={"SCORE_THRESHOLD": ("--score-threshold", score_threshold)}
    )
    threshold = loaded.score_threshold
    if "SCORE_THRESHOLD" not in loaded.origins:
        threshold = settings.Settings.model_fields["score_threshold"].default
    return Look(predictions, threshold, loaded.nms_iou)


def _inventory(repository: "Repository", triton: list[str] | None, name: str | None) -> "Inventory":
    from modelops.inventory import take

    names = targets(triton)
    with open_fleet(names) if names else contextlib.nullcontext() as fleet:
        return take(repository, fleet, None if name is None else [name])


def _print_inventory(inventory: "Inventory") -> None:
    table = Table("model", "version", "state", "labels", "precision", "size", "created", "gate", "loaded on")
    for row in inventory.versions:
        table.add_row(row.model, str(row.version), row.state, *_known(row), _pods(row, inventory.pods))
    out = console()
    out.print(table)
    for remark in inventory.remarks:
        out.print(remark, soft_wrap=True)


def _known(row: "VersionRow") -> tuple[str, ...]:
    known = row.provenance
    if known is None:
        return (str(len(row.labels)), "", "", "", "")
    gate = "not judged"
    if known.gate is not None:
        figures = known.gate.fair
        gate = f"recall {_figure(figures.recall)}, precision {_figure(figures.precision)}"
        gate += f" ({known.gate.boxes} boxes)"
    if known.forced:
        gate += ", forced"
    size = f"{known.graph.size_bytes / 1e6:.1f} MB"
    return (str(len(row.labels)), known.precision, size, known.created[:16].replace("T", " "), gate)


def _pods(row: "VersionRow", pods: tuple[str, ...]) -> str:
    if not pods:
        return "(not asked)"
    if len(row.loaded_on) == len(pods):
        return "all pods" if len(pods) > 1 else pods[0]
    return ", ".join(row.loaded_on) or "none"


def _print_drift(drift: "Drift", live: int, candidate: int) -> None:
    table = Table("", f"version {live}", f"version {candidate}", "both")
    agreement = drift.agreement
    table.add_row("boxes, labels known to both", str(agreement.reference_boxes), str(agreement.other_boxes))
    table.add_row("matched", "", "", str(agreement.matched))
    table.add_row("agreement", "", "", _figure(agreement.agreement))
    table.add_row("share with a partner", _figure(agreement.recall), _figure(agreement.precision), "")
    table.add_row("mean IoU", "", "", _figure(agreement.mean_iou))
    table.add_row("score drift", "", "", _figure(agreement.score_drift))
    for label, (ours, theirs) in drift.labels().items():
        table.add_row(f"boxes of {label}", str(ours), str(theirs), f"{theirs - ours:+d}")
    seconds = (drift.live_seconds_per_frame, drift.candidate_seconds_per_frame)
    table.add_row(
        "milliseconds a frame", *("-" if each is None else f"{1000 * each:.1f}" for each in seconds)
    )
    out = console()
    out.print(table)
    failed = ", ".join(f"{count} {reason}" for reason, count in drift.failed.most_common())
    said = f"{drift.recordings} recording{'' if drift.recordings == 1 else 's'}, {agreement.frames} frames"
    out.print(f"{said}; not compared: {failed}." if failed else f"{said}.", soft_wrap=True)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
