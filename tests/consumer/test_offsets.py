"""Offsets: a commit never passes a message that is not finished."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.offsets import PartitionProgress, Place


def test_only_the_contiguous_prefix_of_finished_messages_is_committed() -> None:
    progress = PartitionProgress("events", 0)
    for offset in (10, 11, 12):
        progress.fetched(offset, 1)
    assert progress.commit_due == Place(10)
    progress.finished(11)
    progress.finished(12)
    assert progress.commit_due == Place(10), "10 is not finished, whatever came behind it"
    progress.finished(10)
    assert progress.commit_due == Place(13)


def test_a_message_with_several_events_is_finished_with_its_last_one() -> None:
    progress = PartitionProgress("events", 0)
    progress.fetched(5, 3)
    progress.finished(5)
    progress.finished(5)
    assert progress.commit_due == Place(5)
    progress.finished(5)
    assert progress.commit_due == Place(6)


def test_nothing_is_committed_twice() -> None:
    progress = PartitionProgress("events", 0)
    progress.fetched(0, 1)
    progress.finished(0)
    assert progress.commit_due == Place(1)
    progress.committed(Place(1))
    assert progress.commit_due is None


def test_a_new_note_is_committed_although_the_offset_stays() -> None:
    progress = PartitionProgress("events", 0)
    progress.fetched(4, 1)
    progress.committed(Place(4))
    progress.note = "tried twice"
    assert progress.commit_due == Place(4, "tried twice")


def test_an_outcome_that_is_taken_back_holds_the_commit_at_its_message() -> None:
    progress = PartitionProgress("events", 0)
    for offset in (1, 2, 5):
        progress.fetched(offset, 1)
        progress.finished(offset)
    progress.reopened(2)
    assert progress.commit_due == Place(2)
    progress.finished(2)
    assert progress.commit_due == Place(6)


def test_gaps_in_the_offsets_do_not_hold_the_commit_back() -> None:
    # Compaction and transaction markers leave offsets out.
    progress = PartitionProgress("events", 0)
    for offset in (3, 7, 20):
        progress.fetched(offset, 1)
    progress.finished(3)
    assert progress.commit_due == Place(7)
    assert progress.held == 3
    progress.committed(Place(7))
    assert progress.held == 2


def test_what_is_finished_and_not_committed_is_held_as_a_crash_would_repeat_it() -> None:
    progress = PartitionProgress("events", 0)
    for offset in (1, 2, 3):
        progress.fetched(offset, 1)
        progress.finished(offset)
    assert progress.held == 3
    progress.reopened(2)
    assert progress.held == 3, "each message counts once"
    progress.commit_asked(Place(2))
    assert progress.held == 3, "Kafka has not answered"
    progress.commit_confirmed(Place(2))
    assert progress.held == 2
    progress.finished(2)
    progress.committed(Place(4))
    assert progress.held == 0


@given(st.permutations(range(30)), st.integers(0, 30))
def test_a_crash_at_any_moment_repeats_messages_and_skips_none(order: list[int], finished: int) -> None:
    progress = PartitionProgress("events", 0)
    for offset in range(30):
        progress.fetched(offset, 1)
    for offset in order[:finished]:
        progress.finished(offset)
    goes_on_from = progress.finished_to
    assert goes_on_from is not None
    assert set(range(goes_on_from)) <= set(order[:finished])
    assert goes_on_from == 30 or goes_on_from not in order[:finished]


def test_what_was_fetched_ahead_is_not_committed_and_not_expected_again() -> None:
    progress = PartitionProgress("events", 0)
    progress.received(4)
    progress.fetched(4, 1)
    progress.received(5)
    assert progress.next_offset == 6
    progress.finished(4)
    assert progress.commit_due == Place(5)


def test_a_gap_behind_what_was_fetched_ahead_is_not_committed_before_that_is_done() -> None:
    progress = PartitionProgress("events", 0)
    progress.received(4)
    progress.fetched(4, 1)
    progress.finished(4)
    progress.received(5)
    progress.goes_on_at(90)
    assert progress.next_offset == 90
    assert progress.commit_due == Place(5)
    progress.fetched(5, 0)
    progress.received(90)
    progress.fetched(90, 1)
    assert progress.commit_due == Place(90)


def test_a_gap_with_nothing_before_it_is_committed_at_once() -> None:
    progress = PartitionProgress("events", 0, begun_at=Place(4))
    progress.goes_on_at(90)
    assert progress.commit_due == Place(90)
