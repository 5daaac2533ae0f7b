"""Limits of a process: what a worker may take, and that none leaves its memory behind.

docs/adr/0014-limits-and-attempts.md says which limit bounds what, and what was measured.
"""

import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

OPEN_FILES = 256
"""Of a worker; it has 16 open while it works. A leak ends it long before the node's own limit does."""

RESERVE_BYTES = 256 * 1024**2
"""Data that a worker maps beside what a recording takes: stacks of gRPC's threads and the like, which count
against RLIMIT_DATA though they are hardly touched. 78 MiB on 2 CPUs; gRPC starts up to 16 threads on more."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True)
class WorkerLimits:
    """What one worker process may take; its time is the pool's to limit.

    memory_bytes: WORKER_MEMORY, resident; and as much beyond what is mapped when it starts.
    """

    memory_bytes: int
    open_files: int = OPEN_FILES


def seal() -> None:
    """Make this process leave no core file: its memory holds keys, tokens and links.

    RLIMIT_CORE does not bind a kernel that hands cores to a program (core(5)); a process that is not dumpable
    leaves none at all, and nobody of the same user can attach to it. It can still read its own /proc/self/fd.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def confine(limits: WorkerLimits) -> None:
    """Bind this worker process: memory, open files, no core file, and it ends when its parent does.

    Decoders meet a refusal of memory as if the recording were damaged: who sees one fail asks `blame_memory`.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # else one that hangs would hold its download for ever
    seal()
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    _lower(resource.RLIMIT_DATA, data_bytes() + RESERVE_BYTES + limits.memory_bytes)


def data_bytes() -> int:
    """Return what this process has mapped for data: what RLIMIT_DATA counts."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * _PAGE_BYTES


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def short_of(size_bytes: int) -> bool:
    """Whether so much more memory would be over this process's limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return limit != resource.RLIM_INFINITY and data_bytes() + size_bytes > limit


def blame_memory(error: Exception, size_bytes: int) -> None:
    """Return if an error can not come from this process's limit of memory.

    Args:
        error: of a decoder or a demuxer, for which a refusal is one more kind of damage.
        size_bytes: what it may have asked for at once.

    Raises:
        MemoryError: it is one, or so much more would have been over the limit.
    """
    if isinstance(error, MemoryError) or short_of(size_bytes):
        raise MemoryError(str(error)) from error


def _lower(which: int, wanted: int) -> None:
    _, most = resource.getrlimit(which)
    value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(which, (value, value))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
