"""Fuzz targets: what must hold for any bytes at all. Each takes bytes and raises where it does not hold."""

import base64
import json
import random
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO, cast

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from consumer import boxes as box_walker
from consumer.dead_letter import build_dead_letter
from consumer.decryption import DecryptedMedia, key_and_iv, unlock
from consumer.errors import EventMalformed, NeverHeals, RecordingError
from consumer.events import MAX_ENTRIES, MAX_KEY_BYTES, MAX_SOURCE_BYTES, MalformedEvent, parse_message
from consumer.messages import Position

CANARY = b"canary-in-a-coal-mine"
"""A secret of ours. Seeds of the events carry it, so that mutations of them do."""
POSITION = Position("events", 0, 7)
LARGEST_LETTER_BYTES = 20_000


def events(data: bytes) -> None:
    """Any message has an outcome for each of its entries, and no dead letter of it shows our secret."""
    entries = parse_message(data)
    assert 1 <= len(entries) <= MAX_ENTRIES
    assert [entry.index for entry in entries] == list(range(len(entries)))
    for entry in entries:
        error: NeverHeals
        if isinstance(entry, MalformedEvent):
            error, payload = entry.error, entry.payload
            assert isinstance(error, EventMalformed)
            assert str(error).endswith(".")
            assert len(str(error)) < 500
            assert len(payload) <= len(data)
        else:
            assert entry.key or entry.skip_reason in ("tombstone", "empty_list")
            assert len(entry.key.encode()) <= MAX_KEY_BYTES
            assert len(entry.source.encode()) <= MAX_SOURCE_BYTES
            assert "\n" not in entry.key + entry.source
            error, payload = NeverHeals("It was fuzzed."), json.dumps(dict(entry.raw)).encode()
        letter = build_dead_letter(
            payload,
            error,
            POSITION,
            destination="dead",
            attempts=1,
            max_bytes=LARGEST_LETTER_BYTES,
            secrets=(CANARY.decode(),),
        )
        assert letter.size_bytes <= LARGEST_LETTER_BYTES
        assert CANARY not in letter.value
        assert CANARY not in base64.b64decode(json.loads(letter.value)["payload"])


def boxes(data: bytes) -> None:
    """Any file is walked in a bounded number of reads; what is mended reads as the file does, gaps aside."""
    media = _Counted(data)
    try:
        layout = box_walker.inspect(media)
    except RecordingError as error:
        assert media.name in str(error)
        return
    finally:
        assert media.reads <= len(data) // 4 + 10  # a box has at least 8 bytes, and is read twice
    hidden = [*layout.gaps, *([] if layout.tail is None else [(layout.tail, len(data))])]
    edges = [0, *(edge for place in hidden for edge in place), len(data)]
    assert edges == sorted(edges)
    assert layout.is_mp4 or not hidden
    with box_walker.open_mended(media, layout) as file:
        mended = file.read()
        assert len(mended) == len(data)
        for place in range(len(data)):
            if mended[place] != data[place]:
                assert any(start <= place < min(stop, start + 16) for start, stop in hidden), place
        _check_reads(file, mended, seed=len(data))


def decryption(data: bytes) -> None:
    """Any ciphertext reads as if it had been decrypted at once, and any plaintext as it was before."""
    passphrase = "a passphrase"
    salt, body = data[:8].ljust(8, b"\0"), data[8:]
    key, iv = key_and_iv(passphrase.encode(), salt)
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv))

    # As ciphertext, of which nothing need make sense.
    whole = body[: len(body) // 16 * 16]
    decryptor = cipher.decryptor()
    at_once = decryptor.update(whole) + decryptor.finalize()
    media = _Counted(b"Salted__" + salt + body)
    with DecryptedMedia(media, key, iv, size_bytes=len(at_once)).open() as file:
        assert file.read() == at_once
        _check_reads(file, at_once, seed=len(data))
    try:
        unlocked = unlock(media, passphrase)
    except NeverHeals as error:
        assert media.name in str(error)
    else:
        with unlocked.open() as file:
            assert file.read() == at_once[: unlocked.size_bytes]

    # As plaintext: encrypted, and then cut off at any place.
    plain = b"\0\0\0\x08free" + body
    padder, encryptor = PKCS7(128).padder(), cipher.encryptor()
    padded = padder.update(plain) + padder.finalize()
    encrypted = b"Salted__" + salt + encryptor.update(padded) + encryptor.finalize()
    with unlock(_Counted(encrypted), passphrase).open() as file:
        assert file.read() == plain
        _check_reads(file, plain, seed=len(data))
    cut_off = encrypted[: random.Random(body).randrange(32, len(encrypted) + 1)]
    with unlock(_Counted(cut_off), passphrase).open() as file:
        assert padded.startswith(file.read())


TARGETS: dict[str, Callable[[bytes], None]] = {"events": events, "boxes": boxes, "decryption": decryption}


class _Counted:
    """A recording in memory that counts how often it is read."""

    name = "fuzzed.mp4"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.reads = 0

    def open(self) -> BinaryIO:
        return cast(BinaryIO, _CountedFile(self))  # BytesIO is one to read from, for all that is called here

    def contents(self) -> bytes:
        return self._data


class _CountedFile(BytesIO):
    def __init__(self, media: _Counted) -> None:
        super().__init__(media.contents())
        self._media = media

    def read(self, size: int | None = -1) -> bytes:
        self._media.reads += 1
        return super().read(size)


def _check_reads(file: BinaryIO, whole: bytes, seed: int) -> None:
    """Read here and there; the same input reads at the same places."""
    places = random.Random(seed)
    for _ in range(8):
        start, length = places.randrange(len(whole) + 20), places.randrange(100)
        file.seek(start)
        assert file.read(length) == whole[start : start + length]
