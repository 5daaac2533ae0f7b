"""Options of the commands about dead letters."""

from pathlib import Path
from typing import Annotated

import typer

LARGEST_LIMIT = 10_000
"""Letters at a time are kept in memory."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="A YAML file with settings; the environment wins.", show_default=False),
]
ReasonOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reason", help="Only of this reason, such as undecodable; repeatable.", show_default=False
    ),
]
CameraOption = Annotated[
    list[str] | None,
    typer.Option("--camera", help="Only of this camera, as events name it; repeatable.", show_default=False),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="Failed since: 2h, yesterday, 2026-05-01T12:00 (UTC).",
        show_default=False,
    ),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="Failed before that.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object for each letter.")]
LettersArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER", help="Positions (0/42) or ids of letters.", show_default=False),
]
