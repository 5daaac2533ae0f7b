"""A candidate that fails again and again is left alone for a while."""

import pytest
from structlog.testing import capture_logs

from consumer.breaker import FAILURES, PAUSE_SECONDS, Breaker
from consumer.rollout import Candidate, Rollout

TRIAL = Rollout(4, 1, candidate=Candidate(2, "canary", 20.0))


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.note(TRIAL, "triton_away")


def test_a_candidate_that_fails_several_times_in_a_row_is_not_asked(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    assert not breaker.is_open(TRIAL)
    fail(breaker, 1)
    assert breaker.is_open(TRIAL)


def test_failures_with_answers_between_them_are_the_recordings_own(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        fail(breaker, FAILURES - 1)
        breaker.note(TRIAL, None)
    assert not breaker.is_open(TRIAL)


def test_after_the_pause_one_failure_is_enough_and_one_answer_ends_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.seconds += PAUSE_SECONDS
    assert not breaker.is_open(TRIAL)
    fail(breaker, 1)
    assert breaker.is_open(TRIAL)
    clock.seconds += PAUSE_SECONDS
    breaker.note(TRIAL, None)
    fail(breaker, FAILURES - 1)
    assert not breaker.is_open(TRIAL)


def test_a_newer_rollout_begins_anew(breaker: Breaker) -> None:
    fail(breaker, FAILURES)
    newer = Rollout(5, 1, candidate=Candidate(3, "canary", 20.0))
    assert not breaker.is_open(newer)
    breaker.note(newer, "triton_away")
    assert not breaker.is_open(newer)


def test_a_pause_is_said_once_while_it_lasts(breaker: Breaker) -> None:
    with capture_logs() as lines:
        fail(breaker, FAILURES)
    assert [(line["event"], line["version"], line["why"]) for line in lines] == [
        ("candidate paused, the live version answers all", 2, "triton_away")
    ]
