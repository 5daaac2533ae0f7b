"""Attempts: who may be tried when, across pods that die; each knows what the one before had committed."""

from dataclasses import dataclass, field

from consumer.attempts import CAREFUL_MESSAGES, NOTE_SECONDS, Attempts
from consumer.backlog import MAX_BREAKDOWNS, InHand
from consumer.errors import PodDied, WorkerTooLarge
from consumer.events import RecordingEvent
from consumer.history import decode
from consumer.messages import Position
from consumer.offsets import PartitionProgress, Place


@dataclass
class Life:
    """One pod on one partition, from its assignment on; what it had in hand when it died is lost with it."""

    begun_at: Place | None = None
    now: float = 1000.0
    attempts: Attempts = field(default_factory=Attempts)

    def __post_init__(self) -> None:
        self.progress = PartitionProgress("events", 0, begun_at=self.begun_at)
        self.progress.committed(self.begun_at)

    def fetch(self, offset: int) -> InHand:
        position = Position("events", 0, offset)
        recording = InHand(RecordingEvent(raw={}, key="a"), position, self.progress, 0.0, b"{}")
        self.progress.fetched(offset, 1)
        self.attempts.meet(self.progress)
        self.given_up = self.attempts.take_in(recording)
        return recording

    def commit(self) -> None:
        self.attempts.write(self.now)
        if (due := self.progress.commit_due) is not None:
            self.progress.committed(due)

    def begin(self, recording: InHand) -> bool:
        """Begin a try as soon as it may, if it may."""
        if not self.attempts.ask(recording):
            self.commit()
            if not self.attempts.ask(recording):
                return False
        self.attempts.begun(recording)
        return True

    def end(self, recording: InHand, reason: str | None = None) -> None:
        self.attempts.ended(recording)
        if reason is not None:
            recording.breakdowns += 1
            self.attempts.broke_down(recording, reason)
        else:
            self.progress.finished(recording.position.offset)

    def dies(self) -> "Life":
        """The next pod, which knows what was committed and no more."""
        return Life(self.progress.committed_place)


def test_the_first_try_of_a_partition_waits_until_it_is_written_down_whose_it_is() -> None:
    pod = Life()
    first = pod.fetch(7)
    assert not pod.attempts.ask(first)
    assert pod.progress.commit_due is not None, "although no offset has moved"
    pod.commit()
    assert pod.attempts.ask(first)
    assert pod.attempts.ask(pod.fetch(8)), "and none after it waits"


def test_a_breakdown_is_written_down_before_the_next_try_and_the_next_pod_knows_it() -> None:
    pod = Life()
    recording = pod.fetch(7)
    assert pod.begin(recording)
    pod.end(recording, "worker_too_large")
    assert not pod.attempts.ask(recording)
    pod.commit()
    assert pod.attempts.ask(recording)
    successor = pod.dies()
    again = successor.fetch(7)
    assert (again.breakdowns, again.attempts) == (1, 1)
    assert successor.given_up is None


def test_breakdowns_add_up_over_pods_to_a_dead_letter_with_their_own_reason() -> None:
    pod = Life()
    for breakdown in range(1, MAX_BREAKDOWNS + 1):
        recording = pod.fetch(7)
        assert recording.breakdowns == breakdown - 1
        assert pod.begin(recording)
        pod.end(recording, "worker_too_large")
        pod.commit()
        pod = pod.dies()
    pod.fetch(7)
    assert isinstance(pod.given_up, WorkerTooLarge)
    assert pod.fetch(8).breakdowns == 0
    assert pod.given_up is None


def test_a_dead_letter_after_deaths_of_both_kinds_blames_neither_for_all() -> None:
    pod = Life()
    for _ in range(MAX_BREAKDOWNS - 1):
        recording = pod.fetch(7)
        assert pod.begin(recording)
        pod.end(recording, "worker_died")
    assert pod.begin(recording)
    pod.now += NOTE_SECONDS
    pod.commit()
    pod = pod.dies()
    assert pod.begin(pod.fetch(7))
    pod = pod.dies()
    pod.fetch(7)
    assert isinstance(pod.given_up, PodDied)
    assert "Workers or the pod ended 3 times" in str(pod.given_up)


