"""Reading what a topic holds, where Kafka has trouble that no real broker makes when it is asked to."""

import time

import pytest
from confluent_kafka import KafkaError

from consumer import past
from consumer.connection import KafkaConnection
from consumer.errors import BrokerAway
from consumer.topics import produce
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic


class Broken:
    """A librdkafka consumer that meets the same error again and again, as at a batch too large to unpack."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take what a consumer takes."""

    def assign(self, _: object) -> None:
        """Take whatever is given."""

    def poll(self, _: float) -> "Broken":
        return self

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._BAD_COMPRESSION)

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 5

    def unassign(self) -> None:
        """Forget what was given."""

    def close(self) -> None:
        """Forget everything."""


def test_an_error_that_comes_for_ever_ends_the_reading_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "Consumer", Broken)
    monkeypatch.setattr(past, "SILENCE_SECONDS", 0.05)
    with (
        past.Past(KafkaConnection("127.0.0.1:1"), "letters") as reading,
        pytest.raises(BrokerAway, match=r"end was not reached \(.*partition 3\); try again"),
    ):
        list(reading.read([past.Stretch(3, 5, 9, 0)]))


def test_whoever_takes_his_time_with_a_record_gets_the_next_one(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = create_topic(kafka.bootstrap, "letters")
    produce(kafka.bootstrap, topic, [b"a", b"b", b"c"])
    with past.Past(KafkaConnection(kafka.bootstrap), topic) as reading:
        records = reading.read(reading.stretches())
        first = next(records)
        monkeypatch.setattr(past, "SILENCE_SECONDS", 2.0)
        time.sleep(2.1)  # a person reads the first page
        assert [first.record.value, *(each.record.value for each in records)] == [b"a", b"b", b"c"]
