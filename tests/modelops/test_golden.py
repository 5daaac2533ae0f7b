"""The golden set: where its pictures come from, and in which order."""

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from consumer.errors import SetupError
from consumer.sample_clip import sample_clip
from modelops import golden
from modelops.golden import GoldenAnswer, GoldenPicture, GoldenSet, golden_set, pictures_in
from tests.modelops.golden_material import SHARED, noise, write_clip, write_photo


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Forty seconds; every frame has a grey of its own."""
    greys = [np.full((64, 96, 3), 20 + n // 2, np.uint8) for n in range(400)]
    return write_clip(tmp_path / "clips" / "greys.mp4", greys)


def seconds(picture: GoldenPicture) -> float:
    """Time of a frame, out of its name."""
    return float(picture.name.removesuffix(" s").rpartition(" at ")[2])


def test_a_folder_gives_its_photos_and_clips_and_nothing_else(tmp_path: Path, clip: Path) -> None:
    photo = write_photo(tmp_path / "deep" / "er" / "photo.PNG", noise())
    (tmp_path / "README.txt").write_text("not a picture")

    found = pictures_in(tmp_path)

    assert found == GoldenSet(photos=(photo,), clips=(clip,))
    assert [file.name for file in found.files] == ["photo.PNG", "greys.mp4"]
    assert all(file.digest.startswith("sha256:") and file.size_bytes > 0 for file in found.files)


def test_a_folder_without_pictures_is_answered_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("not a picture")

    with pytest.raises(SetupError, match=r"holds no photo and no clip \(.*\.mp4.*\): give a"):
        golden_set(tmp_path)


def test_each_round_sees_all_of_a_clip_and_none_repeats_a_frame(clip: Path) -> None:
    rounds = [[seconds(picture) for picture in each] for each in islice(GoldenSet(clips=(clip,)).rounds(), 3)]

    for times in rounds:
        assert len(times) == golden.ROUND_FRAMES
        assert min(times) < 1.0
        assert max(times) > 39.0
    every = [time for times in rounds for time in times]
    assert len(set(every)) == len(every)


def test_a_short_clip_ends_when_every_frame_was_taken(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", [noise(n) for n in range(12)])
    rounds = [len(list(each)) for each in GoldenSet(clips=(clip,)).rounds()]

    assert rounds[0] == 12
    assert sum(rounds) == 12


def test_longer_clips_give_more_frames(tmp_path: Path, clip: Path) -> None:
    short = write_clip(tmp_path / "short.mp4", [noise(n) for n in range(100)])
    first = next(GoldenSet(clips=(clip, short)).rounds())
    names = [picture.name.partition(" at ")[0] for picture in first]

    assert (names.count("greys.mp4"), names.count("short.mp4")) == (80, 20)


def test_no_frame_is_calibrated_with_and_judged_by(clip: Path) -> None:
    calibration, judged = GoldenSet(clips=(clip,)).split(64)
    calibrated = {seconds(picture) for picture in calibration.some_pictures(64)}
    judged_by = {seconds(picture) for each in judged.rounds() for picture in each}

    assert len(calibrated) == 64
    assert len(judged_by) > 200
    assert not calibrated & judged_by


def test_no_photo_is_calibrated_with_and_judged_by(tmp_path: Path) -> None:
    for n in range(8):
        write_photo(tmp_path / f"{n}.png", noise(n))
    calibration, judged = pictures_in(tmp_path).split(64)

    assert (len(calibration.photos), len(judged.photos)) == (2, 6)
    assert not set(calibration.photos) & set(judged.photos)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"not a photo")
    with pytest.raises(SetupError, match=r"torn\.jpg is not a photo that OpenCV reads"):
        list(next(pictures_in(tmp_path).rounds()))

    (tmp_path / "torn.jpg").rename(tmp_path / "torn.mp4")
    with pytest.raises(SetupError, match=r"torn\.mp4 cannot be replayed: .* Take it out of its folder"):
        list(next(pictures_in(tmp_path).rounds()))


def test_a_picture_comes_whole_and_as_the_network_takes_it(tmp_path: Path, clip: Path) -> None:
    photo = write_photo(tmp_path / "photo.png", noise())
    for picture in [*GoldenSet(photos=(photo,)).some_pictures(1), *GoldenSet(clips=(clip,)).some_pictures(1)]:
        assert picture.bgr.dtype == np.uint8
        assert picture.bgr.shape[2] == 3
        frame = picture.network_frame(height=64, width=96, resize="letterbox")
        assert frame.i420.shape == (96, 96)


def test_without_a_folder_the_shared_pictures_are_taken_else_the_sample_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SHARED.is_dir():
        pytest.skip("The clips of ../shared/data are not beside this checkout.")
    assert {path.name for path in golden_set().clips} == {path.name for path in (SHARED / "clips").iterdir()}
    assert [path.name for path in golden_set().photos] == ["dog.jpg"]

    monkeypatch.setattr(golden, "_SHARED", tmp_path)
    assert golden_set() == GoldenSet(clips=(sample_clip(),))


def test_what_is_at_hand_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_SHARED", tmp_path)
    monkeypatch.setenv("VAULT_ML_CACHE", str(tmp_path / "empty"))

    assert golden.at_hand() == GoldenSet()


def test_a_golden_answer_is_read_without_trust() -> None:
    answer = GoldenAnswer(np.zeros((1, 96, 64), np.uint8), np.ones((1, 3, 6), np.float32))

    with np.load(io.BytesIO(answer.to_npz()), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["frames"], answer.frames)
        assert np.array_equal(arrays["rows"], answer.rows)