def test_what_a_dead_pod_had_under_way_is_tried_one_by_one_while_others_go_on() -> None:
    pod = Life()
    for offset in (7, 8):
        assert pod.begin(pod.fetch(offset))
    pod.now += NOTE_SECONDS
    pod.commit()
    successor = pod.dies()
    seven, eight, nine = (successor.fetch(offset) for offset in (7, 8, 9))
    assert (seven.suspect, eight.suspect, nine.suspect) == (True, True, False)
    assert successor.begin(seven)
    assert not successor.begin(eight), "one suspect at a time"
    assert successor.begin(nine)
    successor.end(seven)
    assert successor.begin(eight)
    successor.end(eight)
    successor.now += NOTE_SECONDS
    successor.commit()
    place = successor.progress.committed_place
    assert place is not None
    left = decode(place.note)
    assert left is not None
    assert not left.tried, "they lived through it, so nothing is held against them"


def test_a_recording_that_ends_each_pod_is_found_even_if_it_does_so_at_once() -> None:
    pod, deaths = Life(), 0
    while True:
        first, killer, other = (pod.fetch(offset) for offset in (7, 8, 9))
        if isinstance(pod.given_up, PodDied) or killer.breakdowns >= MAX_BREAKDOWNS:
            break
        for recording in (first, killer, other):
            if pod.begin(recording):
                if recording is killer:
                    break
                pod.end(recording)
        deaths += 1
        assert deaths < 10
        pod = pod.dies()
    assert deaths <= 2 + MAX_BREAKDOWNS


def test_nothing_is_suspect_after_a_pod_that_left_in_good_order() -> None:
    pod = Life()
    for offset in (7, 8):
        assert pod.begin(pod.fetch(offset))
    pod.now += NOTE_SECONDS
    pod.commit()
    pod.attempts.leave([pod.progress])
    pod.progress.committed(pod.progress.commit_due)
    assert pod.progress.note == ""
    successor = pod.dies()
    seven = successor.fetch(7)
    assert not seven.suspect
    successor.commit()
    assert successor.attempts.ask(seven), "and nobody waits to be announced"


def test_a_suspect_under_way_when_its_pod_leaves_in_good_order_is_not_blamed() -> None:
    pod = Life()
    assert pod.begin(pod.fetch(7))
    pod.now += NOTE_SECONDS
    pod.commit()
    second = pod.dies()
    assert second.begin(second.fetch(7))
    second.attempts.leave([second.progress])
    second.progress.committed(second.progress.commit_due)
    third = second.dies()
    assert third.fetch(7).breakdowns == 0


def test_after_a_death_a_recording_is_announced_before_it_begins_but_not_far_behind() -> None:
    pod = Life()
    assert pod.begin(pod.fetch(7))
    successor = pod.dies()
    successor.fetch(7)
    near, far = successor.fetch(8), successor.fetch(7 + CAREFUL_MESSAGES)
    successor.commit()
    assert not successor.attempts.ask(near)
    assert successor.attempts.ask(far)
    successor.commit()
    place = successor.progress.committed_place
    assert place is not None
    assert '"8"' in place.note
    assert successor.attempts.ask(near)


def test_suspects_of_a_partition_that_was_taken_away_hold_nobody_up() -> None:
    pod = Life()
    assert pod.begin(pod.fetch(7))
    pod.now += NOTE_SECONDS
    pod.commit()
    place = pod.progress.committed_place
    successor = Life(place)
    assert successor.begin(successor.fetch(7))
    successor.progress.revoked = True
    successor.progress = PartitionProgress("events", 1, begun_at=place)
    successor.progress.committed(place)
    assert successor.begin(successor.fetch(7))


def test_a_foreign_note_is_ignored_and_replaced() -> None:
    pod = Life(Place(7, "somebody else's"))
    recording = pod.fetch(7)
    assert not recording.suspect
    assert pod.begin(recording)
    assert pod.progress.committed_place is not None
    assert decode(pod.progress.committed_place.note) is not None
