"""Promises of consumer/annotate.py: what was found can be seen, on small pictures and on large ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from consumer.analysis import Detection
from consumer.annotate import draw, write_annotated_frames
from consumer.media import FileMedia
from tests import clips
from tests.clips import Clip

GREY = 90


@pytest.mark.parametrize(("width", "height"), [(160, 96), (640, 360), (3840, 2160)])
@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.5, 0.5), (0.9, 0.02), (0.0, 0.9)])
def test_box_and_label_are_drawn_wherever_the_box_lies(
    width: int, height: int, corner: tuple[float, float]
) -> None:
    image = np.full((height, width, 3), GREY, np.uint8)
    left, top = corner[0] * width, corner[1] * height
    box = Detection("person", 0.87, (left, top, left + width * 0.1, top + height * 0.1))
    drawn = draw(image, [box])
    assert (image == GREY).all(), "the picture that was given stays as it was"
    changed = (drawn != GREY).any(axis=2)
    assert changed[round(top) : round(top) + height // 10, max(0, round(left) - 1) : round(left) + 3].any()
    # A label has the box's colour as its ground and dark or light letters on it.
    ink = (drawn < 80).all(axis=2) | (drawn > 225).all(axis=2)
    assert ink.sum() > 40


def test_labels_have_distinct_colours_that_stay_the_same() -> None:
    image = np.full((200, 300, 3), GREY, np.uint8)
    labels = ["person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "cat"]
    colours = [tuple(draw(image, [Detection(label, 0.5, (100, 80, 200, 180))])[180, 150]) for label in labels]
    assert len(set(colours)) == len(labels)
    assert colours[0] == tuple(draw(image, [Detection("person", 0.9, (50, 80, 250, 180))])[180, 150])


def test_annotated_frames_are_the_frames_that_were_looked_at(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "front-door.mp4", Clip(frames=40, b_frames=2))
    box = Detection("person", 0.9, (100, 20, 200, 120))
    paths = write_annotated_frames(FileMedia(path), {0.4: [box], 1.2: []}, tmp_path / "out" / "deep")
    assert [written.name for written in paths] == [
        "front-door-frame-000010-0.40s.jpg",
        "front-door-frame-000030-1.20s.jpg",
    ]
    for written, number, boxes in zip(paths, (10, 30), ([box], []), strict=True):
        image = np.asarray(cv2.imread(str(written)))
        expected = draw(clips.numbered(number, 320, 192), boxes)
        assert image.shape == (192, 320, 3)
        assert np.abs(image.astype(int) - expected).mean() < 6


def test_annotated_frames_of_a_rotated_recording_are_upright(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", Clip(frames=5, rotation_degrees=90))
    (written,) = write_annotated_frames(FileMedia(path), {0.0: []}, tmp_path)
    image = np.asarray(cv2.imread(str(written)))
    expected = np.asarray(cv2.rotate(clips.numbered(0, 320, 192), cv2.ROTATE_90_CLOCKWISE))
    assert np.abs(image.astype(int) - expected).mean() < 6
