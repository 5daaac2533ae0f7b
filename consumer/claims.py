"""Claims: how many samples an MP4's tables count, found before a demuxer believes them.

A table of twenty bytes can count four thousand million samples of one size (`stsz`, `stz2`, `trun`; ISO/IEC
14496-12 §8.7.3 and §8.8.8), and libav makes room for every one of them before it looks for the first.
"""

import re
from typing import BinaryIO

from consumer.errors import RecordingUndecodable

MAX_SAMPLES = 4_000_000
"""Of all tracks of a recording: 37 hours of 30 pictures a second; 0.8 GB while they are read through."""

_COUNTING = re.compile(rb"stsz|stz2|trun|cmov")
"""libav takes tables out of many kinds of boxes, ten levels deep; so the bytes are searched for them."""
_COUNT_AFTER = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Bytes between the kind of a box and its count of samples."""
_CHUNK_BYTES = 1 << 20
_OVERLAP_BYTES = 32
"""Of two chunks: a table's size, kind and count may lie across them."""


def claimed_samples(file: BinaryIO, start: int, stop: int, name: str) -> int:
    """Return how many samples the tables in [start, stop) of a file count.

    Raises:
        RecordingUndecodable: the tables are compressed (`cmov`), so that nobody can say how large they are.
    """
    samples = 0
    for chunk_start in range(start, stop, _CHUNK_BYTES):
        file.seek(chunk_start)
        chunk = file.read(min(_CHUNK_BYTES + _OVERLAP_BYTES, stop - chunk_start))
        for match in _COUNTING.finditer(chunk):
            if not 4 <= match.start() < _CHUNK_BYTES + 4 or not _is_size(
                chunk[match.start() - 4 : match.start()]
            ):
                continue  # of the next chunk, or chance
            kind = match.group()
            if kind == b"cmov":
                raise RecordingUndecodable(
                    f"{name} has compressed tables (a cmov box), which are not opened."
                )
            at = match.end() + _COUNT_AFTER[kind]
            samples += int.from_bytes(chunk[at : at + 4], "big")
    return samples


def _is_size(before: bytes) -> bool:
    """Whether a box can be of this size: 0 and 1 have a meaning of their own, 2 to 7 have none."""
    return int.from_bytes(before, "big") not in range(2, 8)
