"""What a batch meets when librdkafka's calls fail or do not come back; a librdkafka that does as told."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer import transactional_producer
from consumer.connection import KafkaConnection
from consumer.errors import BrokerAway, ProducerEnded, ProducerFenced, TransactionsRefused
from consumer.messages import OutgoingMessage
from consumer.transactional_producer import Batch, Fate, NotWritten, TransactionalProducer, Written

SECONDS = 30.0
MESSAGE = OutgoingMessage(b"k", b"v", [])
OFFSETS = (TopicPartition("events", 0, 1),)


def failing(code: int, **kinds: bool) -> Callable[..., None]:
    def fail(*_of_the_call: object, **_options: object) -> None:
        raise KafkaException(KafkaError(code, "as told", **kinds))

    return fail


class Librdkafka:
    """A producer whose calls succeed, but those that were replaced; and note that they were made."""

    made: ClassVar[list["Librdkafka"]] = []
    replaced: ClassVar[list[dict[str, Callable[..., Any]]]] = []

    def __init__(self, properties: dict[str, object], logger: object) -> None:
        self.calls: list[str] = []
        self._replaced = self.replaced.pop(0) if self.replaced else {}
        self.made.append(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: object, **options: object) -> Any:  # noqa: ANN401  # what the fault returns
            self.calls.append(name)
            fault = self._replaced.get(name)
            return None if fault is None else fault(*arguments, **options)

        return call


@pytest.fixture(autouse=True)
def librdkafka(monkeypatch: pytest.MonkeyPatch) -> type[Librdkafka]:
    monkeypatch.setattr(transactional_producer, "Producer", Librdkafka)
    monkeypatch.setattr(Librdkafka, "made", [])
    monkeypatch.setattr(Librdkafka, "replaced", [])
    return Librdkafka


def producer(*replaced: dict[str, Callable[..., Any]]) -> TransactionalProducer:
    Librdkafka.replaced[:] = replaced
    return TransactionalProducer(
        KafkaConnection("broker:9092"), transactional_id="vault-ml-one", max_message_bytes=1_000_000
    )


def fate_of(writer: TransactionalProducer, *topics: str, offsets: tuple[TopicPartition, ...] = ()) -> Fate:
    writer.write(Batch(tuple((topic, MESSAGE) for topic in topics), offsets, None))
    fate = writer.take(SECONDS)
    assert fate is not None
    return fate


def test_a_batch_is_written_with_its_offsets() -> None:
    writer = producer()
    writer.begin()
    assert isinstance(fate_of(writer, "results", offsets=OFFSETS), Written)
    writer.close()
    assert Librdkafka.made[0].calls == [
        "init_transactions",
        "begin_transaction",
        "produce",
        "send_offsets_to_transaction",
        "commit_transaction",
    ]


def test_a_missing_right_is_named_with_its_topics_although_taking_it_back_ended_the_producer() -> None:
    writer = producer(
        {
            "commit_transaction": failing(KafkaError.TOPIC_AUTHORIZATION_FAILED, txn_requires_abort=True),
            "abort_transaction": failing(KafkaError.INVALID_TXN_STATE, fatal=True),
        }
    )
    writer.begin()
    fate = fate_of(writer, "results", "letters")
    assert isinstance(fate, ProducerEnded)
    assert not isinstance(fate, ProducerFenced)
    assert "grant WRITE" in str(fate)
    assert "'letters' or 'results'" in str(fate)


@pytest.mark.parametrize(
    "code", [KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH]
)
def test_only_a_fence_speaks_of_another_pod(code: int) -> None:
    writer = producer({"commit_transaction": failing(code, fatal=True)})
    writer.begin()
    fate = fate_of(writer, "results")
    assert isinstance(fate, ProducerFenced)
    assert "POD_NAME" in str(fate)


def test_a_fatal_error_that_is_no_fence_ends_the_producer_in_its_own_words() -> None:
    fatal = failing(KafkaError._INCONSISTENT, fatal=True)
    writer = producer({"begin_transaction": fatal, "abort_transaction": fatal})
    writer.begin()
    fate = fate_of(writer, "results")
    assert isinstance(fate, ProducerEnded)
    assert not isinstance(fate, ProducerFenced)
    assert "as told" in str(fate)
    assert "POD_NAME" not in str(fate)


def test_a_call_that_ran_out_of_time_is_made_again() -> None:
    late = [failing(KafkaError._TIMED_OUT, retriable=True)] * 2
    writer = producer({"commit_transaction": lambda *_: late.pop()() if late else None})
    writer.begin()
    assert isinstance(fate_of(writer, "results"), Written)
    assert Librdkafka.made[0].calls.count("commit_transaction") == 3


def test_a_message_whose_topic_is_missing_is_known_by_its_report() -> None:
    reports: list[Callable[..., None]] = []

    def produce(*_of_the_call: object, on_delivery: Callable[..., None], **_options: object) -> None:
        reports.append(on_delivery)

    def abort(*_of_the_call: object) -> None:
        reports[1](KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic"), None)

    writer = producer(
        {
            "produce": produce,
            "commit_transaction": failing(KafkaError._PURGE_QUEUE, txn_requires_abort=True),
            "abort_transaction": abort,
        }
    )
    writer.begin()
    fate = fate_of(writer, "results", "letters")
    assert fate == NotWritten("no such topic", nowhere=frozenset({1}))


def test_a_writer_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _what: None)

    def no_memory(*_of_the_call: object, **_options: object) -> None:
        raise MemoryError

    writer = producer({"produce": no_memory})
    before = threading.enumerate()
    writer.begin()
    (thread,) = [thread for thread in threading.enumerate() if thread not in before]
    writer.write(Batch((("results", MESSAGE),), (), None))
    thread.join(SECONDS)
    fate = writer.take()
    assert isinstance(fate, ProducerEnded)
    assert "died" in str(fate)


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stop the clock of the module; the list's last number is the time."""
    times = [0.0]

    class Clock:
        monotonic = staticmethod(lambda: times[-1])

    monkeypatch.setattr(transactional_producer, "time", Clock)
    return times


