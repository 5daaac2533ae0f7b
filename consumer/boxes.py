"""Boxes: what a look at a recording's outermost MP4 boxes says before any decoder runs.

Reading on behind a damaged box is done here too: a demuxer would stop there without a word.
"""

import re
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, BinaryIO

from consumer.errors import RecordingEncrypted, RecordingUnfinished
from consumer.media import Media

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer  # exists for type checkers only

ENCRYPTED_MAGIC = b"Salted__"
"""How OpenSSL's `enc` begins; kerberos-io/agent machinery/src/encryption/main.go writes this format."""

MP4_BOXES = frozenset(
    [b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"pdin", b"uuid"]
)
_MAX_BOXES = 100_000
"""Days of three-second fragments; a file with more is hostile, and the walk stops without a verdict."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Layout:
    """What the outermost boxes say.

    is_mp4: the file begins with an MP4 box; when False, the demuxer finds out what it is.
    truncated: the last box claims more bytes than the file holds.
    gaps: byte ranges [start, stop) in which a box should begin and none does, up to the next that does.
    """

    is_mp4: bool
    truncated: bool
    gaps: tuple[tuple[int, int], ...] = ()


def inspect(media: Media) -> Layout:
    """Walk the outermost MP4 boxes (ISO/IEC 14496-12 §4.2), reading 16 bytes of each.

    A file of zero bytes is no error here: the caller skips it.

    Raises:
        RecordingEncrypted: the file begins with `Salted__`.
        RecordingUnfinished: an MP4 without `moov`: still being written, or its writer crashed.
    """
    kinds: set[bytes] = set()
    gaps: list[tuple[int, int]] = []
    offset = 0
    with media.open() as file:
        for _ in range(_MAX_BOXES):
            if offset >= media.size_bytes:
                break
            file.seek(offset)
            head = file.read(16)
            if offset == 0:
                if head.startswith(ENCRYPTED_MAGIC):
                    raise RecordingEncrypted(
                        f"{media.name} is encrypted (it begins with Salted__): set RECORDING_ENCRYPTION_KEY."
                    )
                if head[4:8] not in MP4_BOXES:
                    return Layout(is_mp4=False, truncated=False)
            size = _box_size(head, remaining=media.size_bytes - offset)
            if size is None:
                following = _next_fragment(file, offset, media.size_bytes)
                if following is None:
                    break  # padding, or what no reader could use
                gaps.append((offset, following))
                offset = following
                continue
            kinds.add(head[4:8])
            offset += size
    if kinds and b"moov" not in kinds:
        raise RecordingUnfinished(
            f"{media.name} has no moov box: it is still being written, or its writer stopped before the end."
        )
    return Layout(is_mp4=bool(kinds), truncated=offset > media.size_bytes, gaps=tuple(gaps))


def open_mended(media: Media, gaps: tuple[tuple[int, int], ...]) -> BinaryIO:
    """Open a recording so that each gap reads as a `free` box, and a demuxer goes on behind it."""
    if not gaps:
        return media.open()
    return BufferedReader(_Mended(media.open(), gaps), _CHUNK_BYTES)


class _Mended(RawIOBase):
    """A reader that lays the head of a `free` box over the beginning of each gap."""

    def __init__(self, file: BinaryIO, gaps: tuple[tuple[int, int], ...]) -> None:
        self._file = file
        self._heads = {start: (stop - start).to_bytes(4, "big") + b"free" for start, stop in gaps}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        begin = self._file.tell()
        data = bytearray(self._file.read(len(target)))
        for start, head in self._heads.items():
            for position in range(max(start, begin), min(start + len(head), begin + len(data))):
                data[position - begin] = head[position - start]
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _box_size(head: bytes, remaining: int) -> int | None:
    """Size in bytes of the box that begins with these bytes; None where no box begins."""
    size, kind = int.from_bytes(head[:4], "big"), head[4:8]
    if len(kind) < 4 or not all(0x20 <= letter < 0x7F for letter in kind):
        return None
    if size == 0:  # to the end of the file
        return remaining
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
        return size if size >= 16 else None
    return size if size >= 8 else None


def _next_fragment(file: BinaryIO, start: int, size_bytes: int) -> int | None:
    """Find where the next `moof` or `mdat` begins that fits into the file, at least 8 bytes on."""
    overlap = 8  # a box's head may lie across two chunks
    for chunk_start in range(start + 8, size_bytes, _CHUNK_BYTES):
        file.seek(chunk_start)
        chunk = file.read(_CHUNK_BYTES + overlap)
        for match in re.finditer(rb"moof|mdat", chunk):
            head = match.start() - 4
            if (
                head >= 0
                and 8 <= int.from_bytes(chunk[head : head + 4], "big") <= size_bytes - chunk_start - head
            ):
                return chunk_start + head
    return None
