"""What a plan of faults promises: it follows from its seed, and leaves out no kind."""

import pytest

from tests.faults import recordings
from tests.faults.injections import MAKERS
from tests.faults.schedule import KINDS, plan


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(7, 600.0) == plan(7, 600.0)
    assert plan(7, 600.0) != plan(8, 600.0)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_occurs_in_the_time_that_ci_has(seed: int) -> None:
    assert {fault.kind for fault in plan(seed, 200.0)} == set(KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_no_fault_outlasts_the_plan(seed: int) -> None:
    faults = plan(seed, 200.0)
    assert faults == sorted(faults, key=lambda fault: fault.at_seconds)
    assert all(0 < fault.at_seconds <= fault.over_seconds <= 200.0 for fault in faults)


def test_kinds_can_be_chosen() -> None:
    assert {fault.kind for fault in plan(1, 600.0, ("vault_paused", "disk_full"))} == {
        "vault_paused",
        "disk_full",
    }


def test_a_plan_too_short_for_a_fault_has_none() -> None:
    assert plan(1, 10.0, ("consumer_frozen",)) == []


def test_every_kind_is_known_how_to_do() -> None:
    assert MAKERS.keys() == KINDS.keys()


def test_the_same_seed_stores_the_same_recordings_and_every_kind_of_them() -> None:
    first, again = recordings.sequence(3), recordings.sequence(3)
    names = [next(first).name for _ in range(500)]
    assert names == [next(again).name for _ in range(500)]
    assert set(names[: len(recordings.RECIPES)]) == set(recordings.RECIPES)
