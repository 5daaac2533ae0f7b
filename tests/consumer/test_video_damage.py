"""Promises of consumer/video.py on awkward recordings: what can be decoded is found, all is accounted."""

import re
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.errors import (
    RecordingEncrypted,
    RecordingError,
    RecordingUndecodable,
    RecordingUnfinished,
)
from tests import clips
from tests.clips import Clip
from tests.consumer.looks import look


def test_a_truncated_file_is_partial_and_what_is_there_is_looked_at(tmp_path: Path) -> None:
    clip = Clip(container_options={"movflags": "faststart"})
    seen = look(clips.truncate(clips.write(tmp_path / "a.mp4", clip), 0.7), 5)
    assert [frame.number for frame in seen.frames] == [frame.index for frame in seen.frames]
    assert len(seen.frames) == 5
    assert seen.partial == ("truncated",)
    assert seen.ledger.packets is None
    assert "truncated" in str(seen.ledger.packets_reason)


def test_a_truncated_fragmented_file_is_partial(tmp_path: Path) -> None:
    seen = look(clips.truncate(clips.write_kerberos_like(tmp_path / "a.mp4", Clip()), 0.7), 5)
    assert [frame.number for frame in seen.frames] == [frame.index for frame in seen.frames]
    assert len(seen.frames) == 5
    assert seen.partial == ("truncated",)


@pytest.mark.parametrize("zeros", [False, True], ids=["noise", "zeros"])
def test_of_80_pictures_with_4_damaged_the_other_76_are_found(tmp_path: Path, zeros: bool) -> None:
    path = clips.write(tmp_path / "a.mp4", Clip(keyframe_every=1000))
    seen = look(clips.damage(path, [36, 37, 38, 39], zeros=zeros), 80)
    assert [frame.index for frame in seen.frames] == [n for n in range(80) if not 36 <= n < 40]
    assert (seen.ledger.decoded, seen.ledger.undecodable) == (76, 4)
    assert seen.partial == ("undecodable_packets", "missing_stretches")


