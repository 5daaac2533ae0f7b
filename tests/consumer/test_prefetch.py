"""What was fetched ahead is given out in turns, in order, and stays within its limits."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from consumer.offsets import PartitionProgress
from consumer.prefetch import AHEAD_BYTES, AHEAD_MESSAGES, Prefetch, SourceMessage

PARTITIONS = [PartitionProgress("events", number) for number in range(3)]


def message(number: int, offset: int, size_bytes: int = 10) -> SourceMessage:
    return SourceMessage(offset, b"x" * size_bytes, PARTITIONS[number])


def taken(prefetch: Prefetch, but_of: tuple[int, ...] = ()) -> tuple[int, int] | None:
    found = prefetch.take(but_of)
    return None if found is None else (found.progress.partition, found.offset)


def test_a_partition_with_many_messages_does_not_hold_up_the_others() -> None:
    prefetch = Prefetch()
    for offset in range(20):
        prefetch.put(message(0, offset))
    for offset in range(2):
        prefetch.put(message(1, offset))
    assert [taken(prefetch) for _ in range(5)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


def test_a_partition_that_is_passed_over_keeps_its_messages() -> None:
    prefetch = Prefetch()
    prefetch.put(message(0, 0))
    prefetch.put(message(1, 7))
    assert taken(prefetch, (0,)) == (1, 7)
    assert taken(prefetch, (0,)) is None
    assert taken(prefetch) == (0, 0)


def test_a_full_partition_is_paused_until_half_of_it_is_taken() -> None:
    prefetch, assigned = Prefetch(), [0, 1]
    for offset in range(AHEAD_MESSAGES):
        assert prefetch.to_pause(assigned) == set()
        prefetch.put(message(0, offset))
    assert prefetch.to_pause(assigned) == {0}
    for _ in range(AHEAD_MESSAGES // 2 - 1):
        prefetch.take()
        assert prefetch.to_pause(assigned) == {0}, (
            "resumed at every message, it would be fetched again and again"
        )
    prefetch.take()
    assert prefetch.to_pause(assigned) == set()


def test_large_messages_pause_all_partitions_until_half_of_them_is_taken() -> None:
    prefetch, assigned, quarter = Prefetch(), [0, 1, 2], AHEAD_BYTES // 4
    for offset in range(4):
        assert prefetch.to_pause(assigned) == set()
        prefetch.put(message(offset % 2, offset, quarter))
    assert prefetch.to_pause(assigned) == {0, 1, 2}
    prefetch.take()
    assert prefetch.to_pause(assigned) == {0, 1, 2}
    prefetch.take()
    prefetch.take()
    assert prefetch.to_pause(assigned) == set()


def test_what_is_dropped_with_its_partition_takes_no_room_any_more() -> None:
    prefetch = Prefetch()
    prefetch.put(message(0, 0, AHEAD_BYTES))
    assert prefetch.to_pause([0, 1]) == {0, 1}
    prefetch.drop(0)
    assert prefetch.to_pause([1]) == set()
    assert taken(prefetch) is None


@given(st.lists(st.integers(min_value=0, max_value=2) | st.none()))
def test_every_message_is_given_once_in_the_order_of_its_partition(steps: list[int | None]) -> None:
    prefetch, offsets = Prefetch(), Counter[int]()
    given_out: list[tuple[int, int]] = []
    for number in [*steps, *([None] * len(steps))]:
        if number is not None:
            prefetch.put(message(number, offsets[number]))
            offsets[number] += 1
        elif (found := taken(prefetch)) is not None:
            given_out.append(found)
    for number in range(3):
        assert [offset for n, offset in given_out if n == number] == list(range(offsets[number]))
