"""Media: the bytes of a recording, wherever they lie."""

from pathlib import Path
from typing import BinaryIO, Protocol


class Media(Protocol):
    """A recording's bytes, wherever they lie; nothing behind it may assume that all of them are local."""

    @property
    def name(self) -> str:
        """What people call the recording: the key in Vault, or the file's name."""
        ...

    @property
    def size_bytes(self) -> int:
        """Length of the whole recording."""
        ...

    def open(self) -> BinaryIO:
        """Give a new, independent, seekable reader at position 0; the caller closes it."""
        ...


class FileMedia:
    """A recording in a local file."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name if name is not None else path.name
        self.size_bytes = path.stat().st_size

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        return self.path.open("rb")
