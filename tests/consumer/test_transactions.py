"""What goes into which transaction, whatever becomes of those before; a producer that answers as told."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer import rows, transactions
from consumer.backlog import InHand
from consumer.delivery import Letter, Outcome, Receipt
from consumer.errors import ProducerEnded
from consumer.events import RecordingEvent
from consumer.messages import OutgoingMessage, Position
from consumer.offsets import PartitionProgress, Place
from consumer.transactional_producer import Batch, Fate, NotWritten, Written
from consumer.transactions import BATCH_SECONDS, BLOCKED_SECONDS, Transactions

GOOD, DEAD = "results", "letters"


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(transactions, "time", clock)
    yield clock


@dataclass
class Kafka:
    """Answers each batch by `judge`, at once."""

    judge: Callable[[Batch], Fate] = lambda batch: Written()
    assigned: list[PartitionProgress] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)

    def write(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.fates.append(self.judge(batch))

    def take(self, wait_seconds: float = 0.0) -> Fate | None:
        return self.fates.pop() if self.fates else None

    def close(self) -> None:
        """Nothing is open."""

    def group_metadata(self) -> Any:  # noqa: ANN401  # opaque, as that of librdkafka
        return None


@dataclass
class Pod:
    """Transactions, and what came of them."""

    kafka: Kafka
    clock: Clock
    receipts: list[Receipt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ends: list[bool] = []
        self.transactions = Transactions(self.kafka, self.kafka, self.ends.append)

    def partition(self, number: int) -> PartitionProgress:
        progress = PartitionProgress("events", number)
        self.kafka.assigned.append(progress)
        return progress

    def finish(self, progress: PartitionProgress, *offsets: int, topic: str = GOOD) -> None:
        for offset in offsets:
            progress.fetched(offset, 1)
        for offset in offsets:
            self.transactions.send(letter(progress, offset, topic))

    def run(self, seconds: float) -> int:
        """Turn for that long; return the number of transactions that it made."""
        before, until = len(self.kafka.batches), self.clock.now + seconds
        while self.clock.now < until:
            self.receipts += self.transactions.turn()
            self.clock.sleep(0.01)
        return len(self.kafka.batches) - before


def letter(progress: PartitionProgress, offset: int, topic: str = GOOD) -> Letter:
    position = Position(progress.topic, progress.partition, offset)
    recording = InHand(RecordingEvent(raw={}, key=str(position)), position, progress, 0.0, b"{}")
    message = OutgoingMessage(str(position).encode(), b"v", [])
    return Letter(topic, message, recording, Outcome("done", "", {}), time.monotonic())


def carried(batch: Batch) -> list[str]:
    return [message.key.decode() for _, message in batch.messages]


def abort_where(bad: Callable[[str, OutgoingMessage], bool], why: str = "Erroneous state") -> Any:  # noqa: ANN401
    """Judge as a broker that refuses a transaction and does not say for which message."""

    def judge(batch: Batch) -> Fate:
        return NotWritten(why) if any(bad(*message) for message in batch.messages) else Written()

    return judge


def to_the_dead(topic: str, _message: OutgoingMessage) -> bool:
    return topic == DEAD


def no_dead_topic(batch: Batch) -> Fate:
    nowhere = frozenset(n for n, (topic, _) in enumerate(batch.messages) if topic == DEAD)
    return NotWritten("Unknown topic", nowhere=nowhere) if nowhere else Written()


@pytest.fixture
def pod(clock: Clock) -> Pod:
    return Pod(Kafka(), clock)


def test_only_the_unbroken_row_is_written_with_the_offset_behind_it(pod: Pod) -> None:
    progress = pod.partition(0)
    progress.fetched(0, 1)
    pod.finish(progress, 1, 2)
    assert pod.run(1.0) == 1, "the place where it begins"
    assert pod.kafka.batches[-1].messages == ()
    assert pod.transactions.undelivered == 0
    pod.transactions.send(letter(progress, 0))
    pod.run(1.0)
    assert len(carried(pod.kafka.batches[-1])) == 3
    assert progress.committed_place == Place(3)
    assert progress.held_bytes == 0


def test_a_letter_that_is_refused_without_a_name_does_not_stop_other_partitions(pod: Pod) -> None:
    # AddPartitionsToTxn for a topic that we may describe and not write to: all delivery reports say "purged".
    bad, good = pod.partition(0), pod.partition(1)
    pod.kafka.judge = abort_where(to_the_dead)
    pod.finish(bad, 0, topic=DEAD)
    pod.finish(bad, 1)
    pod.finish(good, *range(100))
    with capture_logs() as lines:
        pod.run(10.0)
    assert good.committed_place == Place(100)
    assert bad.committed_place in (None, Place(0)), "the bad one keeps its place"
    (said,) = [line for line in lines if line["event"] == "result not delivered, sending again"]
    assert said["topic"] == DEAD
    assert said["source"] == "events/0/0"
    assert "grant WRITE" in said["why"]
    assert pod.transactions.troubled
    pod.kafka.judge = lambda batch: Written()
    pod.run(2 * BLOCKED_SECONDS)
    assert bad.committed_place == Place(2)
    assert not pod.transactions.troubled
    assert len(pod.receipts) == 102


def test_several_letters_that_are_refused_without_a_name_hold_up_their_own_partitions_alone(pod: Pod) -> None:
    partitions = [pod.partition(number) for number in range(6)]
    pod.kafka.judge = abort_where(to_the_dead)
    for progress in partitions[::2]:
        pod.finish(progress, *range(10))
        pod.finish(progress, 10, topic=DEAD)
    for progress in partitions[1::2]:
        pod.finish(progress, *range(30))
    pod.run(30.0)
    assert {progress.committed_place for progress in partitions[::2]} == {Place(10)}
    assert {progress.committed_place for progress in partitions[1::2]} == {Place(30)}


def test_an_offset_that_kafka_refuses_without_a_letter_holds_up_its_own_partition_alone(pod: Pod) -> None:
    bad, good = pod.partition(0), pod.partition(1)
    bad.note = "a note that is too long for the broker"
    bad.fetched(0, 1)

    def judge(batch: Batch) -> Fate:
        return NotWritten("Metadata too large") if any(at.metadata for at in batch.offsets) else Written()

    pod.kafka.judge = judge
    pod.finish(good, 0, 1)
    pod.run(10.0)
    assert good.committed_place == Place(2)
    bad.note = ""
    pod.run(2 * BLOCKED_SECONDS)
    assert bad.committed_place == Place(0)


def test_a_kafka_that_aborts_everything_for_a_while_gets_everything_in_the_end(pod: Pod) -> None:
    partitions = [pod.partition(number) for number in range(4)]
    pod.kafka.judge = abort_where(lambda topic, message: True)
    for progress in partitions:
        pod.finish(progress, *range(25))
    assert pod.run(60.0) < 60 * 4, "it does not spin"
    assert pod.transactions.troubled
    pod.kafka.judge = lambda batch: Written()
    assert pod.run(3.0) < 20, "nor does it go one by one"
    assert {progress.committed_place for progress in partitions} == {Place(25)}
    assert not pod.transactions.troubled


def test_letters_behind_one_without_a_topic_do_not_count_as_on_their_way(pod: Pod) -> None:
    bad, good = pod.partition(0), pod.partition(1)
    pod.kafka.judge = no_dead_topic
    pod.finish(bad, 0, topic=DEAD)
    pod.run(1.0)
    pod.finish(bad, *range(1, 101))
    pod.run(1.0)
    assert pod.transactions.undelivered == 0, "the pod must go on with other partitions"
    assert bad.held == 101, "and not with this one, once it is too much"
    pod.finish(good, *range(5))
    pod.run(1.0)
    assert good.committed_place == Place(5)


def test_a_letter_without_a_topic_is_tried_again_alone_and_at_its_own_pace(pod: Pod) -> None:
    bad, good = pod.partition(0), pod.partition(1)
    pod.kafka.judge = no_dead_topic
    pod.finish(bad, 0, topic=DEAD)
    pod.finish(good, 0)
    pod.run(1.0)
    begun = len(pod.kafka.batches)
    for offset in range(1, 101):
        pod.finish(good, offset)
        pod.run(0.1)
    again = [batch for batch in pod.kafka.batches[begun:] if "events/0/0" in " ".join(carried(batch))]
    assert len(again) <= 10.0 / BLOCKED_SECONDS + 1
    assert {len(batch.messages) for batch in again} == {1}, "no good one is aborted with it"
    pod.kafka.judge = lambda batch: Written()
    pod.run(2 * BLOCKED_SECONDS)
    assert bad.committed_place == Place(1)


def test_once_a_topic_is_there_all_that_waited_for_it_goes(pod: Pod) -> None:
    partitions = [pod.partition(number) for number in range(12)]
    pod.kafka.judge = no_dead_topic
    for progress in partitions:
        pod.finish(progress, *range(10), topic=DEAD)
    pod.run(5.0)
    pod.kafka.judge = lambda batch: Written()
    pod.run(2 * BLOCKED_SECONDS)
    assert {progress.committed_place for progress in partitions} == {Place(10)}


def test_many_letters_without_a_topic_wait_in_order_and_go_in_order(pod: Pod) -> None:
    progress = pod.partition(0)
    pod.kafka.judge = no_dead_topic
    pod.finish(progress, *range(300), topic=DEAD)
    pod.run(10.0)
    assert len(pod.kafka.batches) <= 2 + 10.0 / BLOCKED_SECONDS, "one of them is enough to ask for all"
    pod.kafka.judge = lambda batch: Written()
    begun = len(pod.kafka.batches)
    pod.run(10.0)
    assert progress.committed_place == Place(300)
    written = [key for batch in pod.kafka.batches[begun:] for key in carried(batch)]
    assert written == [f"events/0/{offset}/0" for offset in range(300)]


def refuse_large(*keys: str) -> Callable[[Batch], Fate]:
    """Judge as a topic that refuses whole requests, of three messages here, for one of them."""

    def judge(batch: Batch) -> Fate:
        at = [n for n, key in enumerate(carried(batch)) if key in keys]
        of_requests = {3 * (n // 3) + k for n in at for k in range(3)} & {*range(len(batch.messages))}
        return NotWritten("Too large", too_large=frozenset(of_requests)) if at else Written()

    return judge


def test_only_the_letters_of_a_refused_request_go_one_by_one(pod: Pod) -> None:
    progress = pod.partition(0)
    large = letter(progress, 50).message.key.decode()
    pod.kafka.judge = refuse_large(large)
    pod.finish(progress, *range(100))
    pod.run(4 * BATCH_SECONDS)
    (refused,) = [receipt for receipt in pod.receipts if receipt.refused is not None]
    assert refused.letter.message.key.decode() == large
    assert len(pod.kafka.batches) <= 8
    assert progress.committed_place == Place(50)
    pod.transactions.send(letter(progress, 50, DEAD))
    pod.kafka.judge = lambda batch: Written()
    pod.run(0.5)
    assert progress.committed_place == Place(100)


def test_what_comes_in_place_of_a_letter_that_was_too_large_takes_nobody_with_it(pod: Pod) -> None:
    progress, other = pod.partition(0), pod.partition(1)
    large = letter(progress, 0).message.key.decode()
    pod.kafka.judge = refuse_large(large)
    pod.finish(progress, 0)
    pod.run(0.5)
    begun = len(pod.kafka.batches)
    for offset in range(5):
        pod.finish(other, offset)
        pod.transactions.send(letter(progress, 0, DEAD))
        pod.run(0.5)
    alone = [batch for batch in pod.kafka.batches[begun:] if large in carried(batch)]
    assert {len(batch.messages) for batch in alone} == {1}
    assert len(alone) == 5
    assert other.committed_place == Place(5)


def test_what_was_set_apart_is_forgotten_with_its_partition(pod: Pod) -> None:
    gone, stays = pod.partition(0), pod.partition(1)
    pod.kafka.judge = lambda batch: NotWritten("Too large", too_large=frozenset(range(len(batch.messages))))
    pod.finish(gone, 0, 1)
    pod.finish(stays, 0, 1)
    while not pod.kafka.batches:
        pod.run(0.01)
    pod.kafka.judge = lambda batch: Written()
    pod.kafka.assigned.remove(gone)
    gone.revoked = True
    pod.run(1.0)
    assert stays.committed_place == Place(2)
    later = pod.partition(2)
    pod.finish(stays, 10, 11)
    pod.finish(later, 10, 11)
    pod.run(1.0)
    assert len(pod.kafka.batches[-1].messages) == 4


def test_an_abort_for_partitions_that_went_away_is_no_lasting_trouble(pod: Pod) -> None:
    progress = pod.partition(0)
    pod.kafka.judge = abort_where(lambda topic, message: True, "Generation")
    pod.finish(progress, 0)
    pod.run(0.3)
    assert pod.transactions.troubled
    pod.kafka.assigned.clear()
    progress.revoked = True
    pod.run(1.0)
    assert not pod.transactions.troubled
    assert pod.transactions.undelivered == 0
    later = pod.partition(1)
    pod.finish(later, 0)
    with capture_logs() as lines:
        pod.run(1.0)
    assert [line["event"] for line in lines] == ["transaction aborted, writing again"], "it is said again"


def test_settling_does_not_wait_for_what_has_nowhere_to_go(pod: Pod) -> None:
    bad, good = pod.partition(0), pod.partition(1)
    pod.kafka.judge = no_dead_topic
    pod.finish(bad, 0, topic=DEAD)
    pod.run(1.0)
    pod.finish(good, 0, 1, 2)
    started = pod.clock.now
    pod.receipts += pod.transactions.settle([bad, good], started + 30.0)
    assert good.committed_place == Place(3)
    assert pod.clock.now - started < BLOCKED_SECONDS


def test_settling_writes_again_what_was_aborted(pod: Pod) -> None:
    progress = pod.partition(0)
    fates: list[Fate] = [NotWritten("Coordinator moved")]
    pod.kafka.judge = lambda batch: fates.pop() if fates else Written()
    pod.finish(progress, 0)
    receipts = pod.transactions.settle([progress], pod.clock.now + 6.0)
    assert len(receipts) == 1
    assert progress.committed_place == Place(1)


def test_a_transaction_is_bounded_in_letters(pod: Pod) -> None:
    progress = pod.partition(0)
    pod.finish(progress, *range(2 * rows.BATCH_LETTERS))
    pod.run(1.0)
    assert [len(batch.messages) for batch in pod.kafka.batches] == [rows.BATCH_LETTERS] * 2
    assert progress.committed_place == Place(2 * rows.BATCH_LETTERS)


def test_where_kafka_has_ended_the_producer_nothing_more_is_tried(pod: Pod) -> None:
    progress = pod.partition(0)
    pod.kafka.judge = lambda batch: ProducerEnded("it is over")
    pod.finish(progress, 0)
    with pytest.raises(ProducerEnded):
        pod.run(1.0)
    started = pod.clock.now
    assert pod.transactions.settle([progress], started + 6.0) == []
    assert pod.clock.now == started
    assert progress.committed_place is None
