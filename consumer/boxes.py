"""Boxes: what a look at a recording's outermost MP4 boxes says before any decoder runs.

Reading on behind a damaged box is done here too: a demuxer would stop there without a word.
"""

import re
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, BinaryIO

from consumer.claims import MAX_SAMPLES, claimed_samples
from consumer.errors import RecordingEncrypted, RecordingTooLarge, RecordingUnfinished
from consumer.media import Media

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer  # exists for type checkers only

ENCRYPTED_MAGIC = b"Salted__"
"""How OpenSSL's `enc` begins; kerberos-io/agent machinery/src/encryption/main.go writes this format."""

MP4_BOXES = frozenset(
    [b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"pdin", b"uuid"]
)
MAX_BOXES = 1_000_000
"""Two weeks of three-second fragments, or nine hours of a fragment for each picture."""
MAX_GAPS = 1000
"""Damaged places that are stepped over; what lies behind the last of them is not looked at."""
_SEARCH_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class Layout:
    """What the outermost boxes say.

    is_mp4: the file begins with an MP4 box; when False, the demuxer finds out what it is.
    truncated: the last box claims more bytes than the file holds.
    gaps: byte ranges [start, stop) in which a box should begin and none does, up to the next that does.
    tail: where the last bytes begin in which nothing was found to read; None where there are none.
    """

    is_mp4: bool
    truncated: bool
    gaps: tuple[tuple[int, int], ...] = ()
    tail: int | None = None


def inspect(media: Media) -> Layout:
    """Walk the outermost MP4 boxes (ISO/IEC 14496-12 §4.2), reading 16 bytes of each.

    A file of zero bytes is no error here: the caller skips it.

    Raises:
        RecordingEncrypted: the file begins with `Salted__`.
        RecordingUnfinished: an MP4 without `moov`: still being written, or its writer crashed.
        RecordingTooLarge: more than MAX_BOXES boxes, or tables that count more than MAX_SAMPLES samples.
        RecordingUndecodable: tables that cannot be read without unpacking them.
    """
    kinds: set[bytes] = set()
    gaps: list[tuple[int, int]] = []
    tail: int | None = None
    offset = boxes = samples = 0
    with media.open() as file:
        while offset < media.size_bytes:
            boxes += 1
            if boxes > MAX_BOXES:
                raise RecordingTooLarge(
                    f"{media.name} has more than {MAX_BOXES} boxes: it is not read through."
                )
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
                following = _next_fragment(file, offset, media.size_bytes) if len(gaps) < MAX_GAPS else None
                if following is None:  # padding, or what no reader could use
                    tail = offset
                    break
                gaps.append((offset, following))
                offset = following
                continue
            kinds.add(head[4:8])
            if head[4:8] != b"mdat":
                stop = min(offset + size, media.size_bytes)
                samples += claimed_samples(file, offset, stop, media.name)
                if samples > MAX_SAMPLES:
                    raise RecordingTooLarge(
                        f"{media.name} claims to hold {samples} samples; at most {MAX_SAMPLES} are read."
                    )
            offset += size
    if kinds and b"moov" not in kinds:
        raise RecordingUnfinished(
            f"{media.name} has no moov box: it is still being written, or its writer stopped before the end."
        )
    return Layout(
        is_mp4=bool(kinds),
        truncated=offset > media.size_bytes,
        gaps=tuple(gaps),
        tail=tail if kinds else None,
    )


def open_mended(media: Media, layout: Layout) -> BinaryIO:
    """Open a recording so that a demuxer sees the boxes that the walk saw: all else reads as `free` boxes."""
    hidden = layout.gaps
    if layout.tail is not None and media.size_bytes - layout.tail >= 8:
        hidden += ((layout.tail, media.size_bytes),)
    if not hidden:
        return media.open()
    return BufferedReader(_Mended(media.open(), hidden), _BUFFER_BYTES)


class _Mended(RawIOBase):
    """A reader that lays the head of a `free` box over the beginning of each gap."""

    def __init__(self, file: BinaryIO, hidden: tuple[tuple[int, int], ...]) -> None:
        self._file = file
        self._heads = {start: _free_head(stop - start) for start, stop in hidden}

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


def _free_head(size_bytes: int) -> bytes:
    if size_bytes < 1 << 32:
        return size_bytes.to_bytes(4, "big") + b"free"
    return (1).to_bytes(4, "big") + b"free" + size_bytes.to_bytes(8, "big")


def _next_fragment(file: BinaryIO, start: int, size_bytes: int) -> int | None:
    """Find where the next `moof` or `mdat` begins that fits into the file, at least 8 bytes on."""
    overlap = 8  # a box's head may lie across two chunks
    for chunk_start in range(start + 8, size_bytes, _SEARCH_BYTES):
        file.seek(chunk_start)
        chunk = file.read(_SEARCH_BYTES + overlap)
        for match in re.finditer(rb"moof|mdat", chunk):
            head = match.start() - 4
            if (
                head >= 0
                and 8 <= int.from_bytes(chunk[head : head + 4], "big") <= size_bytes - chunk_start - head
            ):
                return chunk_start + head
    return None