def test_a_damaged_frame_is_replaced_by_another_of_the_same_stretch(tmp_path: Path) -> None:
    path = clips.damage(clips.write(tmp_path / "a.mp4", Clip(keyframe_every=1000)), [37, 38, 39, 40, 41])
    seen = look(path, 5)
    assert [frame.index * 5 // 80 for frame in seen.frames] == [0, 1, 2, 3, 4]
    assert seen.frames[2].index in (36, 42)
    assert seen.partial == ("undecodable_packets",)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_damaged_keyframe_is_replaced_by_another_picture_of_the_same_stretch(
    tmp_path: Path, codec: str
) -> None:
    path = clips.damage(clips.write(tmp_path / "a.mp4", Clip(codec=codec)), [40])
    seen = look(path, 5)
    assert [frame.index * 5 // 80 for frame in seen.frames] == [0, 1, 2, 3, 4]
    assert [frame.number for frame in seen.frames] == [frame.index for frame in seen.frames]
    assert "undecodable_packets" in seen.partial


def test_what_builds_on_a_damaged_keyframe_is_not_taken_for_a_picture(tmp_path: Path) -> None:
    path = clips.damage(clips.write(tmp_path / "a.mp4", Clip(codec="libx265")), [20])
    seen = look(path, 20)
    for frame in seen.frames:
        assert frame.number == frame.index


def test_a_zeroed_hole_costs_only_what_lies_in_it(tmp_path: Path) -> None:
    path = clips.write_kerberos_like(tmp_path / "a.mp4", Clip(keyframe_every=10))
    seen = look(clips.damage(path, range(41, 60), zeros=True), 16)
    assert {frame.index * 16 // 80 for frame in seen.frames} >= {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15}
    assert [frame.number for frame in seen.frames] == [frame.index for frame in seen.frames]
    assert "missing_stretches" in seen.partial


@pytest.mark.parametrize("zeros", [False, True], ids=["noise", "zeros"])
def test_a_hole_over_a_fragments_head_costs_that_fragment_and_not_the_rest(
    tmp_path: Path, zeros: bool
) -> None:
    path = clips.write_kerberos_like(tmp_path / "a.mp4", Clip(keyframe_every=10))
    data = bytearray(path.read_bytes())
    third = [match.start() - 4 for match in re.finditer(rb"moof", data)][2]
    data[third - 30 : third + 40] = bytes(70) if zeros else np.random.default_rng(3).bytes(70)
    path.write_bytes(data)
    seen = look(path, 80)
    numbers = {frame.number for frame in seen.frames}
    assert numbers >= {*range(19), *range(30, 80)}  # the hole also cuts off the end of packet 19
    assert not numbers & set(range(20, 30))
    assert "damaged_boxes" in seen.partial
    assert seen.ledger.packets is None
    assert "boxes" in str(seen.ledger.packets_reason)


def test_zeros_behind_the_last_box_are_no_damage(tmp_path: Path) -> None:
    path = clips.write_kerberos_like(tmp_path / "a.mp4", Clip())
    path.write_bytes(path.read_bytes() + bytes(5000))
    seen = look(path, 4)
    assert len(seen.frames) == 4
    assert seen.partial == ()


def test_what_comes_before_the_first_keyframe_is_left_and_the_rest_is_covered(tmp_path: Path) -> None:
    seen = look(clips.write_without_first_keyframe(tmp_path / "a.mp4"), 5)
    # The first packet is gone: the picture at index i carries the number i + 1.
    assert [frame.number - frame.index for frame in seen.frames] == [1] * 5
    assert [(frame.index - 19) * 5 // 60 for frame in seen.frames] == [0, 1, 2, 3, 4]
    assert seen.ledger.undecodable == 19
    assert seen.partial == ("undecodable_packets",)


def test_a_recording_without_any_keyframe_is_undecodable(tmp_path: Path) -> None:
    with pytest.raises(RecordingUndecodable, match="no keyframe"):
        look(clips.write_without_keyframes(tmp_path / "a.mp4"), 5)


def test_a_recording_of_which_every_packet_is_damaged_is_undecodable(tmp_path: Path) -> None:
    path = clips.damage(clips.write(tmp_path / "a.mp4", Clip(codec="mpeg4")), range(80))
    with pytest.raises(RecordingUndecodable):
        look(path, 5)


def test_a_recording_with_sound_only_is_undecodable_and_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(RecordingUndecodable, match="audio"):
        look(clips.write_audio_only(tmp_path / "a.mp4"), 5)


def test_an_unfinished_recording_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingUnfinished):
        look(clips.write_unfinished(tmp_path / "a.mp4"), 5)


def test_an_encrypted_recording_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingEncrypted):
        look(clips.write_encrypted_looking(tmp_path / "a.mp4"), 5)


@pytest.mark.parametrize("data", [b"", b"<html>not here</html>", b"\x00" * 5000])
def test_what_is_no_video_is_undecodable(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(RecordingUndecodable):
        look(path, 5)


def test_a_playlist_in_a_recordings_place_opens_no_other_file(tmp_path: Path) -> None:
    target = clips.write(tmp_path / "private.mp4", Clip(frames=5))
    path = tmp_path / "a.mp4"
    for playlist in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {target}\n",
    ):
        path.write_text(playlist)
        with pytest.raises(RecordingUndecodable):
            look(path, 5)


def test_a_picture_with_concealed_damage_is_taken_where_there_is_no_sound_one(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", Clip(frames=1))
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
    assert packet.pos is not None
    data = bytearray(path.read_bytes())
    end = packet.pos + packet.size
    data[end - packet.size // 4 : end] = bytes(packet.size // 4)
    path.write_bytes(data)
    seen = look(path, 5)
    assert len(seen.frames) == 1
    assert "concealed_damage" in seen.partial
    assert (seen.ledger.decoded, seen.ledger.undecodable) == (1, 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    holes=st.integers(1, 4),
    zeros=st.booleans(),
    share=st.floats(0.05, 1.0),
    fragmented=st.booleans(),
    predictions=st.integers(1, 30),
)
def test_any_damage_ends_in_frames_that_balance_or_in_an_error_of_ours(  # noqa: PLR0917  hypothesis names them
    tmp_path: Path, seed: int, holes: int, zeros: bool, share: float, fragmented: bool, predictions: int
) -> None:
    whole = tmp_path / ("fragmented.mp4" if fragmented else "plain.mp4")
    if not whole.exists():
        clip = Clip(frames=40, keyframe_every=10, b_frames=2, width=128, height=96)
        if fragmented:
            clips.write_kerberos_like(whole, clip)
        else:
            clips.write(whole, Clip(**{**clip.__dict__, "container_options": {"movflags": "faststart"}}))
    noise = np.random.default_rng(seed)
    data = bytearray(whole.read_bytes())
    for _ in range(holes):
        start, length = int(noise.integers(0, len(data))), int(noise.integers(1, 400))
        length = min(length, len(data) - start)
        data[start : start + length] = bytes(length) if zeros else noise.bytes(length)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data[: int(len(data) * share)])
    try:
        seen = look(path, predictions)
    except RecordingError as error:
        assert "damaged.mp4" in str(error)
    else:
        assert seen.frames
