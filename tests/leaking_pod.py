"""`vault-ml`, with a decoder that throws what it knows at some recordings: every variable, links and all.

    python -m tests.leaking_pod run

Workers are spawned and import this module again, so what it plants is in them as well.
"""

import os
from typing import Any, BinaryIO

import av

from tests.faults import planted_pod

LEAKS = b"\x00\x00\x00\x10free" + b"LEAKS..."
"""A box that says nothing to a player; as the last one of a file it is a sign to us."""

LINK = "LEAKED_LINK"
"""Names a link with a signature, which is no setting of ours."""


def plant() -> None:
    """Put the faults in place, in this process."""
    planted_pod.plant()
    real_open = av.open

    def leaking_open(file: BinaryIO, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # handed on
        file.seek(-len(LEAKS), os.SEEK_END)
        end = file.read()
        file.seek(0)
        if end == LEAKS:
            try:
                _open(os.environ[LINK])
            except KeyError as error:
                raise RuntimeError("\n".join(os.environ.values()), dict(os.environ)) from error
        return real_open(file, *arguments, **options)

    av.open = leaking_open  # type: ignore[assignment]  # the decoder opens recordings in one way only


def _open(link: str) -> None:
    raise KeyError(link)


if __name__ in ("__main__", "__mp_main__"):
    plant()

if __name__ == "__main__":
    from consumer.cli import main

    main()
