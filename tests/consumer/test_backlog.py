"""The backlog: every recording is tried in turn, and none for ever."""

import random
from collections.abc import Collection

from consumer.backlog import MAX_BREAKDOWNS, Backlog, InHand, next_try_at
from consumer.events import RecordingEvent
from consumer.messages import Position
from consumer.offsets import PartitionProgress


def in_hand(key: str, progress: PartitionProgress | None = None) -> InHand:
    return InHand(
        RecordingEvent(raw={}, key=key),
        Position("events", 0, 0),
        progress or PartitionProgress("events", 0),
        fetched_at=0.0,
        payload=b"{}",
    )


def started(backlog: Backlog, now: float, held: Collection[str] = ()) -> str | None:
    following = backlog.start_next(now, lambda recording: recording.event.key not in held)
    return None if following is None else following[1].event.key


def try_at(recording: InHand, working_now: float, deadline_seconds: float = 300.0) -> float | None:
    return next_try_at(
        recording,
        now=1000.0,
        working_now=working_now,
        deadline_seconds=deadline_seconds,
        rng=random.Random(1),
    )


def test_the_recording_that_has_been_due_longest_is_tried_next() -> None:
    backlog = Backlog()
    for key, due in (("late", 30.0), ("first", 10.0), ("second", 20.0)):
        backlog.wait(in_hand(key), due)
    assert backlog.ready(25.0) == 2
    assert [started(backlog, 25.0) for _ in range(3)] == ["first", "second", None]
    assert (backlog.running, backlog.waiting) == (2, 1)


def test_one_that_may_not_begin_yet_holds_up_nobody_behind_it() -> None:
    backlog = Backlog()
    for due, key in enumerate(("held", "second", "third")):
        backlog.wait(in_hand(key), due)
    assert started(backlog, 5.0, {"held"}) == "second"
    assert started(backlog, 1.0, {"held"}) is None, "the third is not due"
    assert started(backlog, 5.0) == "held"


def test_a_probe_may_be_early() -> None:
    backlog = Backlog()
    backlog.wait(in_hand("later"), 100.0)
    assert backlog.start_next(5.0) is None
    assert backlog.start_next(5.0, early=True) is not None


def test_suspects_that_wait_for_each_other_do_not_stop_the_fetching() -> None:
    backlog = Backlog()
    suspect = in_hand("suspect")
    suspect.suspect = True
    backlog.wait(suspect, 0.0)
    backlog.wait(in_hand("other"), 0.0)
    assert backlog.ready(1.0) == 1


def test_recordings_of_a_partition_that_went_away_are_forgotten() -> None:
    gone = PartitionProgress("events", 0, revoked=True)
    backlog = Backlog()
    backlog.wait(in_hand("theirs", gone), 0.0)
    backlog.wait(in_hand("ours"), 0.0)
    assert [r.event.key for r in backlog.drop_waiting(revoked_only=True)] == ["theirs"]
    assert started(backlog, 0.0) == "ours"


def test_tries_come_slower_and_slower_until_the_deadline() -> None:
    recording = in_hand("a")
    recording.failing_since = 0.0
    waits = []
    for attempt in range(1, 12):
        recording.attempts = attempt
        due = try_at(recording, working_now=0.0)
        assert due is not None
        waits.append(due - 1000.0)
    assert waits[0] <= 1.0
    assert all(wait <= 30.0 for wait in waits)
    assert waits[-1] >= 15.0


def test_the_last_try_is_made_at_the_deadline_and_none_after_it() -> None:
    recording = in_hand("a")
    recording.attempts, recording.failing_since = 10, 0.0
    due = try_at(recording, working_now=299.0)
    assert due is not None
    assert due <= 1001.0
    assert try_at(recording, working_now=300.0) is None


def test_a_recording_that_ends_worker_processes_is_given_up_before_its_deadline() -> None:
    recording = in_hand("a")
    recording.attempts = recording.breakdowns = MAX_BREAKDOWNS
    assert try_at(recording, working_now=1.0) is None


def test_any_number_of_tries_has_a_next_one_within_the_longest_wait() -> None:
    recording = in_hand("a")
    recording.attempts, recording.failing_since = 100_000, 0.0
    due = try_at(recording, working_now=0.0)
    assert due is not None
    assert due <= 1030.0


def test_a_probe_is_the_newest_recording_that_was_never_tried() -> None:
    backlog = Backlog()
    for fetched_at, key in enumerate(("tried", "older", "newer")):
        recording = in_hand(key)
        recording.fetched_at = float(fetched_at)
        recording.started_at = 0.0 if key == "tried" else None
        backlog.wait(recording, 0.0)
    probes = [backlog.start_next(5.0, early=True) for _ in range(3)]
    assert [probe[1].event.key for probe in probes if probe] == ["newer", "older", "tried"]


def test_what_a_backlog_holds_counts_those_that_run() -> None:
    backlog = Backlog()
    for size_bytes in (100, 20, 3):
        recording = in_hand(str(size_bytes))
        recording.size_bytes = size_bytes
        backlog.wait(recording, 0.0)
    (ticket, _) = backlog.start_next(5.0) or (0, None)
    assert backlog.size_bytes == 123
    backlog.finish(ticket)
    assert backlog.size_bytes == 23


def test_the_first_recording_of_each_partition_is_known_whether_it_waits_or_runs() -> None:
    backlog, partitions = Backlog(), [PartitionProgress("events", n) for n in range(2)]
    for offset, progress in ((7, partitions[0]), (5, partitions[0]), (9, partitions[1])):
        recording = in_hand(f"{progress.partition}/{offset}", progress)
        recording.position = Position("events", progress.partition, offset)
        backlog.wait(recording, float(offset))
    backlog.start_next(6.0)
    assert {recording.event.key for recording in backlog.first_of_each()} == {"0/5", "1/9"}
