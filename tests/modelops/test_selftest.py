"""The self-test: an answer is compared with the one of the export, hair's breadths aside."""

import numpy as np
import numpy.typing as npt
import pytest

from consumer.errors import SetupError
from modelops.selftest import Result, compare, read_golden
from tests.modelops.pods_of_one_repository import CAT, golden

CAT_ROW = (8.0, 8.0, 40.0, 40.0, 0.9, 0.0)
DOG_ROW = (50.0, 10.0, 90.0, 60.0, 0.8, 1.0)


def rows(*found: tuple[float, ...]) -> npt.NDArray[np.float32]:
    padded = np.zeros((8, 6), np.float32)
    padded[: len(found)] = np.array(found, np.float32).reshape(-1, 6)
    return padded


def test_the_same_answer_agrees() -> None:
    assert compare(rows(CAT_ROW, DOG_ROW), rows(CAT_ROW, DOG_ROW)) == Result(4, 4)


@pytest.mark.parametrize(
    ("answered", "matched"),
    [
        ((8, 8, 40, 40, 0.9, 1), 0),  # another class
        ((60, 8, 92, 40, 0.9, 0), 0),  # another place
        ((9, 8, 41, 40, 0.7, 0), 2),  # a pixel aside, another score
        ((8, 8, 40, 40, np.nan, 0), 0),
        ((np.inf, 8, 40, 40, 0.9, 0), 0),
    ],
)
def test_a_box_is_the_same_by_class_and_place(answered: tuple[float, ...], matched: int) -> None:
    result = compare(rows(answered), rows(CAT_ROW))
    assert result.matched == matched
    assert (result.share == 1) == (matched == 2)


def test_a_box_too_many_and_a_box_too_few_both_count() -> None:
    assert compare(rows(CAT_ROW, DOG_ROW), rows(CAT_ROW)) == Result(3, 2)
    assert compare(rows(CAT_ROW), rows(CAT_ROW, DOG_ROW)) == Result(3, 2)


def test_a_score_that_crosses_the_threshold_by_a_hair_is_no_disagreement() -> None:
    below = (*CAT_ROW[:4], 0.499, 0.0)
    above = (*CAT_ROW[:4], 0.501, 0.0)
    assert compare(rows(below), rows(above)) == Result(1, 1)


def test_one_box_is_the_partner_of_one() -> None:
    twice = rows(CAT_ROW, (8.0, 20.0, 40.0, 52.0, 0.8, 0.0))  # overlaps by less than suppression needs
    assert compare(twice, rows(CAT_ROW)) == Result(3, 2)


def test_two_answers_without_boxes_agree_and_one_without_does_not() -> None:
    assert compare(rows(), rows()).share == 1
    assert compare(rows(), rows(CAT_ROW)).share == 0


def test_the_golden_answer_of_the_export_is_read_back() -> None:
    read = read_golden(golden(CAT), "golden.npz")
    assert (read.frames.shape, read.rows.shape) == ((1, 96, 96), (1, 8, 6))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"nonsense", golden(CAT)[:200]])
def test_a_golden_answer_that_is_none_is_said(content: bytes) -> None:
    with pytest.raises(SetupError, match=r"yolo/2/golden\.npz cannot be read"):
        read_golden(content, "yolo/2/golden.npz")
