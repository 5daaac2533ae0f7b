"""A recording that was built to hurt ends in an error that names it, or is looked at within its limits."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from consumer import boxes, claims, packets
from consumer.boxes import inspect
from consumer.claims import MAX_SAMPLES, claimed_samples
from consumer.errors import RecordingTooLarge, RecordingUndecodable, RecordingUnfinished
from consumer.media import FileMedia
from consumer.sampling import MAX_KEYFRAMES
from consumer.video import open_recording
from tests import clips, hostile_media
from tests.clips import Clip
from tests.consumer.looks import InMemory, Seen, look
from tests.hostile_media import Movie, box, full_box, nested, picture

FTYP = box(b"ftyp", b"isom", bytes(4), b"isom")
COUNTS_MUCH = full_box(b"stsz", struct.pack(">2I", 1, 2**32 - 1))


def _look(tmp_path: Path, data: bytes, predictions: int = 5) -> Seen:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    return look(path, predictions)


# What tables claim


@pytest.mark.parametrize("count", [MAX_SAMPLES + 1, 170_000_000, 2**32 - 1])
def test_a_table_of_20_bytes_that_counts_millions_of_samples_is_too_large(tmp_path: Path, count: int) -> None:
    with pytest.raises(RecordingTooLarge, match=f"claims to hold {count} samples"):
        _look(tmp_path, Movie(samples=count, one_chunk=True, sample_bytes=1).build())


def test_fragments_that_count_millions_of_samples_are_too_large(tmp_path: Path) -> None:
    with pytest.raises(RecordingTooLarge, match="at most 4000000 are read"):
        _look(tmp_path, hostile_media.fragmented(2**32 - 1))
    with pytest.raises(RecordingTooLarge, match="claims to hold 4500000 samples"):
        _look(tmp_path, hostile_media.fragmented(1_500_000, fragments=5))


@pytest.mark.parametrize(
    "more",
    [
        COUNTS_MUCH,
        box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", COUNTS_MUCH)))),
        box(b"meta", bytes(4), box(b"hdlr", bytes(20)), COUNTS_MUCH),
        box(b"free", nested(b"udta", 3), COUNTS_MUCH),
        box(b"udta", bytes(claims._CHUNK_BYTES), COUNTS_MUCH),
    ],
    ids=["moov", "trak", "meta", "free", "behind a megabyte"],
)
def test_a_table_is_found_wherever_it_hides(tmp_path: Path, more: bytes) -> None:
    for data in (Movie(more=more).build(), Movie().build() + more):
        with pytest.raises(RecordingTooLarge, match="claims to hold"):
            _look(tmp_path, data)


@pytest.mark.parametrize("place", range(claims._CHUNK_BYTES - 24, claims._CHUNK_BYTES + 8))
def test_a_table_across_two_chunks_is_counted_once(place: int) -> None:
    table = full_box(b"stsz", struct.pack(">2I", 1, 7))
    data = bytes(place) + table + bytes(100)
    assert claimed_samples(BytesIO(data), 0, len(data), "a.mp4") == 7


def test_what_only_looks_like_a_table_counts_nothing() -> None:
    data = b"\x00\x00\x00\x05stsz" + b"\xff" * 20
    assert claimed_samples(BytesIO(data), 0, len(data), "a.mp4") == 0


def test_compressed_tables_are_not_unpacked(tmp_path: Path) -> None:
    unpacked_bytes = 1 << 30
    packed = zlib.compress(bytes(1 << 20))
    tables = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", unpacked_bytes), packed))
    with pytest.raises(RecordingUndecodable, match="compressed tables"):
        _look(tmp_path, FTYP + box(b"mdat", picture()) + box(b"moov", tables))


def test_what_the_walk_did_not_look_into_the_demuxer_does_not_see(tmp_path: Path) -> None:
    # libav would step over the box without a name, and take the track behind it.
    track = box(b"trak", COUNTS_MUCH)
    seen = _look(tmp_path, Movie().build() + struct.pack(">II", 16, 1) + bytes(8) + track)
    assert len(seen.frames) == 5


def test_an_mp4_that_does_not_begin_as_one_is_not_opened_as_one(tmp_path: Path) -> None:
    with pytest.raises(RecordingUndecodable, match="cannot be opened as a video"):
        _look(
            tmp_path, box(b"pnot", bytes(12)) + Movie(samples=2**28, one_chunk=True, sample_bytes=1).build()
        )


# Boxes


@pytest.mark.parametrize("kind", [b"udta", b"moov", b"trak", b"meta"])
def test_boxes_nested_thousands_deep_end_nothing_but_the_recording(tmp_path: Path, kind: bytes) -> None:
    try:
        seen = _look(tmp_path, Movie(more=nested(kind, 20_000)).build())
    except RecordingUndecodable as error:
        assert "cannot be opened as a video" in str(error)
    else:
        assert len(seen.frames) == 5


def test_a_box_that_claims_half_of_all_addresses_is_cut_off_at_the_files_end(tmp_path: Path) -> None:
    tables = Movie().moov(0)[8:]
    with pytest.raises(RecordingUndecodable):
        _look(tmp_path, FTYP + struct.pack(">I4sQ", 1, b"moov", 2**63) + tables)


def test_ten_megabytes_of_user_data_are_no_harm(tmp_path: Path) -> None:
    title = box(b"\xa9nam", struct.pack(">HH", 65_535, 0), bytes(65_535))
    seen = _look(tmp_path, Movie(more=box(b"udta", title, bytes(10_000_000))).build())
    assert len(seen.frames) == 5


@pytest.mark.parametrize("claimed", [100_000, 2**32 - 1])
def test_an_edit_list_that_plays_the_same_again_and_again_does_not(tmp_path: Path, claimed: int) -> None:
    again = struct.pack(">IiI", 400, 0, 1 << 16) * 100_000
    edits = box(b"edts", full_box(b"elst", struct.pack(">I", claimed), again))
    seen = _look(tmp_path, Movie(samples=1000, edits=edits).build())
    assert [frame.index for frame in seen.frames] == [100, 300, 500, 700, 900]
    assert seen.ledger.packets == 1000


def test_more_boxes_than_anybody_writes_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "MAX_BOXES", 100)
    with pytest.raises(RecordingTooLarge, match="more than 100 boxes"):
        inspect(InMemory(FTYP + box(b"free") * 100))


def test_no_more_gaps_are_stepped_over_than_the_limit_says() -> None:
    hole_and_fragment = bytes(8) + box(b"mdat")
    layout = inspect(InMemory(FTYP + box(b"moov") + hole_and_fragment * 5000))
    assert len(layout.gaps) == boxes.MAX_GAPS
    assert layout.tail is not None


def test_a_gap_of_more_than_four_gigabytes_is_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with path.open("wb") as file:  # sparse: it takes no room on the disk
        file.write(FTYP + box(b"moov"))
        file.seek(5 << 30)
        file.write(b"\x00")
    media = FileMedia(path)
    tail = len(FTYP) + 8
    layout = boxes.Layout(is_mp4=True, truncated=False, tail=tail)
    with boxes.open_mended(media, layout) as mended:
        mended.seek(tail)
        assert mended.read(16) == struct.pack(">I4sQ", 1, b"free", media.size_bytes - tail)


def test_a_box_that_goes_around_in_circles_does_not_trap_the_walk() -> None:
    with pytest.raises(RecordingUnfinished):
        inspect(InMemory(struct.pack(">I4sQ", 1, b"free", 0) + bytes(100) + box(b"mdat")))


# Many pictures


def test_a_million_tiny_pictures_are_looked_at_within_half_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(Movie(samples=1_000_000).build())
    program = (
        "import resource, sys; from pathlib import Path; from consumer.media import FileMedia\n"
        "from consumer.video import open_recording\n"
        "with open_recording(FileMedia(Path(sys.argv[1]))) as recording:\n"
        "    print(*(frame.index for frame in recording.sample(5)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=200
    )
    indices, peak_kilobytes = done.stdout.splitlines()
    assert indices.split() == ["100000", "300000", "500000", "700000", "900000"]
    assert int(peak_kilobytes) < 500_000


def test_a_container_without_tables_is_not_read_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "MAX_SAMPLES", 50)
    with pytest.raises(RecordingTooLarge, match="more than 50 pictures"):
        look(clips.write(tmp_path / "a.ts", Clip(frames=80)), 5)


def test_where_hundreds_of_keyframes_are_damaged_a_sound_picture_is_found_all_the_same(
    tmp_path: Path,
) -> None:
    damaged = range(40, 40 + 6 * MAX_KEYFRAMES)
    path = clips.write(
        tmp_path / "a.mp4", Clip(frames=680, keyframe_every=2, codec="libx265", width=64, height=64)
    )
    seen = look(clips.damage(path, damaged), 1)
    (frame,) = seen.frames
    assert frame.index not in damaged
    assert seen.partial == ("undecodable_packets",)
    assert seen.ledger.undecodable <= MAX_KEYFRAMES


# Large pictures


def test_a_picture_that_turns_out_larger_than_the_tables_say_is_refused_by_the_decoder(
    tmp_path: Path,
) -> None:
    # The sample entry says 16x16, the JPEG itself 65500x65500: 13 GB, if it were decoded.
    data = bytearray(picture())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(RecordingUndecodable, match="No frame"):
        _look(tmp_path, Movie(frame=bytes(data) + bytes(30_000_000)).build())


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_more_pixels_than_any_camera_makes_are_too_large_in_every_container(
    tmp_path: Path, ending: str, codec: str
) -> None:
    path = clips.write(tmp_path / f"a.{ending}", Clip(frames=5, codec=codec))
    with (
        pytest.raises(RecordingTooLarge, match="320x192, over the limit of 61439 pixels"),
        open_recording(FileMedia(path), max_pixels=320 * 192 - 1),
    ):
        pass


def test_a_recording_that_turns_too_large_in_the_middle_is_looked_at_before_that(tmp_path: Path) -> None:
    path = clips.write_size_changing(tmp_path / "a.mp4")
    with open_recording(FileMedia(path), max_pixels=320 * 192) as recording:
        frames = [frame.index for frame in recording.sample(8)]
        ledger = recording.ledger(inferred=len(frames))
        partial = recording.partial
    assert len(frames) == 4
    assert max(frames) < 40
    assert "undecodable_packets" in partial
    assert ledger.balances


# Other files, other decoders


def test_a_format_that_opens_other_files_could_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "_OTHER_FORMATS", "hls")
    private = clips.write(tmp_path / "private.mp4", Clip(frames=5))
    playlist = tmp_path / "a.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{private}\n#EXT-X-ENDLIST\n")
    with pytest.raises(
        RecordingUndecodable, match="refers to another file or address, which is never opened"
    ):
        look(playlist, 1)


def test_a_codec_that_no_camera_writes_is_not_decoded(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mkv", Clip(frames=5, codec="ffv1"))
    with pytest.raises(RecordingUndecodable, match="a video track in ffv1, which is not decoded here"):
        look(path, 1)
