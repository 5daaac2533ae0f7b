"""Changes a repository and dies by SIGKILL just before its n-th change of the file system.

    python -m tests.modelops.crashing < lines of "location operation n"

Answers a line for each: `killed`, or `done` where it had no n-th. A fork for each, so that Python and its
packages are loaded once.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from consumer.rollout import Rollout
from modelops.repository import Repository
from tests.modelops.candidates import candidate

if TYPE_CHECKING:
    from _typeshed import HasFileno

OPERATIONS: dict[str, Callable[[Repository], object]] = {
    "publish": lambda repository: repository.publish(candidate()),
    "serve": lambda repository: repository.serve("yolo", 2),
    "shelve": lambda repository: repository.shelve("yolo", 2),
    "remove": lambda repository: repository.remove("yolo", 2),
    "add file": lambda repository: repository.add_file("yolo", 1, "notes.txt", b"seen"),
    "roll out": lambda repository: repository.write_companion(
        "yolo", replace(repository.companion("yolo"), rollout=Rollout(2, live=1, previous=None))
    ),
}

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree"}
"""Audit events (docs.python.org, "Audit events table") of what changes a file system; beside `open`."""


def _die_before(moment: int) -> None:
    happened = 0

    def change() -> None:
        nonlocal happened
        happened += 1
        if happened == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(flags := arguments[2], int) and flags & 3):
            change()

    fsync = os.fsync

    def counted_fsync(fd: "int | HasFileno") -> None:
        change()
        fsync(fd)

    os.fsync = counted_fsync  # it has no audit event
    sys.addaudithook(hook)


def main() -> None:
    """Serve the lines."""
    for line in sys.stdin:
        location, operation, moment = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            _die_before(int(moment))
            OPERATIONS[operation](Repository.open(location))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write("killed\n" if killed else "done\n" if status == 0 else f"failed: {status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
