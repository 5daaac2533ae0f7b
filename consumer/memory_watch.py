"""Memory watch: ends a worker before the kernel ends the pod.

A kubelet of today has the kernel kill all processes of a container that runs out of memory
(`memory.oom.group`; kubernetes.io/docs/concepts/workloads/pods, `singleProcessOOMKill`): one recording would
cost everything that is under way. So the main process looks first.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from consumer.cgroup import MemoryUse, memory_use
from consumer.limits import resident_bytes

_log = structlog.get_logger("vault-ml.memory")

LOOK_SECONDS = 0.1
"""A decoder fills 100 to 200 MiB in this time (measured with 8192x4320); a look costs some 0.1 ms."""

FULL_SHARE = 0.9
"""Of the pod's limit: a tenth of 1 GiB is about what a worker can take between two looks."""

WORTH_ENDING_BYTES = 160 * 1024**2
"""A worker without a recording has 95 to 150 MiB resident: ending one would free nothing for long."""


@dataclass(frozen=True)
class Verdict:
    """A worker that must end, and why, in one sentence."""

    pid: int
    why: str


def judge(workers: Mapping[int, int], worker_bytes: int, pod: MemoryUse | None) -> Verdict | None:
    """Return the worker that must end now, if any.

    Args:
        workers: resident bytes by process id.
        worker_bytes: WORKER_MEMORY.
        pod: what the pod uses of its limit; None where it has none.
    """
    pid, size_bytes = max(workers.items(), key=lambda worker: worker[1], default=(0, 0))
    if size_bytes > worker_bytes:
        return Verdict(
            pid,
            f"A worker took {_mib(size_bytes)}, more than WORKER_MEMORY ({_mib(worker_bytes)}), and was "
            "ended.",
        )
    if pod is not None and pod.share > FULL_SHARE and size_bytes > WORTH_ENDING_BYTES:
        return Verdict(
            pid,
            f"The pod's memory was nearly full ({_mib(pod.used_bytes)} of {_mib(pod.limit_bytes)}), and its "
            f"largest worker ({_mib(size_bytes)}) was ended: raise the limit or lower WORKERS.",
        )
    return None


class MemoryWatch:
    """Looks at the workers from a thread of its own, so that a busy loop delays it by no look.

    Args:
        worker_bytes: WORKER_MEMORY.
        arrivals: returns the process ids of workers that have started since it was last asked.
        pod: returns what the pod uses of its limit.
    """

    def __init__(
        self,
        worker_bytes: int,
        arrivals: Callable[[], Iterable[int]],
        pod: Callable[[], MemoryUse | None] = memory_use,
    ) -> None:
        self._worker_bytes, self._arrivals, self._pod = worker_bytes, arrivals, pod
        self._workers: set[int] = set()
        self._ended: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)
        self.largest_bytes = 0
        """Resident memory of the largest worker when we looked last."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def why(self, pid: int) -> str | None:
        """Return why we ended this worker, or None if we did not."""
        return self._ended.get(pid)

    def look(self) -> None:
        """Look once; what the thread does."""
        for pid in self._arrivals():
            self._workers.add(pid)
            self._ended.pop(pid, None)  # of one long gone: numbers come again
        sizes = {pid: size for pid in self._workers if (size := resident_bytes(pid))}
        self._workers &= sizes.keys()
        self.largest_bytes = max(sizes.values(), default=0)
        if not sizes.keys().isdisjoint(self._ended):
            return  # one is on its way out: what it frees must show before the next is judged
        verdict = judge(sizes, self._worker_bytes, self._pod())
        if verdict is not None:
            self._ended[verdict.pid] = verdict.why
            with suppress(ProcessLookupError):
                os.kill(verdict.pid, signal.SIGKILL)
            _log.warning("worker ended", pid=verdict.pid, why=verdict.why)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self.look()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.0f} MiB"
