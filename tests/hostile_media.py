"""Hostile media: recordings that were built to hurt whoever opens them, each a few lines of boxes.

Boxes as in ISO/IEC 14496-12; the pictures are JPEGs ('jpeg' of QuickTime), so every packet is a keyframe.
"""

import struct
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

TIMESCALE = 1000


def box(kind: bytes, *parts: bytes, size: int | None = None) -> bytes:
    """Build a box; `size` lies about it."""
    payload = b"".join(parts)
    return struct.pack(">I4s", 8 + len(payload) if size is None else size, kind) + payload


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Build a box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def nested(kind: bytes, depth: int) -> bytes:
    """Boxes of one kind, each in the next."""
    inner = b""
    for _ in range(depth):
        inner = box(kind, inner)
    return inner


@cache
def picture(width: int = 16, height: int = 16) -> bytes:
    """One grey JPEG."""
    encoded, data = cv2.imencode(".jpg", np.full((height, width, 3), 128, np.uint8))
    assert encoded
    return bytes(data)


@dataclass(frozen=True)
class Movie:
    """An MP4 of one track whose tables say what a test wants.

    frame: the data of every picture; all samples share it unless they lie in one chunk.
    samples: how many the tables count.
    one_chunk: the samples lie one behind the other, rather than each at the same place.
    sample_bytes: what the tables say of each; what `frame` has, unless given.
    width, height: what the sample entry says.
    edits, more: boxes for the track and for the `moov`.
    """

    frame: bytes = picture()
    samples: int = 10
    one_chunk: bool = False
    sample_bytes: int | None = None
    width: int = 16
    height: int = 16
    edits: bytes = b""
    more: bytes = b""

    def build(self) -> bytes:
        """Return the file: data first, so that the tables know where it lies."""
        head = box(b"ftyp", b"isom", bytes(4), b"isom")
        data = box(b"mdat", self.frame)
        return head + data + self.moov(len(head) + 8)

    def moov(self, data_offset: int) -> bytes:
        """Return the tables."""
        duration = min(self.samples, 2**20) * 40
        movie = full_box(b"mvhd", struct.pack(">4I", 0, 0, TIMESCALE, duration), bytes(80))
        track_head = full_box(
            b"tkhd",
            struct.pack(">5I", 0, 0, 1, 0, duration),
            bytes(52),
            struct.pack(">2I", 1 << 16, 1 << 16),
            flags=7,
        )
        media_head = full_box(b"mdhd", struct.pack(">4I", 0, 0, TIMESCALE, duration), bytes(4))
        handler = full_box(b"hdlr", bytes(4), b"vide", bytes(12), b"\0")
        references = box(b"dinf", full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=1)))
        information = box(b"minf", full_box(b"vmhd", bytes(8), flags=1), references, self._table(data_offset))
        media = box(b"mdia", media_head, handler, information)
        return box(b"moov", movie, box(b"trak", track_head, self.edits, media), self.more)

    def _table(self, data_offset: int) -> bytes:
        entry = box(
            b"jpeg",
            bytes(6),
            struct.pack(">H", 1),
            bytes(16),
            struct.pack(">HH", self.width, self.height),
            struct.pack(">IIIH", 0x480000, 0x480000, 0, 1),
            bytes(32),
            struct.pack(">Hh", 24, -1),
        )
        descriptions = full_box(b"stsd", struct.pack(">I", 1), entry)
        if self.samples == 0:
            empty = [full_box(kind, bytes(4)) for kind in (b"stts", b"stsc", b"stco")]
            return box(b"stbl", descriptions, full_box(b"stsz", bytes(8)), *empty)
        chunks = 1 if self.one_chunk else self.samples
        size = len(self.frame) if self.sample_bytes is None else self.sample_bytes
        return box(
            b"stbl",
            descriptions,
            full_box(b"stts", struct.pack(">3I", 1, self.samples, 40)),
            full_box(b"stsc", struct.pack(">4I", 1, 1, self.samples // chunks, 1)),
            full_box(b"stsz", struct.pack(">2I", size, self.samples)),
            full_box(b"stco", struct.pack(">I", chunks), struct.pack(">I", data_offset) * chunks),
        )


def fragmented(samples_of_each: int, fragments: int = 1) -> bytes:
    """Build a fragmented MP4 whose `trun` boxes count samples of one size and say no more of them."""
    defaults = box(b"mvex", full_box(b"trex", struct.pack(">5I", 1, 1, 40, 1, 0)))
    file = box(b"ftyp", b"iso5", bytes(4), b"iso5") + Movie(samples=0, more=defaults).moov(0)
    track = full_box(b"tfhd", struct.pack(">I", 1), flags=0x20000)  # offsets count from the fragment's start
    for number in range(fragments):
        run = full_box(b"trun", struct.pack(">Ii", samples_of_each, 0), flags=1)
        sequence = full_box(b"mfhd", struct.pack(">I", number + 1))
        file += box(b"moof", sequence, box(b"traf", track, run)) + box(b"mdat", picture())
    return file
