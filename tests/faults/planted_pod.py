"""`vault-ml`, with a decoder that crashes on some recordings and never ends on others.

    python -m tests.faults.planted_pod run

Real decoders do so too, but no file is known on which this one does. Workers are spawned and import this
module again, so what it plants is in them as well.
"""

import errno
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

import av

CRASHES = b"\x00\x00\x00\x10free" + b"CRASHES!"
HANGS = b"\x00\x00\x00\x10free" + b"HANGS..."
"""A box that says nothing to a player; as the last one of a file it is a sign to us."""

FULL_DISK_SIGN = "PLANTED_FULL_DISK_SIGN"
"""Names a file: while it is there, the disk is said to be full. For machines that let us mount none."""


def plant() -> None:
    """Put the faults in place, in this process."""
    real_open, real_file = av.open, tempfile.TemporaryFile

    def planted_open(file: BinaryIO, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # handed on
        file.seek(-len(CRASHES), os.SEEK_END)
        end = file.read()
        file.seek(0)
        if end == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        while end == HANGS:
            time.sleep(60.0)
        return real_open(file, *arguments, **options)

    def planted_file(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # handed on
        if Path(os.environ[FULL_DISK_SIGN]).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_file(*arguments, **options)

    av.open = planted_open  # type: ignore[assignment]  # the decoder opens recordings in one way only
    if FULL_DISK_SIGN in os.environ:
        tempfile.TemporaryFile = planted_file


if __name__ in ("__main__", "__mp_main__"):
    plant()

if __name__ == "__main__":
    from consumer.cli import main

    main()
