"""Decryption: a recording that an agent encrypted, as media that decrypts what is read of it.

The format is OpenSSL's own: `Salted__`, 8 bytes of salt, AES-256-CBC with PKCS#7 padding; key and IV by
EVP_BytesToKey with MD5 and one round (kerberos-io/agent machinery/src/encryption/main.go; docs.openssl.org
man3/EVP_BytesToKey). In CBC a block needs only the ciphertext block before it, so reading anywhere is cheap,
and neither the whole file is held in memory nor anything decrypted written to a disk.
"""

import errno
import hashlib
import io
import os
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from consumer.boxes import ENCRYPTED_MAGIC, MP4_BOXES
from consumer.errors import DecryptionFailed, RecordingEncrypted, RecordingUndecodable
from consumer.media import Media

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer  # exists for type checkers only

_SALT_BYTES = 8
_HEAD_BYTES = len(ENCRYPTED_MAGIC) + _SALT_BYTES
_BLOCK_BYTES = 16
_BUFFER_BYTES = 32 * 1024
_MOST_AT_ONCE_BYTES = 1 << 20
"""Of one read, so that a reader who asks for everything does not get it in one piece."""

_MATROSKA = b"\x1a\x45\xdf\xa3"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_TS_PACKET_BYTES = (188, 192)
_TS_SYNC = 0x47
_TELLING_BYTES = 4 + 192 + 1
"""So much of a file's beginning tells all containers that we open."""


def unlock(media: Media, passphrase: str | None) -> Media:
    """Return the recording as its camera wrote it: decrypted where it is encrypted and we hold a key.

    Without a key, and where the file does not begin with `Salted__`, it is returned as it is. What was
    encrypted twice is not decrypted twice.

    Raises:
        DecryptionFailed: what the key makes of it does not begin as a video does.
        RecordingEncrypted: it is encrypted once more inside.
        RecordingUndecodable: it is cut off before its first block.
    """
    if passphrase is None:
        return media
    with media.open() as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(ENCRYPTED_MAGIC):
        return media
    blocks = (media.size_bytes - _HEAD_BYTES) // _BLOCK_BYTES
    if blocks < 1:
        raise RecordingUndecodable(f"{media.name} is encrypted and cut off before its first block.")
    key, iv = key_and_iv(passphrase.encode(), head[len(ENCRYPTED_MAGIC) :])
    padded = DecryptedMedia(media, key, iv, size_bytes=blocks * _BLOCK_BYTES)
    padding_bytes = _padding_bytes(padded, cut_off=media.size_bytes % _BLOCK_BYTES > 0)
    decrypted = DecryptedMedia(media, key, iv, size_bytes=padded.size_bytes - padding_bytes)
    with decrypted.open() as plain:
        beginning = plain.read(_TELLING_BYTES)
    if beginning.startswith(ENCRYPTED_MAGIC):
        raise RecordingEncrypted(
            f"{media.name} was encrypted twice (behind our key it begins with Salted__ again): decrypt it "
            "once and store it again."
        )
    if beginning and not _begins_like_a_video(beginning):
        raise DecryptionFailed(
            f"What RECORDING_ENCRYPTION_KEY makes of {media.name} is no video: give the key of the agent "
            "that encrypted it."
        )
    return decrypted


def key_and_iv(passphrase: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """Derive key (32 bytes) and IV (16 bytes) as EVP_BytesToKey does: D_i = MD5(D_(i-1) + P + S)."""
    derived = digest = b""
    while len(derived) < 48:
        # The agents chose MD5; that the flag says otherwise keeps hosts in FIPS mode from refusing it.
        digest = hashlib.md5(digest + passphrase + salt, usedforsecurity=False).digest()
        derived += digest
    return derived[:32], derived[32:48]


class DecryptedMedia:
    """An encrypted recording as it was before; nothing is decrypted but what is read."""

    def __init__(self, media: Media, key: bytes, iv: bytes, size_bytes: int) -> None:
        self.name = media.name
        self.size_bytes = size_bytes
        self._media = media
        self._key = algorithms.AES(key)
        self._iv = iv

    def open(self) -> BinaryIO:
        """Open the recording for reading."""
        reader = _Reader(self._media.open(), self._key, self._iv, self.size_bytes)
        return BufferedReader(reader, _BUFFER_BYTES)


class _Reader(RawIOBase):
    def __init__(self, file: BinaryIO, key: algorithms.AES, iv: bytes, size_bytes: int) -> None:
        self._file = file
        self._key = key
        self._iv = iv
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if begin + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = begin + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self._size_bytes - self._position, _MOST_AT_ONCE_BYTES)
        if wanted <= 0:
            return 0
        first, skipped = divmod(self._position, _BLOCK_BYTES)
        stop = -(-(self._position + wanted) // _BLOCK_BYTES)
        plain = self._decrypt(first, stop)[skipped : skipped + wanted]
        target[: len(plain)] = plain
        self._position += len(plain)
        return len(plain)

    def _decrypt(self, first: int, stop: int) -> bytes:
        """Decrypt the blocks [first, stop)."""
        before = max(0, first - 1)
        self._file.seek(_HEAD_BYTES + before * _BLOCK_BYTES)
        iv = self._file.read(_BLOCK_BYTES) if first > 0 else self._iv
        ciphertext = self._file.read((stop - first) * _BLOCK_BYTES)
        whole_bytes = len(ciphertext) // _BLOCK_BYTES * _BLOCK_BYTES
        if whole_bytes == 0:
            return b""  # the file has become shorter than it was
        cipher = Cipher(self._key, modes.CBC(iv)).decryptor()
        return cipher.update(ciphertext[:whole_bytes]) + cipher.finalize()

    def close(self) -> None:
        self._file.close()
        super().close()


def _padding_bytes(media: DecryptedMedia, *, cut_off: bool) -> int:
    """Return how many of the last bytes are padding: none where it went with the file's end."""
    if cut_off:
        return 0
    with media.open() as file:
        file.seek(-_BLOCK_BYTES, io.SEEK_END)
        last = file.read()
    unpadder = PKCS7(_BLOCK_BYTES * 8).unpadder()
    try:
        return _BLOCK_BYTES - len(unpadder.update(last) + unpadder.finalize())
    except ValueError:  # cut off between two blocks; or another key, which the beginning shows
        return 0


def _begins_like_a_video(beginning: bytes) -> bool:
    """Whether these bytes begin one of the containers that consumer/packets.py opens.

    Another key passes for right in one of some million files: the weakest signs are three or four bytes.
    """
    return (
        beginning[4:8] in MP4_BOXES
        or beginning.startswith((_MATROSKA, _ASF, b"FLV\x01"))
        or (beginning.startswith(b"RIFF") and beginning[8:11] == b"AVI")
        or any(_is_transport_stream(beginning, packet_bytes) for packet_bytes in _TS_PACKET_BYTES)
    )


def _is_transport_stream(beginning: bytes, packet_bytes: int) -> bool:
    start = packet_bytes - min(_TS_PACKET_BYTES)  # four bytes of time stand before each packet of 192
    return [beginning[at : at + 1] for at in (start, start + packet_bytes)] == [bytes([_TS_SYNC])] * 2
