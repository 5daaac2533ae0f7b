"""Put messages onto a topic and read them back, without a group: what the demonstration and the tests do.

The consumer itself does not pass here; its way to Kafka is `stream`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.errors import BrokerAway
from consumer.headers import headers_of

_QUIET = {"log_level": 0}
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Record:
    """One message as it lies in a topic; header values are decoded as UTF-8, the last of a name wins."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]


def produce(
    bootstrap: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    key: bytes | None = None,
    partition: int = -1,
    timeout_seconds: float = 30.0,
) -> None:
    """Put values onto a topic and wait until the broker has confirmed each.

    Args:
        bootstrap: `host:port` of the broker.
        topic: where to.
        values: one message each; None is a tombstone.
        key: the key of all of them.
        partition: -1 lets the key decide.
        timeout_seconds: for all of them together.

    Raises:
        BrokerAway: the broker did not confirm all of them in time.
    """
    failures: list[str] = []

    def confirmed(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    producer = Producer(
        {"bootstrap.servers": bootstrap, "message.timeout.ms": int(timeout_seconds * 1000), **_QUIET}
    )
    for value in values:
        producer.produce(topic, value=value, key=key, partition=partition, on_delivery=confirmed)
    waiting = producer.flush(timeout_seconds)
    if waiting or failures:
        reason = failures[0] if failures else f"no answer within {timeout_seconds:g} s"
        raise BrokerAway(
            f"{waiting + len(failures)} messages did not reach {topic} on {bootstrap}: {reason}."
        )


def read_topic(bootstrap: str, topic: str, count: int, timeout_seconds: float) -> list[Record]:
    """Read a topic from its beginning until `count` records have been seen or the deadline has come.

    Returns what was there: fewer than `count` records when the deadline came first. The order is that of the
    partitions; aborted transactions are not seen.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "vault-ml-read",  # librdkafka wants one; it is not joined and nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,  # the mock cluster always waits this long before it answers
            **_QUIET,
        }
    )
    deadline = time.monotonic() + timeout_seconds
    records: list[Record] = []
    try:
        consumer.assign(
            [TopicPartition(topic, partition, 0) for partition in _partitions(consumer, topic, deadline)]
        )
        while len(records) < count and time.monotonic() < deadline:
            message = consumer.poll(_POLL_SECONDS)
            # An error here is a broker on its way up or down: the deadline decides.
            if message is not None and message.error() is None:
                records.append(to_record(message))
    finally:
        consumer.close()
    return records


def _partitions(consumer: Consumer, topic: str, deadline: float) -> list[int]:
    """Return the partitions of a topic; none when it has not come into being before the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            found = consumer.list_topics(topic, timeout=min(left, 5.0)).topics[topic]
        except KafkaException:
            continue  # list_topics has waited already
        if found.error is None and found.partitions:
            return sorted(found.partitions)
        time.sleep(_POLL_SECONDS)
    return []


def to_record(message: Message) -> Record:
    """Return a message as it was received, in our own words."""
    return Record(
        topic=str(message.topic()),
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers={name: value.decode("utf-8", "replace") for name, value in headers_of(message)},
    )
