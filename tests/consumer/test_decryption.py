"""Promises of consumer/decryption.py: an encrypted recording reads as the plain one did, anywhere in it."""

import os
import random
import tracemalloc
from io import SEEK_CUR, SEEK_END
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.decryption import key_and_iv, unlock
from consumer.errors import DecryptionFailed, RecordingEncrypted, RecordingUndecodable
from consumer.media import FileMedia, Media
from tests import clips
from tests.clips import Clip
from tests.consumer.looks import InMemory, look_at

KEY = "a passphrase, with ünïcode"


def _encrypted(tmp_path: Path, plain: bytes, passphrase: str = KEY) -> FileMedia:
    path = tmp_path / "a.mp4"
    path.write_bytes(plain)
    return FileMedia(clips.encrypt(path, passphrase))


def _like_a_video(size_bytes: int) -> bytes:
    return b"\x00\x00\x00\x08free" + os.urandom(max(0, size_bytes - 8))


def _read(media: Media) -> bytes:
    with media.open() as file:
        return file.read()


@pytest.mark.parametrize("size_bytes", [8, 15, 16, 17, 31, 32, 33, 100_000, 131_072, 3_000_001])
def test_what_openssl_encrypted_reads_as_it_was(tmp_path: Path, size_bytes: int) -> None:
    plain = _like_a_video(size_bytes)
    media = unlock(_encrypted(tmp_path, plain), KEY)
    assert media.size_bytes == len(plain)
    assert _read(media) == plain


def test_key_and_iv_are_those_that_openssl_derives() -> None:
    # openssl enc -aes-256-cbc -md md5 -P -S 0102030405060708 -pass pass:secret  (OpenSSL 3.0.19)
    key, iv = key_and_iv(b"secret", bytes.fromhex("0102030405060708"))
    assert key.hex().upper() == "C9E5A1BD216DBE1317E230CEF48F38EE7F0E17AD64022144BCCEC4A1AA2879AB"
    assert iv.hex().upper() == "E24B32BBBC4EF02ECBCB6576523AD893"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size_bytes=st.sampled_from([8, 100, 32_768, 100_000]),
    steps=st.lists(st.tuples(st.integers(0, 100_100), st.integers(0, 70_000)), min_size=1, max_size=8),
)
def test_it_reads_the_same_wherever_one_begins(
    tmp_path: Path, size_bytes: int, steps: list[tuple[int, int]]
) -> None:
    path = tmp_path / f"{size_bytes}.mp4"
    plain = b"\x00\x00\x00\x08free" + random.Random(size_bytes).randbytes(size_bytes - 8)
    if not path.exists():
        path.write_bytes(plain)
        clips.encrypt(path, KEY)
    with unlock(FileMedia(path), KEY).open() as file:
        for start, length in steps:
            assert file.seek(start) == start
            assert file.read(length) == plain[start : start + length]
            assert file.tell() == max(start, min(start + length, size_bytes))


def test_one_may_seek_from_here_and_from_the_end_and_not_before_the_beginning(tmp_path: Path) -> None:
    plain = _like_a_video(1000)
    with unlock(_encrypted(tmp_path, plain), KEY).open() as file:
        assert file.seek(-100, SEEK_END) == 900
        assert file.read(10) == plain[900:910]
        assert file.seek(-20, SEEK_CUR) == 890
        assert file.read(5) == plain[890:895]
        with pytest.raises(OSError, match="Invalid argument"):
            file.seek(-1001, SEEK_END)


def test_readers_of_one_recording_do_not_disturb_each_other(tmp_path: Path) -> None:
    plain = _like_a_video(100_000)
    media = unlock(_encrypted(tmp_path, plain), KEY)
    with media.open() as one, media.open() as other:
        one.seek(50_000)
        assert other.read(100) == plain[:100]
        assert one.read(100) == plain[50_000:50_100]


def test_a_large_recording_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    size_bytes = 32 * 1024 * 1024
    media = _encrypted(tmp_path, _like_a_video(size_bytes))
    tracemalloc.start()
    try:
        read_bytes = 0
        with unlock(media, KEY).open() as file:
            while piece := file.read(65_536):
                read_bytes += len(piece)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read_bytes == size_bytes
    assert peak_bytes < size_bytes / 32


def test_an_encrypted_clip_gives_the_frames_of_the_plain_one(tmp_path: Path) -> None:
    path = clips.write_kerberos_like(tmp_path / "a.mp4", Clip())
    plain = look_at(FileMedia(path), 5)
    seen = look_at(unlock(FileMedia(clips.encrypt(path, KEY)), KEY), 5)
    assert [(f.index, f.number, f.time_seconds) for f in seen.frames] == [
        (f.index, f.number, f.time_seconds) for f in plain.frames
    ]
    assert (seen.ledger, seen.partial, len(seen.frames)) == (plain.ledger, (), 5)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "flv", "ts", "asf"])
