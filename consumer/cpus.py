"""CPUs: how many of them this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the whole CPUs that affinity and the control group's quota leave us; at least 1.

    A pod with `limits.cpu: 2` on a node of 64 sees 64 CPUs in os.cpu_count(); its quota says 2.
    Version 2 is documented in Linux' admin-guide/cgroup-v2 (cpu.max), version 1 in scheduler/sched-bwc.
    """
    limits = [float(len(os.sched_getaffinity(0))), *_quotas(cgroups, own)]
    return max(1, int(min(limits)))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Yield the quota, in CPUs, of our group and of each group above it; a quota on any of them binds."""
    group = cgroups / _own_group(own)
    for directory in (group, *group.parents):
        if not directory.is_relative_to(cgroups):
            break
        yield from _quota(_words(directory / "cpu.max"))
    for controller in ("cpu", "cpu,cpuacct"):  # version 1, as on Ubuntu 20.04
        quota, period = (_words(cgroups / controller / f"cpu.cfs_{part}_us") for part in ("quota", "period"))
        yield from _quota(quota + period)


def _quota(words: list[str]) -> Iterator[float]:
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])  # "max" and "-1" mean no quota


def _own_group(own: Path) -> str:
    for line in _words(own):
        if line.startswith("0::/"):
            return line.removeprefix("0::/")
    return ""


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
