"""A compressed batch that is small on the wire and huge in memory: seen, named, and what keeps it out."""

import time

from confluent_kafka import KafkaError, Producer
from structlog.testing import capture_logs

from consumer.connection import KafkaConnection
from consumer.stream import EventSource
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic

BOMB = b" " * (120 * 1024**2)
"""About 4 KB as zstd; librdkafka unpacks as much as `receive.message.max.bytes`, 100 MB."""
SECONDS = 30.0


def produce(kafka: KafkaBroker, topic: str, value: bytes) -> KafkaError | None:
    """Write one message by itself; return why the broker refused it, if it did."""
    refused: list[KafkaError | None] = []
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "compression.type": "zstd",
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
        }
    )
    producer.produce(topic, value, partition=0, on_delivery=lambda error, message: refused.append(error))
    assert producer.flush(SECONDS) == 0
    return refused[0]


def test_a_batch_that_cannot_be_unpacked_is_named_with_its_place_and_counts_as_trouble(
    kafka: KafkaBroker,
) -> None:
    topic = create_topic(kafka.bootstrap, "packed")
    assert produce(kafka, topic, b"before") is None
    assert produce(kafka, topic, BOMB) is None
    assert produce(kafka, topic, b"behind") is None
    source = EventSource(KafkaConnection(kafka.bootstrap), group=f"group-{topic}", topic=topic)
    source.join(lambda going: None)
    deadline, given = time.monotonic() + SECONDS, []
    with capture_logs() as lines:
        while not source.away and time.monotonic() < deadline:
            if (message := source.poll(0.1)) is not None:
                given.append(message.value)
        for _ in range(20):
            source.poll(0.1)
    source.leave(timeout_seconds=5.0)
    (said,) = [line for line in lines if line["event"].startswith("messages cannot be unpacked")]
    assert (said["topic"], said["partition"], said["offset"]) == (topic, 0, 1)
    assert given == [b"before"]


def test_a_topic_that_stores_messages_unpacked_refuses_what_unpacks_to_more_than_its_limit(
    kafka: KafkaBroker,
) -> None:
    topic = create_topic(kafka.bootstrap, "unpacked", config={"compression.type": "uncompressed"})
    refused = produce(kafka, topic, BOMB)
    assert refused is not None
    assert refused.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert produce(kafka, topic, b"an event") is None
