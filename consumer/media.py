"""Media: the bytes of a recording, and what a look at its outermost boxes says before any decoder runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from consumer.errors import RecordingEncrypted, RecordingUnfinished

_ENCRYPTED_MAGIC = b"Salted__"
"""How OpenSSL's `enc` begins; kerberos-io/agent machinery/src/encryption/main.go writes this format."""

_MP4_BOXES = frozenset(
    [b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"pdin", b"uuid"]
)
_MAX_BOXES = 100_000
"""Days of three-second fragments; a file with more is hostile, and the walk stops without a verdict."""


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


@dataclass(frozen=True)
class Layout:
    """What the outermost boxes say.

    is_mp4: the file begins with an MP4 box; when False, the demuxer finds out what it is.
    truncated: the last box claims more bytes than the file holds.
    """

    is_mp4: bool
    truncated: bool


def inspect(media: Media) -> Layout:
    """Walk the outermost MP4 boxes (ISO/IEC 14496-12 §4.2), reading 16 bytes of each.

    A file of zero bytes is no error here: the caller skips it.

    Raises:
        RecordingEncrypted: the file begins with `Salted__`.
        RecordingUnfinished: an MP4 without `moov`: still being written, or its writer crashed.
    """
    kinds: set[bytes] = set()
    offset = 0
    with media.open() as file:
        for _ in range(_MAX_BOXES):
            if offset >= media.size_bytes:
                break
            file.seek(offset)
            head = file.read(16)
            if offset == 0:
                if head.startswith(_ENCRYPTED_MAGIC):
                    raise RecordingEncrypted(
                        f"{media.name} is encrypted (it begins with Salted__) and no key for it is held here."
                    )
                if head[4:8] not in _MP4_BOXES:
                    return Layout(is_mp4=False, truncated=False)
            size = _box_size(head, remaining=media.size_bytes - offset)
            if size is None:
                break
            kinds.add(head[4:8])
            offset += size
    if kinds and b"moov" not in kinds:
        raise RecordingUnfinished(
            f"{media.name} has no moov box: it is still being written, or its writer stopped before the end."
        )
    return Layout(is_mp4=bool(kinds), truncated=offset > media.size_bytes)


def _box_size(head: bytes, remaining: int) -> int | None:
    """Size in bytes of the box that begins with these bytes; None where no box begins."""
    size = int.from_bytes(head[:4], "big")
    if len(head) < 8 or not head[4:8].isascii():
        return None
    if size == 0:  # to the end of the file
        return remaining
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
        return size if size >= 16 else None
    return size if size >= 8 else None
