"""Detections: rows of the network become boxes of the picture, to the fraction of a pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.detections import FloatArray, Placement, from_rows

# A 1920x1080 picture in a 640x384 network: scaled by a third, 12 rows of grey above and below.
FULL_HD = Placement(1920, 1080, scale_x=1 / 3, scale_y=1 / 3, pad_x=0, pad_y=12)


def rows(*values: tuple[float, float, float, float, float, float]) -> FloatArray:
    return np.array(values, dtype=np.float32).reshape(-1, 6)


def test_a_box_comes_back_in_the_pixels_of_the_picture() -> None:
    found = from_rows(rows((10, 22, 110.5, 62, 0.9, 2)), FULL_HD, score_threshold=0.25, nms_iou=0.45)
    np.testing.assert_allclose(found.boxes_xyxy, [[30, 30, 331.5, 150]], rtol=1e-5)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.class_indices.tolist() == [2]


def test_of_two_boxes_of_one_class_the_better_one_stays() -> None:
    found = from_rows(
        rows((10, 20, 50, 60, 0.6, 0), (11, 21, 51, 61, 0.8, 0)), FULL_HD, score_threshold=0.25, nms_iou=0.45
    )
    assert found.scores.tolist() == pytest.approx([0.8])


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    found = from_rows(
        rows((10, 20, 50, 60, 0.8, 0), (10, 20, 50, 60, 0.7, 1)), FULL_HD, score_threshold=0.25, nms_iou=0.45
    )
    assert found.class_indices.tolist() == [0, 1]


def test_neighbours_in_a_crowd_stay() -> None:
    # They overlap by a third of each: IoU 0.2.
    found = from_rows(
        rows((0, 20, 30, 120, 0.8, 0), (20, 20, 50, 120, 0.7, 0)), FULL_HD, score_threshold=0.25, nms_iou=0.45
    )
    assert len(found) == 2


def test_a_graph_that_suppresses_itself_is_taken_at_its_word() -> None:
    doubles = rows((10, 20, 50, 60, 0.8, 0), (10, 20, 50, 60, 0.7, 0))
    assert len(from_rows(doubles, FULL_HD, score_threshold=0.25, nms_iou=None)) == 2


def test_padding_rows_are_no_detections_even_with_a_threshold_of_zero() -> None:
    found = from_rows(
        rows((1, 20, 9, 30, 0.5, 0), (0, 0, 0, 0, 0, 0)), FULL_HD, score_threshold=0.0, nms_iou=0.45
    )
    assert len(found) == 1
    assert not found.saturated


def test_a_frame_whose_rows_are_all_detections_is_flagged() -> None:
    full = rows((1, 20, 9, 30, 0.5, 0), (100, 20, 109, 30, 0.5, 0))
    assert from_rows(full, FULL_HD, score_threshold=0.25, nms_iou=0.45).saturated
    assert not from_rows(full, FULL_HD, score_threshold=0.6, nms_iou=0.45).saturated


def test_a_box_in_the_grey_border_is_no_detection() -> None:
    found = from_rows(rows((10, 0, 50, 8, 0.9, 0)), FULL_HD, score_threshold=0.25, nms_iou=0.45)
    assert len(found) == 0


def test_what_is_not_a_number_is_no_detection() -> None:
    found = from_rows(
        rows((float("nan"), 20, 50, 60, 0.9, 0), (1, 20, float("inf"), 60, 0.9, 0)),
        FULL_HD,
        score_threshold=0.25,
        nms_iou=0.45,
    )
    assert len(found) == 0


@pytest.mark.parametrize("class_index", [-1.0, -1e30, 1e6, 3e9, 1e30])
def test_what_is_of_an_impossible_class_is_no_detection(class_index: float) -> None:
    broken, sound = (10, 200, 50, 260, 0.9, class_index), (100, 20, 150, 60, 0.8, 2)
    found = from_rows(rows(broken, sound), FULL_HD, score_threshold=0.25, nms_iou=0.45)
    assert found.class_indices.tolist() == [2]


@given(
    st.lists(
        st.tuples(
            st.floats(-1e4, 1e4, width=32),
            st.floats(-1e4, 1e4, width=32),
            st.floats(-1e4, 1e4, width=32),
            st.floats(-1e4, 1e4, width=32),
            st.floats(0, 1, width=32),
            st.integers(0, 79),
        ),
        max_size=20,
    )
)
def test_whatever_the_network_says_boxes_lie_in_the_picture_best_first(
    values: list[tuple[float, float, float, float, float, float]],
) -> None:
    found = from_rows(rows(*values), FULL_HD, score_threshold=0.25, nms_iou=0.45)
    x1, y1, x2, y2 = found.boxes_xyxy.reshape(-1, 4).T
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 1920)).all()
    assert ((y1 >= 0) & (y1 < y2) & (y2 <= 1080)).all()
    assert (found.scores >= 0.25).all()
    assert (np.diff(found.scores) <= 0).all()
