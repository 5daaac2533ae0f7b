"""Control groups: what this container may use of its node, as the kernel keeps it under /sys/fs/cgroup.

Version 2 is documented in Linux' admin-guide/cgroup-v2, version 1 in admin-guide/cgroup-v1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 says "no limit" as the largest number of pages that there is."""


@dataclass(frozen=True)
class MemoryUse:
    """What a control group holds of its limit, in bytes; files that can be read again are not counted."""

    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        """1.0 is where the kernel begins to kill."""
        return self.used_bytes / self.limit_bytes


def memory_use(root: Path = ROOT, own: Path = OWN) -> MemoryUse | None:
    """Return the use of our group or of one above it, whichever is nearest to its limit; None without one."""
    uses = [*_uses_v2(root, own), *_uses_v1(root, own)]
    return max(uses, key=lambda use: use.share, default=None)


def groups(root: Path, own: Path, controller: str = "") -> Iterator[Path]:
    """Yield the directory of our group and of each above it; a limit on any of them binds.

    Args:
        root: where the groups' files are.
        own: /proc/self/cgroup.
        controller: of version 1, such as `memory`; empty for version 2.
    """
    top = root / controller
    group = top / _own_group(own, controller)
    for directory in (group, *group.parents):
        if not directory.is_relative_to(top):
            break
        yield directory


def words(path: Path) -> list[str]:
    """Return the words of a file; none where it is not there."""
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _uses_v2(root: Path, own: Path) -> Iterator[MemoryUse]:
    for group in groups(root, own):
        files = ("active_file", "inactive_file")
        yield from _use(group / "memory.max", group / "memory.current", group / "memory.stat", files)


def _uses_v1(root: Path, own: Path) -> Iterator[MemoryUse]:
    for group in groups(root, own, "memory"):
        limit, used = group / "memory.limit_in_bytes", group / "memory.usage_in_bytes"
        yield from _use(limit, used, group / "memory.stat", ("total_active_file", "total_inactive_file"))


def _use(limit: Path, used: Path, stat: Path, files: tuple[str, str]) -> Iterator[MemoryUse]:
    limit_words, used_words = words(limit), words(used)
    if not all(len(found) == 1 and found[0].isdecimal() for found in (limit_words, used_words)):
        return  # not there, or "max"
    limit_bytes = int(limit_words[0])
    if 0 < limit_bytes < _NO_LIMIT_BYTES:
        counts = words(stat)
        cached = sum(int(n) for name, n in zip(counts[::2], counts[1::2], strict=False) if name in files)
        yield MemoryUse(max(0, int(used_words[0]) - cached), limit_bytes)


def _own_group(own: Path, controller: str) -> str:
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, names, group = line.split(":", 2)
        if controller in names.split(","):
            return group.strip("/")
    return ""
