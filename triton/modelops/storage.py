"""Storage: where a model repository lies, and how something appears in it whole or not at all."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_URL = re.compile(r"(s3|gs|as)://")


def is_url(location: str | Path) -> bool:
    """Whether a repository lies in an object store that Triton reads."""
    return isinstance(location, str) and _URL.match(location) is not None


@dataclass(frozen=True)
class Place:
    """A file or directory, in what Triton sees or on the shelf beside it (docs/adr/0008)."""

    path: str
    """Relative, with slashes: `yolo/1/model.onnx`."""
    on_shelf: bool = False

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.path}/{name}" if self.path else name, self.on_shelf)


SERVED = Place("")
"""What Triton sees."""

SHELF = Place("", on_shelf=True)
"""What waits: versions that are published and not served."""


class Storage(Protocol):
    """Keeps the files of a repository. A crash at any moment leaves the old state or the new.

    What changes something needs the lock. Every method may raise OSError; where the reason is one that a
    person can do something about, it is a SetupError with one sentence.
    """

    @property
    def location(self) -> str:
        """Path or URL of the repository, as Triton takes it."""
        ...

    def where(self, place: Place) -> str:
        """Path or URL of a place, for people."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Keep other publishers out, and clear up what a dead one left behind.

        Raises:
            SetupError: another one is at work; says who, where and since when.
        """
        ...

    def names(self, directory: Place) -> list[str]:
        """Names of what lies directly in a directory, sorted; none where there is no such directory."""
        ...

    def is_whole(self, directory: Place) -> bool:
        """Whether the directory of a version holds all that was written as one."""
        ...

    def read(self, file: Place) -> bytes:
        """Return a file's content; raises FileNotFoundError where there is none."""
        ...

    def write(self, file: Place, content: bytes) -> None:
        """Write or replace one file: readers see the old content or the new."""
        ...

    def write_directory(self, directory: Place, files: Mapping[str, bytes]) -> None:
        """Write a new directory: readers see nothing or all of it.

        Args:
            directory: does not exist yet.
            files: content by path in the directory. The last one makes it whole where there is no rename.
        """
        ...

    def move(self, source: Place, target: Place) -> None:
        """Move the directory of a version to where nothing is yet."""
        ...

    def remove(self, directory: Place) -> None:
        """Remove a directory and all in it."""
        ...

    def leftovers(self) -> list[str]:
        """Where something lies that a dead publisher left; the next lock removes it."""
        ...
