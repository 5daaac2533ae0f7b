"""Options that the commands of a rollout share: the repository and the pods that read it."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from consumer.errors import SetupError

if TYPE_CHECKING:
    from consumer.triton_access import TritonAccess
    from modelops.fleet import Fleet
    from modelops.repository import Repository

TRITON_VARIABLE = "TRITON_URL"
DEFAULT_REPOSITORY = "model_repository"
_COLUMNS_WITHOUT_TERMINAL = 160
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Name = Annotated[str, typer.Argument(help="The model, as Triton calls it.")]
Version = Annotated[int, typer.Argument(min=1, help="A version of it.")]
MaybeVersion = Annotated[int | None, typer.Argument(min=1, help="A version of it.", show_default=False)]
TritonOption = Annotated[
    list[str] | None,
    typer.Option(
        "--triton",
        metavar="HOST:PORT",
        help="Triton's gRPC address; every pod behind the name. Repeatable; else TRITON_URL.",
        show_default=False,
    ),
]
RepositoryOption = Annotated[str, typer.Option("--repository", help="The model repository, a path or URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Say it as one JSON object.")]
WithinOption = Annotated[
    str | None,
    typer.Option("--within", help="How far to look back, like 30m, 1h or 2d; as far as there is without it."),
]


def open_repository(location: str) -> "Repository":
    """Open the repository that --repository names."""
    from modelops.repository import Repository

    return Repository.open(location)


def targets(triton: list[str] | None) -> list[str]:
    """Return what --triton names, else what TRITON_URL does, which may hold several with commas between."""
    return triton or re.findall(r"[^,\s]+", os.environ.get(TRITON_VARIABLE, ""))


def access() -> "TritonAccess":
    """Return how the environment says that Triton is reached: TRITON_CA_FILE and its like.

    Raises:
        SettingsError: something of it is wrong.
    """
    from consumer.parts import triton_access
    from consumer.settings import load_triton_access

    return triton_access(load_triton_access(os.environ))


@contextlib.contextmanager
def open_fleet(names: list[str]) -> "Iterator[Fleet]":
    """Find every pod behind the names; gives them until the end of the block.

    Raises:
        SetupError: a name will not do or is not known, or the admin key cannot be read.
        SettingsError: what is said of the way to Triton (TLS, certificates, a key) is wrong.
    """
    from modelops.addresses import resolve
    from modelops.admin_key import read_admin_key
    from modelops.fleet import Fleet

    with Fleet(resolve(names), read_admin_key(os.environ), access()) as fleet:
        yield fleet


def since(within: str | None) -> datetime | None:
    """Return the time that --within means; None for no limit.

    Raises:
        SetupError: it is no span of time.
    """
    if within is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", within.strip())
    if found is None or int(found[1]) == 0:
        raise SetupError(f"--within {within} will not do: write a span of time like 90s, 30m, 1h or 2d.")
    return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def console() -> Console:
    """Return a console on standard output; without a terminal its lines are wide enough for a table."""
    width = None if sys.stdout.isatty() else _COLUMNS_WITHOUT_TERMINAL
    return Console(highlight=False, width=width)
