"""Consumers as Kubernetes keeps them: each has its variables, its small disk and its clock, and is started
again when it ends, whoever ended it.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.brokers.kafka import dies_with_us
from tests.faults.clock import Clock
from tests.faults.lanes import Lane
from tests.faults.planted_pod import FULL_DISK_SIGN
from tests.pods import Pod

DISK_BYTES = 8 * 1024**2
RESTART_SECONDS = 1.0
"""Kubernetes starts a container that ended at once, for the first time."""

_FULL_OR_GONE = {errno.ENOSPC, errno.ENOENT, errno.ESRCH, errno.EACCES}
"""The last three: its disk went with its processes."""

_MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'


class Consumer:
    """One consumer, under one name or under several after another.

    Args:
        name: of its pod; a new pod in its place gets a number behind it.
        directory: for its logs, its disk and its clock.
        environment: its variables, but for what its place makes of them.
        lane: how it reaches the others.
        clock: whether its clock can be stepped.
        mounts: whether its disk can be one that we mount; else a full disk is planted.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        environment: Mapping[str, str],
        lane: Lane,
        *,
        clock: bool = False,
        mounts: bool = True,
    ) -> None:
        self.name, self.lane = name, lane
        self._environment, self._mounts = dict(environment), mounts
        self._logs, self._disk = directory, directory / "disk"
        self._disk.mkdir(parents=True)
        self.clock = Clock(directory) if clock else None
        if self.clock is not None:
            self._environment |= self.clock.environment()
        self._pod: Pod | None = None
        self.starts = self._replacements = 0
        self._wanted = False
        self._start_at: float | None = None
        self._told_to_end = False
        self.ended_by_itself: list[str] = []
        """What its log said last, for each time that nobody had ended it."""

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._pod is not None and self._pod.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it says that it is ready."""
        return self.alive and self._pod is not None and self._pod.get("/readyz")[0] == 200

    def start(self) -> None:
        """Start it; from now on it is started again when it ends."""
        self.starts += 1
        self._start_at, self._told_to_end, self._wanted = None, False, True
        suffix = f"-{self._replacements}" if self._replacements else ""
        environment = {
            **self._environment,
            **self.lane.environment(),
            "POD_NAME": self.name + suffix,
            "TMPDIR": str(self._disk),
            FULL_DISK_SIGN: str(self._disk.parent / "full"),
        }
        wrapper = [*dies_with_us(), *(mount_command(self._disk) if self._mounts else ())]
        directory = self._logs / f"start-{self.starts:03}"
        pod = Pod(directory, environment, module="tests.faults.planted_pod", wrapper=wrapper)
        self._pod = pod.__enter__()

    def keep(self) -> None:
        """Start it again when it has ended; to be called often."""
        now = time.monotonic()
        if not self._wanted or self.alive:
            return
        if self._start_at is None:
            self._start_at = now + RESTART_SECONDS
            if not self._told_to_end:
                self.ended_by_itself.append(f"{self.name}: {self.last_words()}")
        elif now >= self._start_at:
            self.start()

    def last_words(self) -> str:
        """Return the last line of its log, and its exit status."""
        assert self._pod is not None
        lines = self._pod.log.read_text(errors="replace").splitlines() or ["(nothing)"]
        return f"status {self._pod.process.poll()}: {lines[-1]}"

    def kill(self, *, replace: bool = False) -> bool:
        """End all its processes at once, as the end of a container does; a new pod may take its place.

        Returns False where it is not there.
        """
        if not self.alive:
            return False
        self._told_to_end = True
        self._replacements += replace
        self._signal(signal.SIGKILL)
        return True

    def terminate(self) -> bool:
        """Tell it to end, as a rolling update does; returns False where it is not there."""
        if not self.alive or self._pod is None:
            return False
        self._told_to_end = True
        self._pod.process.terminate()
        return True

    def dismiss(self) -> None:
        """Tell it to end, and do not start it again."""
        self._wanted = False
        self.terminate()

    def close(self) -> None:
        """End it and wait until it has ended."""
        self._wanted = False
        if self._pod is not None:
            self.thaw()
            self._pod.__exit__(None, None, None)

    def freeze(self) -> bool:
        """Stop all its processes where they are; returns False where it is not there."""
        self._signal(signal.SIGSTOP)
        return self.alive

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        return [process for process in self._processes()[1:] if _is_worker(process)]

    def memory_bytes(self) -> tuple[int, int]:
        """Return the resident memory of its main process, and of all its processes together."""
        sizes = []
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                sizes.append(process.memory_info().rss)
        return (sizes[0], sum(sizes)) if sizes else (0, 0)

    def fill_disk(self) -> bool:
        """Leave no room where it puts its downloads; returns False where it is not there."""
        if not self._mounts:
            (self._disk.parent / "full").touch()
            return self.alive
        try:
            # A consumer that has just been started still sees the machine's own disk there.
            if self._room().f_blocks * self._room().f_frsize > DISK_BYTES:
                return False
            with self._filler().open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(65_536))
        except OSError as error:
            if error.errno not in _FULL_OR_GONE:
                raise
            return error.errno == errno.ENOSPC

    @property
    def disk_is_full(self) -> bool:
        """Whether there is hardly any room on its disk."""
        if not self._mounts:
            return (self._disk.parent / "full").exists()
        with contextlib.suppress(OSError):  # its disk went with its processes
            room = self._room()
            return room.f_blocks * room.f_frsize <= DISK_BYTES and room.f_bavail < room.f_blocks // 10
        return False

    def _room(self) -> os.statvfs_result:
        return os.statvfs(self._filler().parent)

    def empty_disk(self) -> None:
        """Give the room back."""
        with contextlib.suppress(OSError):  # its disk goes with its processes
            (self._filler() if self._mounts else self._disk.parent / "full").unlink(missing_ok=True)

    def _filler(self) -> Path:
        assert self._pod is not None
        # By way of its own view: nobody else sees what is mounted there.
        return Path(f"/proc/{self._pod.process.pid}/root{self._disk}/filler")

    def _processes(self) -> list[psutil.Process]:
        if self._pod is None:
            return []
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(self._pod.process.pid)
            return [main, *main.children(recursive=True)]
        return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


def mount_command(directory: Path) -> Sequence[str]:
    """Return what runs a command with a small disk mounted at a directory, seen by nobody else."""
    return ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(DISK_BYTES), str(directory)]


def can_mount(directory: Path) -> bool:
    """Return whether this machine lets us mount a small disk, which takes root and CAP_SYS_ADMIN.

    A user namespace would let anybody mount one, but not look into it: a consumer is not dumpable, so its
    /proc is root's.
    """
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*mount_command(directory), "true"], capture_output=True, timeout=10, check=False)
    return tried.returncode == 0


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False
