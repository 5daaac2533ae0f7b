"""What a campaign promises: it counts only what met something, and no trouble of its own ends the run."""

from collections.abc import Callable
from typing import cast

import pytest

from tests.faults import campaign
from tests.faults.campaign import MOST_UNDOINGS, Campaign
from tests.faults.injections import Injection
from tests.faults.schedule import Fault
from tests.faults.surroundings import Surroundings

NO_WORLD = cast(Surroundings, None)  # the injections of these tests ask for none
AT_ONCE = Fault(0, "worker_killed", 0.0, 0.0, 0.5)
LASTING = Fault(0, "disk_full", 0.0, 0.0, 0.5)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault, Injection], Campaign]:
    def make(fault: Fault, injection: Injection) -> Campaign:
        monkeypatch.setattr(campaign, "UNDO_AGAIN_SECONDS", 0.0)
        monkeypatch.setattr(campaign, "injection_of", lambda _fault, _world: injection)
        return Campaign([fault], NO_WORLD, lambda _line: None)

    return make


def breaks() -> None:
    raise OSError("no room for a process")


def test_a_fault_waits_until_there_is_something_to_do_it_to(
    made: Callable[[Fault, Injection], Campaign],
) -> None:
    there = [False, False, True]
    run = made(AT_ONCE, Injection("consumer", lambda: there.pop(0)))
    run.turn()
    run.turn()
    assert not run.happened
    assert run.in_vain == ["worker_killed"]
    run.turn()
    assert [each.took for each in run.happened] == [True]
    assert run.in_vain == []


def test_a_fault_that_nothing_met_does_not_count(made: Callable[[Fault, Injection], Campaign]) -> None:
    run = made(LASTING, Injection("disk", lambda: None, took=lambda: False))
    while not run.done:
        run.turn()
    assert run.in_vain == ["disk_full"]


def test_a_fault_that_fails_to_begin_is_undone_and_does_not_count(
    made: Callable[[Fault, Injection], Campaign],
) -> None:
    undone: list[bool] = []
    run = made(LASTING, Injection("disk", breaks, lambda: undone.append(True)))
    while not run.done:
        run.turn()
    assert undone == [True]
    assert run.in_vain == ["disk_full"]


def test_what_cannot_be_undone_at_first_is_undone_later(made: Callable[[Fault, Injection], Campaign]) -> None:
    failing = [True, True, False]

    def end() -> None:
        if failing.pop(0):
            breaks()

    run = made(LASTING, Injection("triton", lambda: None, end))
    while not run.done:
        run.turn()
    assert not failing
    assert not run.problems


def test_what_can_never_be_undone_is_a_problem_and_not_the_end(
    made: Callable[[Fault, Injection], Campaign],
) -> None:
    run = made(LASTING, Injection("triton", lambda: None, breaks))
    for _ in range(MOST_UNDOINGS + 2):
        run.turn()
    assert run.done
    assert run.problems == ["disk_full: triton could not be undone: no room for a process."]
