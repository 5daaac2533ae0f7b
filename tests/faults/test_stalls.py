"""What is said about waiting, on little histories."""

import pytest

from tests.faults.feeder import Sent
from tests.faults.stalls import Stall, longest_stall, waits_after


def sent(*times: float, recipe: str = "plain") -> list[Sent]:
    return [Sent(number % 2, number // 2, recipe, at) for number, at in enumerate(times)]


def seen(*times: float) -> dict[tuple[int, int], float]:
    return {(number % 2, number // 2): at for number, at in enumerate(times)}


def test_a_stall_is_the_longest_time_between_outcomes_while_work_waits() -> None:
    assert longest_stall(sent(0, 1, 2, 3), seen(0.5, 1.5, 12.0, 12.5)) == Stall(2.0, 10.0)


def test_time_without_work_is_no_stall() -> None:
    assert longest_stall(sent(0, 100), seen(1, 101)).seconds == pytest.approx(1.0)


def test_a_recording_that_must_wait_is_no_stall() -> None:
    assert longest_stall(sent(0, recipe="hangs"), seen(120)).seconds == 0.0


def test_waits_are_those_of_recordings_stored_after_the_fault() -> None:
    sent_then, seen_then = sent(0, 1, 6, 7, 8, 9), seen(10, 11, 20, 9, 21, 22)
    waits = waits_after([("vault_paused", 5.0)], sent_then, seen_then, partitions=2)["vault_paused"]
    assert waits.first == pytest.approx((4.0,))
    assert waits.everywhere == pytest.approx((15.0,))


def test_a_partition_that_gets_nothing_more_has_no_wait() -> None:
    waits = waits_after([("vault_paused", 5.0)], sent(0, 6), seen(1, 7), partitions=2)["vault_paused"]
    assert waits.first == pytest.approx((2.0,))
    assert waits.everywhere == ()
