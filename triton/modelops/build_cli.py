"""`vault-ml model check|build`: TensorRT's word on a model, and its plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from consumer.errors import SetupError
from modelops.limits import DEFAULT_MAX_BATCH_SIZE, MOST_BATCH_SIZE
from modelops.site_options import DEFAULT_REPOSITORY, RepositoryOption, open_repository
from modelops.tensorrt_builder import DEFAULT_PREFERRED_BATCH

if TYPE_CHECKING:
    from modelops.repository import Repository

app = typer.Typer()

VersionOption = Annotated[
    int | None,
    typer.Option("--version", min=1, help="A version of the model, else its newest.", show_default=False),
]


@app.command()
def check(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A published model, or a model.onnx.")],
    version: VersionOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    max_batch: Annotated[
        int, typer.Option(min=1, max=MOST_BATCH_SIZE, help="Most frames in one run, for a FILE.")
    ] = DEFAULT_MAX_BATCH_SIZE,
) -> None:
    """Ask NVIDIA's own parser and builder whether TensorRT takes a model; needs no GPU."""
    if Path(model).is_file():
        _check(model, Path(model), max_batch)
    else:
        _check_version(open_repository(repository), model, version)


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="A published model.")],
    version: VersionOption = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    golden: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Clips and photos to try the plan with; else sample ones."),
    ] = None,
    preferred_batch: Annotated[
        int, typer.Option(min=1, max=MOST_BATCH_SIZE, help="Frames in the run that the plan is tuned for.")
    ] = DEFAULT_PREFERRED_BATCH,
    check: Annotated[
        bool, typer.Option("--check", help="Only ask NVIDIA's builder, which needs no GPU; as `model check`.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build for a version that is served already, too.")
    ] = False,
) -> None:
    """Build a version's TensorRT plan on this machine's GPU, try it, and put it beside the model."""
    place = open_repository(repository)
    if check:
        _check_version(place, name, version)
        return
    from modelops import gate
    from modelops.golden import golden_set
    from modelops.plans import build_plan, this_workshop

    chosen = _chosen(place, name, version)
    workshop, pictures = this_workshop(), golden_set(golden)
    with Console(stderr=True, highlight=False).status("Building") as status:
        plan = build_plan(
            place,
            name,
            chosen,
            pictures,
            workshop,
            preferred_batch=preferred_batch,
            force=force,
            say=status.update,
        )
    print(
        f"{name} version {chosen}: {plan.file.name} for {plan.gpu}, {plan.file.size_bytes / 1e6:.1f} MB, "
        f"TensorRT {plan.tensorrt}, driver {plan.driver}"
    )
    if plan.gate is not None:
        print(f"answers as ONNX Runtime does: {gate.figures(plan.gate)}")


def _check_version(repository: "Repository", name: str, version: int | None) -> None:
    from modelops.repository import MODEL_FILE

    chosen = _chosen(repository, name, version)
    content = repository.read(name, chosen, MODEL_FILE)
    _check(f"{name} version {chosen}", content, repository.config(name).max_batch_size)


def _check(what: str, model: bytes | Path, max_batch: int) -> None:
    from modelops import tensorrt_check

    with Console(stderr=True, highlight=False).status("NVIDIA's builder is at work"):
        report = tensorrt_check.check(model, max_batch=max_batch)
    if not report.accepted:
        raise SetupError(" ".join(report.problems))
    print(
        f"{what}: accepted by {report.builder}, {report.layers} layers, "
        f"a plan of {report.plan_bytes / 1e6:.1f} MB in {report.seconds:.1f} s"
    )


def _chosen(repository: "Repository", name: str, version: int | None) -> int:
    """Return the version that was asked for, or the newest one.

    Raises:
        SetupError: there is no such model.
    """
    there = [*repository.served(name), *repository.shelved(name)]
    if not there:
        known = ", ".join(repository.models()) or "none"
        raise SetupError(f"There is no model {name!r} in {repository.location}; there are: {known}.")
    return max(there) if version is None else version
