"""The mark goes through a header as it is, and nothing that others write there breaks anything."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.replay_mark import HEADER, ReplayMark

MARK = ReplayMark("dead-letter", "a" * 64, 2, "2026-05-01T12:00:00Z")


def test_a_mark_comes_back_as_it_went() -> None:
    assert ReplayMark.from_headers([("other", b"x"), MARK.to_header()]) == MARK


def test_of_several_the_last_one_counts_and_of_none_there_is_none() -> None:
    second = ReplayMark("source", "replay-0", 1, "2026-05-01T12:00:00Z")
    assert ReplayMark.from_headers([MARK.to_header(), second.to_header()]) == second
    assert ReplayMark.from_headers([(HEADER, None)]) is None
    assert ReplayMark.from_headers([]) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"of": "me"},
        {"id": "x\ny"},
        {"id": "x" * 400},
        {"count": 0},
        {"count": 10**9},
        {"count": True},
        {"count": "1"},
        {"at": "<now>"},
        {"at": None},
    ],
)
def test_what_is_no_mark_of_ours_is_left_out(changed: dict[str, object]) -> None:
    assert ReplayMark.from_json(json.dumps(json.loads(MARK.to_json()) | changed)) is None


@given(st.binary(max_size=200) | st.just(b"[" * 5000))
def test_no_header_breaks_it(value: bytes) -> None:
    assert ReplayMark.from_headers([(HEADER, value)]) is None
