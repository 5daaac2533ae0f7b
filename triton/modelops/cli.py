"""`vault-ml model`: fetch and export models; and what `vault-ml serve` does."""

import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from consumer.contract import DEFAULT_MAX_DETECTIONS
from consumer.errors import SetupError
from modelops.build_cli import app as build_app
from modelops.limits import DEFAULT_MAX_BATCH_SIZE, MOST_BATCH_SIZE, MOST_DETECTIONS
from modelops.models_extra import require_models_extra
from modelops.repository_cli import app as repository_app
from modelops.review_cli import app as review_app
from modelops.rollout_cli import app as rollout_app
from modelops.site_options import DEFAULT_REPOSITORY, RepositoryOption

app = typer.Typer(no_args_is_help=True, help="Fetch models, and export them for Triton.")
app.add_typer(build_app)
app.add_typer(repository_app)
app.add_typer(review_app)
app.add_typer(rollout_app)


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="A model of the catalogue, or the default one.")] = None,
) -> None:
    """Fetch a model of the catalogue into the cache; prints its licence and where it lies."""
    require_models_extra()
    from modelops import catalogue

    fetched = catalogue.fetch(name) if name else catalogue.fetch_default()
    entry = fetched.entry
    print(f"{entry.name}: {entry.what}\nlicence: {entry.licence}\nfrom: {entry.homepage}\n{fetched.path}")


@app.command()
def export(  # noqa: PLR0917 - typer turns each parameter into an option
    model: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="MODEL.onnx, MODEL.weights with MODEL.cfg beside it, a catalogue name, or MODEL.pt where "
            "you have installed ultralytics.",
        ),
    ],
    name: Annotated[str, typer.Option(help="What Triton calls the model.")] = "yolo",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Of the network's picture, multiples of 32; else 384x640, or the file's own if need be.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="fp32 for CPUs; fp16 for GPUs; int8 for GPUs, where the figures allow it."),
    ] = "fp32",
    labels: Annotated[Path | None, typer.Option(help="One class name a line, in class order.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="What the network's answer is, like ultralytics or yolov5; only where several fit."
        ),
    ] = None,
    colour: Annotated[
        Literal["rgb", "bgr"] | None, typer.Option(help="Order of colours that the network expects.")
    ] = None,
    scale: Annotated[
        Literal["1", "255"] | None, typer.Option(help="Value of white that the network expects.")
    ] = None,
    resize: Annotated[
        Literal["letterbox", "stretch"] | None,
        typer.Option(help="Whether pictures keep their shape, with a grey border, or are stretched."),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, max=MOST_BATCH_SIZE, help="Most frames in one run of the model.")
    ] = DEFAULT_MAX_BATCH_SIZE,
    max_detections: Annotated[
        int, typer.Option(min=1, max=MOST_DETECTIONS, help="Rows of the answer for one frame.")
    ] = DEFAULT_MAX_DETECTIONS,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    golden: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Clips and photos to prove the model with; else sample ones."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Clips and photos to calibrate INT8 with; else of the golden set."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jpg", help="Write a golden picture there, with what it sees."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Ask NVIDIA's parser and builder too; needs no GPU.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish also what does not pass the accuracy gate.")
    ] = False,
) -> None:
    """Wrap a detector into the contract graph, prove it, and publish it as the next version of its name."""
    require_models_extra()
    from modelops import gate
    from modelops.export import export as export_model
    from modelops.export import resolve
    from modelops.request import Request
    from modelops.source import Options

    if picture is not None and (
        picture.suffix.lower() not in {".jpg", ".jpeg"} or not picture.parent.is_dir()
    ):
        raise SetupError(
            f"--picture {picture} will not do: give a file ending in .jpg in a directory that exists."
        )
    request = Request(
        size=None if size is None else _size(size),
        precision=precision,
        options=Options(layout=layout, colour=colour, scale=scale, resize=resize, labels=labels),
        calibration=calibration,
        golden=golden,
        max_batch_size=max_batch,
        max_detections=max_detections,
    )
    with Console(stderr=True, highlight=False).status("Getting the model") as status:
        exported = export_model(
            resolve(model),
            repository,
            name=name,
            request=request,
            force=force,
            check=check,
            say=status.update,
        )
    published, report = exported.published, exported.provenance.gate
    lies = "served" if published.served else "on the shelf"
    print(f"{published.name} version {published.version}: {published.directory} ({lies})")
    if report is not None:
        passed = "passed" if report.passed else "NOT passed, published all the same because of --force"
        print(f"accuracy gate {passed}: {gate.figures(report)}")
    if exported.provenance.checked_by is not None:
        print(f"accepted by {exported.provenance.checked_by}")
    print(f"it sees in {exported.sighting}")
    if picture is not None:
        print(f"drawn in {exported.sighting.draw(picture)}")


def serve(
    repository: Path | str = DEFAULT_REPOSITORY,
    *,
    grpc_port: int = 8001,
    http_port: int = 8000,
    metrics_port: int = 8002,
) -> int:
    """Run the embedded Triton on a repository until SIGINT or SIGTERM; returns the exit status.

    Raises:
        SetupError: there is no model, two ports are the same, or it does not start.
    """
    require_models_extra()
    from modelops.embedded import EmbeddedTriton
    from modelops.repository import Repository
    from modelops.storage import is_url

    there = is_url(repository) or Path(repository).is_dir()
    if there and not Repository.open(repository).models():
        raise SetupError(f"There is no model in {repository}: publish one with `vault-ml model export`.")
    ports = [port for port in (grpc_port, http_port, metrics_port) if port]
    if len(set(ports)) < len(ports):
        raise SetupError(
            f"gRPC, HTTP and metrics cannot share a port ({grpc_port}, {http_port}, {metrics_port}): "
            "give three different ones."
        )
    stopping, starting = False, True

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        first, stopping = not stopping, True
        if starting and first:  # while a big model loads nobody looks at the flag
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedTriton.start(
            repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
        ) as server:
            starting = False
            names = ", ".join(server.models) or "no model"
            print(f"Triton serves {names}: gRPC at {server.grpc_url}, HTTP at {server.http_url}", flush=True)
            while not stopping and server.healthy:
                server.wait(0.5)
        if not stopping:
            print("Triton ended, or a process of one of its models did; its log says why.", file=sys.stderr)
        return 0 if stopping else 1
    except KeyboardInterrupt:  # start() has ended what it began
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text, re.IGNORECASE)
    if sides is None:
        raise SetupError(f"--size {text} will not do: write HEIGHTxWIDTH in pixels, like 384x640.")
    return int(sides[1]), int(sides[2])