def test_offsets_that_never_come_back_are_given_up_and_their_transaction_is_never_committed(
    hours: list[float],
) -> None:
    reached, go = threading.Event(), threading.Event()

    def hang(*_of_the_call: object) -> None:
        reached.set()
        assert go.wait(SECONDS)

    writer = producer({"send_offsets_to_transaction": hang})
    before = threading.enumerate()
    writer.begin()
    (thread,) = [thread for thread in threading.enumerate() if thread not in before]
    writer.write(Batch((("results", MESSAGE),), OFFSETS, None))
    assert reached.wait(SECONDS)
    assert writer.take() is None, "it may still come back"
    hours.append(60.0)
    assert isinstance(writer.take(SECONDS), NotWritten)
    stuck, successor = Librdkafka.made
    assert successor.calls == ["init_transactions"], "which ends what the stuck one has open"
    go.set()
    assert isinstance(fate_of(writer, "results", offsets=OFFSETS), Written)
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert "commit_transaction" not in stuck.calls


def test_who_takes_over_from_a_stuck_writer_and_is_fenced_says_so(hours: list[float]) -> None:
    reached, go = threading.Event(), threading.Event()

    def hang(*_of_the_call: object) -> None:
        reached.set()
        assert go.wait(SECONDS)

    writer = producer(
        {"send_offsets_to_transaction": hang}, {"init_transactions": failing(KafkaError._FENCED, fatal=True)}
    )
    writer.begin()
    writer.write(Batch((("results", MESSAGE),), OFFSETS, None))
    assert reached.wait(SECONDS)
    hours.append(60.0)
    assert isinstance(writer.take(SECONDS), ProducerFenced)
    go.set()


@pytest.mark.parametrize(
    ("code", "fatal", "kind", "words"),
    [
        (
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            True,
            TransactionsRefused,
            "grant WRITE and DESCRIBE",
        ),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, True, TransactionsRefused, "transaction.max.timeout.ms"),
        (KafkaError.UNSUPPORTED_VERSION, True, TransactionsRefused, "KAFKA_DELIVERY=at-least-once"),
        (KafkaError._FENCED, True, ProducerFenced, "POD_NAME"),
        (KafkaError._INCONSISTENT, True, ProducerEnded, "ended our producer"),
        (KafkaError._TIMED_OUT, False, BrokerAway, "does not open transactions yet"),
    ],
)
def test_why_transactions_do_not_begin_is_told_with_what_helps(
    code: int, fatal: bool, kind: type[Exception], words: str
) -> None:
    writer = producer({"init_transactions": failing(code, fatal=fatal, retriable=not fatal)})
    with pytest.raises(kind, match=words):
        writer.begin()
