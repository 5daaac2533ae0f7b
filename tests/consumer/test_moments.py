"""Times are understood as people write them, and nothing else is taken for one."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.moments import in_words, parse_moment, parse_span

NOW = datetime(2026, 5, 2, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", "2026-05-02T13:30:00Z"),
        ("1d12h", "2026-05-01T03:30:00Z"),
        ("90m", "2026-05-02T14:00:00Z"),
        ("1w", "2026-04-25T15:30:00Z"),
        ("45s", "2026-05-02T15:29:15Z"),
        ("now", "2026-05-02T15:30:00Z"),
        ("today", "2026-05-02T00:00:00Z"),
        ("Yesterday", "2026-05-01T00:00:00Z"),
        ("2026-05-01", "2026-05-01T00:00:00Z"),
        ("2026-05-01T12:00", "2026-05-01T12:00:00Z"),
        ("2026-05-01T12:00Z", "2026-05-01T12:00:00Z"),
        ("2026-05-01 14:00+02:00", "2026-05-01T12:00:00Z"),
    ],
)
def test_an_age_a_day_and_a_time_are_moments(text: str, moment: str) -> None:
    assert in_words(parse_moment(text, "--from", NOW)) == moment


@pytest.mark.parametrize(
    "text", ["", "soon", "2", "h", "-2h", "2x", "9999999w", "2026-13-01", "0001-01-01T00:00+14:00"]
)
def test_anything_else_is_refused_with_what_to_give(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--from is .* give an age such as 2h"):
        parse_moment(text, "--from", NOW)


@given(st.text(max_size=12))
def test_no_text_breaks_it(text: str) -> None:
    with contextlib.suppress(SettingsError):
        assert parse_moment(text, "--to", NOW).tzinfo is not None


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [("1h", "2h", "--to 2h is not after --from 1h"), ("2026-06-01", None, "is in the future")],
)
def test_a_span_without_anything_in_it_is_refused(since: str, until: str | None, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_span(since, until, NOW)


def test_a_span_may_be_open_at_both_ends() -> None:
    assert parse_span(None, None, NOW) == (None, None)
