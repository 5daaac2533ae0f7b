"""CPUs: how many of them this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path

from consumer.cgroup import OWN, ROOT, groups, words


def usable_cpus(cgroups: Path = ROOT, own: Path = OWN) -> int:
    """Return the whole CPUs that affinity and the control group's quota leave us; at least 1.

    A pod with `limits.cpu: 2` on a node of 64 sees 64 CPUs in os.cpu_count(); its quota says 2.
    Version 2 is documented in Linux' admin-guide/cgroup-v2 (cpu.max), version 1 in scheduler/sched-bwc.
    """
    limits = [float(len(os.sched_getaffinity(0))), *_quotas(cgroups, own)]
    return max(1, int(min(limits)))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Yield the quota, in CPUs, of our group and of each group above it; a quota on any of them binds."""
    for directory in groups(cgroups, own):
        yield from _quota(words(directory / "cpu.max"))
    for controller in ("cpu", "cpu,cpuacct"):  # version 1, as on Ubuntu 20.04
        quota, period = (words(cgroups / controller / f"cpu.cfs_{part}_us") for part in ("quota", "period"))
        yield from _quota(quota + period)


def _quota(found: list[str]) -> Iterator[float]:
    if len(found) == 2 and all(word.isdecimal() for word in found) and int(found[1]) > 0:
        yield int(found[0]) / int(found[1])  # "max" and "-1" mean no quota
