"""Events that Vault sends again are looked at once where that is switched on; each still has its outcome."""

import json
from pathlib import Path
from typing import Any

from consumer.backlog import InHand
from consumer.duplicates import MAX_WAITING, Duplicates, identity_of
from consumer.events import RecordingEvent, parse_message
from consumer.messages import Position
from consumer.offsets import PartitionProgress
from consumer.replay_mark import ReplayMark
from tests.fakes.recorded_events import README_EVENT
from tests.worlds import World, keys

PROGRESS = PartitionProgress("events", 0)


def event(key: str = "cam/0.mp4", **changed: object) -> RecordingEvent:
    raw: dict[str, Any] = json.loads(json.dumps(README_EVENT)) | changed
    raw["payload"]["key"] = key
    (parsed,) = parse_message(json.dumps(raw).encode())
    assert isinstance(parsed, RecordingEvent)
    return parsed


def in_hand(offset: int, key: str = "cam/0.mp4", progress: PartitionProgress = PROGRESS) -> InHand:
    return InHand(event(key), Position("events", progress.partition, offset), progress, 0.0, b"{}")


def test_events_are_the_same_when_they_say_the_same_but_for_their_credentials() -> None:
    signed = json.loads(json.dumps(README_EVENT["payload"])) | {"signedUrl": "https://store/x?sig=1"}
    again = json.loads(json.dumps(README_EVENT["payload"])) | {"signedUrl": "https://store/x?sig=2"}
    assert identity_of(event(payload=signed)) == identity_of(event(payload=again))
    assert identity_of(event("a.mp4")) != identity_of(event("b.mp4"))
    assert identity_of(event()) != identity_of(event(date=1)), "stored again under its key"
    assert identity_of(event()) != identity_of(event(source="another provider"))


def test_a_repetition_waits_for_its_first_and_is_then_its_duplicate() -> None:
    duplicates, first, second = Duplicates(10), in_hand(0), in_hand(1)
    assert duplicates.meet(first)
    assert not duplicates.meet(second)
    assert duplicates.waiting == 1
    assert duplicates.ended(first, answered=True) == [second]
    assert not duplicates.meet(second)
    assert second.duplicate_of == first.position
    assert duplicates.waiting == 0


def test_where_the_first_fails_the_next_takes_its_place() -> None:
    duplicates, first, second, third = Duplicates(10), in_hand(0), in_hand(1), in_hand(2)
    assert [duplicates.meet(each) for each in (first, second, third)] == [True, False, False]
    waited = duplicates.ended(first, answered=False)
    assert [duplicates.meet(each) for each in waited] == [True, False]
    assert duplicates.ended(second, answered=True) == [third]


def test_those_whose_partition_went_are_not_given_back() -> None:
    going = PartitionProgress("events", 1)
    duplicates, first, second = Duplicates(10), in_hand(0), in_hand(1, progress=going)
    duplicates.meet(first)
    duplicates.meet(second)
    going.revoked = True
    assert duplicates.ended(first, answered=True) == []


def test_no_event_is_the_duplicate_of_itself() -> None:
    duplicates, first = Duplicates(10), in_hand(0, progress=PartitionProgress("events", 0))
    assert duplicates.meet(first)
    duplicates.ended(first, answered=True)
    first.progress.revoked = True  # before its result was in Kafka
    again, repeated = in_hand(0), in_hand(1)
    assert duplicates.meet(again), "else nothing ever answers it"
    assert again.duplicate_of is None
    assert not duplicates.meet(repeated)
    assert duplicates.ended(again, answered=True) == [repeated]
    assert not duplicates.meet(repeated)
    assert repeated.duplicate_of == again.position


def test_only_the_last_ones_are_remembered() -> None:
    duplicates = Duplicates(2)
    for offset, key in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        recording = in_hand(offset, key)
        duplicates.meet(recording)
        duplicates.ended(recording, answered=True)
    assert [duplicates.meet(in_hand(9, key)) for key in ("c.mp4", "b.mp4", "a.mp4")] == [False, False, True]


def test_only_so_many_wait_for_one_recording() -> None:
    duplicates = Duplicates(10)
    met = [duplicates.meet(in_hand(offset)) for offset in range(MAX_WAITING + 5)]
    assert met == [True] + [False] * MAX_WAITING + [True] * 4
    assert duplicates.waiting == MAX_WAITING


def test_a_replay_is_meant_to_be_looked_at_again() -> None:
    duplicates, first, replayed = Duplicates(10), in_hand(0), in_hand(1)
    duplicates.meet(first)
    duplicates.ended(first, answered=True)
    replayed.replay = ReplayMark("dead-letter", "events/0/0/0", 1, "2026-11-23T12:00:00Z")
    assert duplicates.meet(replayed)


def test_switched_off_nothing_is_a_duplicate() -> None:
    duplicates = Duplicates(0)
    assert duplicates.meet(in_hand(0))
    assert duplicates.meet(in_hand(1))


def test_a_pod_looks_once_at_an_event_that_comes_again_and_says_so(world: World, clip: Path) -> None:
    first, other = world.store("cam/0.mp4", clip), world.store("cam/1.mp4", clip)
    anew = json.loads(json.dumps(first)) | {"date": 1}
    with world.pod(DUPLICATE_WINDOW="100", WORKERS="2") as pod:
        world.send(first, first, other)
        world.results(3)
        world.send(first, anew)
        records = world.results(5)
        pod.wait_for(lambda: world.committed() == {0: 5}, "committed")
        assert pod.metric("vault_ml_recordings_total", outcome="skipped", reason="duplicate") == 2
        assert pod.metric("vault_ml_recordings_total", outcome="done") == 3
    by_source = {record.headers["vault-ml-source"]: record for record in records}
    for offset in (1, 3):
        record = by_source[f"{world.source}/0/{offset}/0"]
        assert record.headers["vault-ml-outcome"] == "skipped:duplicate"
        assert record.headers["vault-ml-first"] == f"{world.source}/0/0/0"
        assert json.loads(record.value or b"{}")["data"]["labels"] == []
    assert by_source[f"{world.source}/0/4/0"].headers["vault-ml-outcome"] == "done", "stored again"
    assert len(keys(records)) == 5


def test_the_repetition_of_a_dead_letter_is_tried_by_itself(world: World, clip: Path) -> None:
    event = world.store("cam/0.mp4", clip)
    event["payload"]["key"] = "cam/missing.mp4"
    world.send(event, event)
    with world.pod(DUPLICATE_WINDOW="100") as pod:
        letters = world.letters(2)
        pod.wait_for(lambda: world.committed() == {0: 2}, "committed")
    assert {letter["deadLetter"]["attributes"]["reason"] for letter in letters} == {"refused"}


def test_by_default_each_event_is_looked_at(world: World, clip: Path) -> None:
    event = world.store("cam/0.mp4", clip)
    world.send(event, event)
    with world.pod():
        outcomes = {record.headers["vault-ml-outcome"] for record in world.results(2)}
    assert outcomes == {"done"}
