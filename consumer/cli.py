"""The command line `vault-ml`."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console

from consumer import __version__, logs
from consumer.dead_letter_cli import app as dead_letter_app
from consumer.errors import SettingsError, SetupError, VaultMLError
from consumer.limits import seal
from consumer.media import FileMedia
from consumer.replay_cli import replay
from consumer.results import Format
from consumer.terminal import progress, sigterm_as_interrupt
from modelops.cli import app as model_app
from modelops.site_options import DEFAULT_REPOSITORY, RepositoryOption

if TYPE_CHECKING:
    from consumer.analysis import Analysis

app = typer.Typer(
    name="vault-ml",
    help="What is in this recording? Kerberos Vault events become labelled boxes, through NVIDIA Triton.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, secrets among them
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="A YAML file with settings; the environment wins.", show_default=False),
]
Clips = Annotated[list[Path], typer.Argument(help="Video files.", show_default=False)]


def main() -> None:
    """Run the command line; an error of ours is one sentence and an exit status, not a traceback."""
    seal()
    try:
        app.add_typer(model_app, name="model", help="Fetch, export and publish models.")
        app.add_typer(dead_letter_app, name="dead-letter", help="See what failed and why; send it again.")
        app()
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except VaultMLError as error:
        print(f"vault-ml: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        # Writing to standard output failed: a full disk behind it, say.
        print(f"vault-ml: {error.strerror}.", file=sys.stderr)
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        print(f"vault-ml {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Hold the options that come before a command."""


@app.command()
def run(config: ConfigOption = None) -> None:
    """Consume recording events from Kafka until SIGTERM: the pod's command."""
    from consumer import run as pod
    from consumer import settings

    loaded = settings.load(os.environ, config)
    logs.configure(loaded.log_level, loaded.log_format, settings.secret_values(loaded))
    for sentence in settings.warnings(os.environ, config):
        structlog.get_logger("vault-ml").warning(sentence)
    try:
        pod.run(loaded)
    except VaultMLError as error:
        # The line that matters most has its time, its level and its masks too.
        structlog.get_logger("vault-ml").error("stopped", why=str(error))
        raise typer.Exit(1) from error


app.command()(replay)


@app.command("config")
def show_config(config: ConfigOption = None) -> None:
    """Say which settings `run` would use and where each comes from; secrets are masked."""
    from consumer import configuration, settings

    print(configuration.render_config(settings.load(os.environ, config)))
    for sentence in settings.warnings(os.environ, config):
        print(f"warning: {sentence}", file=sys.stderr)


