"""Temporary files of recordings: private, without a name, and swept where a death left one behind.

Linux makes a file without a name (O_TMPFILE), which goes with the last process that has it open. Some file
systems cannot (NFS, older overlays; open(2)): there Python makes one with a name and takes the name away, and
a process that is killed in between leaves it. So the name says whose it is.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_PREFIX = "vault-ml-"


def private_file(directory: Path) -> BinaryIO:
    """Return a new file in the directory that only this process can read and that goes with it.

    Raises:
        OSError: no room, or no right to write there.
    """
    prefix = f"{_PREFIX}{os.getpid()}-{_started(os.getpid())}-"
    return tempfile.TemporaryFile(dir=directory, prefix=prefix)


def sweep(directory: Path) -> int:
    """Remove files of ours in the directory whose process has gone; returns how many."""
    removed = 0
    for path in directory.glob(f"{_PREFIX}*-*-*"):
        pid, started, *_ = path.name.removeprefix(_PREFIX).split("-", 2)
        if not pid.isdecimal() or not started.isdecimal() or _started(int(pid)) == started:
            continue
        with suppress(OSError):  # somebody else swept it, or it is no file
            path.unlink()
            removed += 1
    return removed


def _started(pid: int) -> str | None:
    """Return when a process began, in clock ticks since the boot; ids are used again. None: it has gone."""
    try:
        # Its name, in brackets, may hold blanks; what follows is field 3 (proc(5), /proc/pid/stat).
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