def test_a_right_key_is_told_by_the_beginning_of_every_container_that_we_open(
    tmp_path: Path, ending: str
) -> None:
    path = clips.write(
        tmp_path / f"a.{ending}", Clip(frames=5, codec="mpeg4" if ending == "asf" else "libx264")
    )
    assert len(look_at(unlock(FileMedia(clips.encrypt(path, KEY)), KEY), 2).frames) == 2


def test_what_is_not_encrypted_is_left_as_it_is(tmp_path: Path) -> None:
    media = FileMedia(clips.write(tmp_path / "a.mp4", Clip(frames=2)))
    assert unlock(media, KEY) is media


@pytest.mark.parametrize(
    "data", [b"", b"Salted", b"\x00\x00\x00\x18ftypSalted__"], ids=["empty", "short", "mp4"]
)
def test_only_the_first_eight_bytes_say_that_a_recording_is_encrypted(data: bytes) -> None:
    media = InMemory(data)
    assert unlock(media, KEY) is media


def test_without_a_key_the_recording_is_named_encrypted(tmp_path: Path) -> None:
    path = clips.encrypt(clips.write(tmp_path / "a.mp4", Clip(frames=2)), KEY)
    with pytest.raises(RecordingEncrypted, match="set RECORDING_ENCRYPTION_KEY"):
        look_at(unlock(FileMedia(path), None), 1)


def test_a_wrong_key_is_told_in_every_one_of_many_recordings(tmp_path: Path) -> None:
    plain = clips.write(tmp_path / "a.mp4", Clip(frames=2)).read_bytes()
    media = _encrypted(tmp_path, plain)
    for number in range(600):  # the padding alone would pass two or three of them
        with pytest.raises(DecryptionFailed, match="give the key of the agent"):
            unlock(media, f"wrong {number}")


def test_an_error_does_not_say_the_key(tmp_path: Path) -> None:
    media = _encrypted(tmp_path, _like_a_video(100))
    with pytest.raises(DecryptionFailed) as failed:
        unlock(media, "canary-passphrase")
    assert "canary-passphrase" not in str(failed.value)


def test_an_encrypted_recording_of_zero_bytes_is_one_of_zero_bytes(tmp_path: Path) -> None:
    assert unlock(_encrypted(tmp_path, b""), KEY).size_bytes == 0


def test_what_was_encrypted_twice_is_not_decrypted_twice(tmp_path: Path) -> None:
    inner = _encrypted(tmp_path, _like_a_video(100))
    twice = FileMedia(clips.encrypt(inner.path, KEY))
    with pytest.raises(RecordingEncrypted, match="encrypted twice"):
        unlock(twice, KEY)


@pytest.mark.parametrize("lost_bytes", [1, 5, 16, 17, 2_000, 2_003])
def test_a_truncated_encrypted_recording_is_partial(tmp_path: Path, lost_bytes: int) -> None:
    path = clips.write_kerberos_like(tmp_path / "a.mp4", Clip())
    path.write_bytes(
        path.read_bytes()[:-100]
    )  # the index at the end, which nobody needs, must not hide the cut
    plain_bytes = path.stat().st_size
    data = clips.encrypt(path, KEY).read_bytes()
    path.write_bytes(data[:-lost_bytes])
    media = unlock(FileMedia(path), KEY)
    assert plain_bytes - lost_bytes - 16 <= media.size_bytes <= plain_bytes
    seen = look_at(media, 5)
    assert "truncated" in seen.partial
    assert seen.ledger.packets is None
    assert len(seen.frames) >= 4
    assert [frame.number for frame in seen.frames] == [frame.index for frame in seen.frames]


def test_a_damaged_end_does_not_make_a_right_key_wrong(tmp_path: Path) -> None:
    path = clips.encrypt(clips.write_kerberos_like(tmp_path / "a.mp4", Clip()), KEY)
    data = path.read_bytes()
    path.write_bytes(data[:-16] + bytes(16))
    assert len(look_at(unlock(FileMedia(path), KEY), 5).frames) == 5


@pytest.mark.parametrize("size_bytes", [8, 15, 16, 17, 31])
def test_what_is_cut_off_before_its_first_block_is_undecodable(size_bytes: int) -> None:
    with pytest.raises(RecordingUndecodable, match="cut off before its first block"):
        unlock(InMemory((b"Salted__" + bytes(100))[:size_bytes]), KEY)


def test_a_recording_whose_file_shrinks_while_it_is_read_ends_there(tmp_path: Path) -> None:
    media = unlock(encrypted := _encrypted(tmp_path, _like_a_video(100_000)), KEY)
    with media.open() as file:
        file.read(10)
        os.truncate(encrypted.path, 50_000)
        file.seek(90_000)
        assert file.read(100) == b""