@app.command()
def detect(
    clips: Clips,
    triton: Annotated[
        str | None,
        typer.Option(
            help="Triton's gRPC address; without it and TRITON_URL, one is started on this machine."
        ),
    ] = None,
    predictions: Annotated[int | None, typer.Option(help="Frames of each recording to look at.")] = None,
    output: Annotated[Format, typer.Option("--format", help="What a line says.")] = "frames",
    annotate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write frames with their boxes there, as JPEG.")
    ] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Leave lower scores out.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask.")] = None,
    model_version: Annotated[
        int | None, typer.Option(min=1, help="Its version, whichever of them is live.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes.")] = None,
    repository: Annotated[
        Path | None,
        typer.Option(help="The model repository; ./model_repository, or else the default model's own."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Look at local recordings; print one JSON line for each. Exit status 1 when any of them failed."""
    from consumer import detect as local
    from consumer import settings
    from consumer.parts import BACKSTOP_SECONDS, detector_settings, worker_limits

    given = {
        "TRITON_URL": ("--triton", triton),
        "TRITON_MODEL": ("--model", model),
        "NUMBER_OF_PREDICTIONS": ("--predictions", predictions),
        "SCORE_THRESHOLD": ("--score-threshold", score_threshold),
        "WORKERS": ("--workers", workers),
    }
    loaded = settings.load_detect(os.environ, config, given)
    logs.configure(loaded.log_level, loaded.log_format, settings.secret_values(loaded))
    failed = False
    names = local.names(clips)
    if annotate is not None:
        _make_directory(annotate)
    with contextlib.ExitStack() as stack:
        url, started_here = loaded.triton_url, "TRITON_URL" not in loaded.origins
        if started_here:
            url = stack.enter_context(_embedded_triton(repository, loaded.triton_model))
        worker = detector_settings(loaded, url, version=model_version, own_triton=started_here)
        bar = stack.enter_context(progress("Looking at recordings", len(clips)))
        results = local.detect(
            clips,
            worker,
            workers=min(loaded.workers, len(clips)),
            time_limit_seconds=loaded.recording_time_limit + BACKSTOP_SECONDS,
            limits=worker_limits(loaded),
            finished=lambda clip: bar.advance(bar.task_ids[0]),
        )
        for (clip, result), name in zip(results, names, strict=True):
            line = local.line(name, result, output)
            if sys.stdout.isatty():
                bar.console.print(line, soft_wrap=True, markup=False, highlight=False)  # above the bar
            else:
                print(line, flush=True)
            if remark := local.remark(clip, result):
                print(f"vault-ml: {remark}", file=sys.stderr)
            if isinstance(result, VaultMLError):
                failed = True
            elif annotate is not None:
                failed |= not _annotated(FileMedia(clip, name), worker.encryption_key, result, annotate)
    if failed:
        raise typer.Exit(1)


def _annotated(media: FileMedia, encryption_key: str | None, result: "Analysis", directory: Path) -> bool:
    """Write the pictures of one recording; say so and return False where that fails."""
    from consumer import detect as local
    from consumer.decryption import unlock

    try:
        local.annotate(unlock(media, encryption_key), result, directory)
    except (OSError, VaultMLError) as error:
        print(f"vault-ml: no pictures of {media.name}: {error}", file=sys.stderr)
        return False
    return True


def _make_directory(directory: Path) -> None:
    """Make a directory for pictures, before any work is done for them.

    Raises:
        SetupError: it cannot be made, or is something else.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"Pictures cannot be written to {directory}: {error.strerror}.") from error


@app.command()
def serve(
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of gRPC on 127.0.0.1.")] = 8001,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of HTTP on 127.0.0.1.")] = 8000,
    metrics_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of /metrics on 127.0.0.1.")
    ] = 8002,
) -> None:
    """Serve a model repository with a real Triton on this machine's CPUs, until Ctrl-C."""
    from modelops.cli import serve as serve_repository

    logs.configure("info", "auto")
    raise typer.Exit(
        serve_repository(repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port)
    )


@app.command()
def demo(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(help="Your own video files; none for a sample clip.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the annotated frames go.")] = Path("demo-output"),
    predictions: Annotated[
        int, typer.Option(min=1, max=1000, help="Frames of each recording to look at.")
    ] = 5,
) -> None:
    """Show the whole way of a recording on this machine: Vault, Kafka, Triton and the consumer, then stop."""
    from modelops.models_extra import require_models_extra

    require_models_extra()
    from consumer import demo as demonstration

    logs.configure("warning", "auto")
    _make_directory(output)
    console = Console(stderr=True, highlight=False)
    with sigterm_as_interrupt():
        shown = demonstration.demonstrate(
            clips or [], output, predictions=predictions, say=partial(console.print, soft_wrap=True)
        )
    for value in shown.values:
        print(json.dumps(value, ensure_ascii=False))
    for sentence in shown.failures:
        print(sentence, file=sys.stderr)
    seen = (
        f"{len(shown.pictures)} annotated frames are" if shown.pictures else "Nothing was found; the log is"
    )
    console.print(f"{seen} in {output}/", soft_wrap=True)
    if shown.failures:
        raise typer.Exit(1)


@contextlib.contextmanager
def _embedded_triton(repository: Path | None, model: str) -> Iterator[str]:
    """Start a Triton of our own for one command; gives its gRPC address."""
    from modelops.embedded import EmbeddedTriton
    from modelops.models_extra import require_models_extra

    require_models_extra()
    from modelops.export import DEFAULT_NAME, ready_repository

    console = Console(stderr=True, highlight=False)
    asked, repository = repository, repository or Path(DEFAULT_REPOSITORY)
    if not (repository / model / "config.pbtxt").is_file():
        if asked is not None or model != DEFAULT_NAME:
            raise SetupError(
                f"There is no model {model!r} in {repository}: export it with 'vault-ml model export', "
                "or say where it is with --repository."
            )
        with console.status("Getting the default model ready"):
            repository = ready_repository(name=model)
    with console.status("Starting Triton"):
        server = EmbeddedTriton.start(repository, models=[model])
    with server:
        yield server.grpc_url
