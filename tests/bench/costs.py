"""Costs: what a process and all that it started have taken of the machine so far."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True)
class Costs:
    """CPU seconds (user and system) and peaks of memory of a tree of processes.

    cpu_seconds: of the processes there are, and of their children that have ended and were waited for.
    peak_mib: the highest resident size of each process, the root first; shared pages count in each.
    """

    cpu_seconds: float
    peak_mib: tuple[float, ...]

    @classmethod
    def of(cls, root: psutil.Process) -> Self:
        """Measure the tree below a process that runs."""
        tree = [root, *root.children(recursive=True)]
        return cls(
            cpu_seconds=sum(sum(_cpu_times(each)) for each in tree),
            peak_mib=tuple(peak_mib(each.pid) for each in tree),
        )


def _cpu_times(process: psutil.Process) -> tuple[float, float, float, float]:
    times = process.cpu_times()
    return times.user, times.system, times.children_user, times.children_system


def peak_mib(pid: int) -> float:
    """Read the highest resident size of a process: VmHWM (proc(5), status).

    Not ru_maxrss: the kernel keeps it over exec, so it begins with the size of the parent.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024
