"""Promises of consumer/boxes.py: what the outermost boxes say before any decoder runs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.boxes import Layout, inspect, open_mended
from consumer.errors import RecordingEncrypted, RecordingUnfinished
from consumer.media import FileMedia
from tests import clips
from tests.consumer.looks import InMemory


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, clips.KERBEROS_FRAGMENTS])
def test_a_whole_mp4_is_not_truncated(tmp_path: Path, options: dict[str, str]) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.Clip(frames=10, container_options=options))
    layout = inspect(FileMedia(path))
    assert layout.is_mp4
    assert not layout.truncated


def test_a_recording_of_which_only_the_free_box_is_there_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(RecordingUnfinished, match="no moov box"):
        inspect(FileMedia(clips.write_unfinished(tmp_path / "a.mp4")))


def test_a_file_cut_before_its_head_was_written_is_unfinished(tmp_path: Path) -> None:
    path = clips.truncate(clips.write(tmp_path / "a.mp4"), 0.5)
    with pytest.raises(RecordingUnfinished):
        inspect(FileMedia(path))


def test_an_encrypted_recording_is_told_by_its_first_eight_bytes(tmp_path: Path) -> None:
    with pytest.raises(RecordingEncrypted, match="Salted__"):
        inspect(FileMedia(clips.write_encrypted_looking(tmp_path / "a.mp4")))


@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
@pytest.mark.parametrize("options", [{"movflags": "faststart"}, clips.KERBEROS_FRAGMENTS])
def test_a_file_whose_last_box_claims_more_than_there_is_is_truncated(
    tmp_path: Path, share: float, options: dict[str, str]
) -> None:
    path = clips.truncate(clips.write(tmp_path / "a.mp4", clips.Clip(container_options=options)), share)
    assert inspect(FileMedia(path)).truncated


@pytest.mark.parametrize("data", [b"", b"<html>no such key</html>", b"\x00", b"\xff" * 100])
def test_what_is_no_mp4_is_left_to_the_demuxer(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    layout = inspect(FileMedia(path))
    assert not layout.is_mp4
    assert not layout.truncated


def test_boxes_with_64_bit_sizes_and_boxes_to_the_end_of_the_file_are_followed(tmp_path: Path) -> None:
    large = (1).to_bytes(4, "big") + b"mdat" + (24).to_bytes(8, "big") + bytes(8)
    to_the_end = (0).to_bytes(4, "big") + b"moov" + bytes(100)
    path = tmp_path / "a.mp4"
    path.write_bytes(large + to_the_end)
    layout = inspect(FileMedia(path))
    assert layout.is_mp4
    assert not layout.truncated


def test_a_box_that_claims_no_size_does_not_trap_the_walk(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes((8).to_bytes(4, "big") + b"moov" + (1).to_bytes(4, "big") + b"free" + bytes(8))
    assert inspect(FileMedia(path)).is_mp4


def _box(kind: bytes, payload: bytes) -> bytes:
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


def test_a_hole_between_boxes_is_a_gap_that_ends_where_the_next_fragment_begins() -> None:
    head, hole, tail = _box(b"ftyp", bytes(4)) + _box(b"moov", bytes(50)), bytes(33), _box(b"moof", bytes(9))
    layout = inspect(InMemory(head + hole + tail))
    assert layout.gaps == ((len(head), len(head) + len(hole)),)
    assert not layout.truncated


@given(start=st.integers(0, 60), length=st.integers(0, 60), chunk=st.integers(1, 20))
def test_a_mended_recording_reads_the_same_wherever_one_begins(start: int, length: int, chunk: int) -> None:
    data = bytes(range(60))
    mended = data[:20] + (15).to_bytes(4, "big") + b"free" + data[28:]
    with open_mended(InMemory(data), Layout(is_mp4=True, truncated=False, gaps=((20, 35),))) as file:
        file.seek(start)
        assert file.read(length) == mended[start : start + length]
        file.seek(0)
        assert b"".join(iter(lambda: file.read(chunk), b"")) == mended
