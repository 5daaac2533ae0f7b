"""Comparisons, read back from the diff topic of the consumers, without a group."""

import time
from collections.abc import Iterator
from datetime import datetime

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.comparison import Comparison
from consumer.connection import KafkaConnection
from consumer.errors import SetupError

TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 15.0


def read(
    connection: KafkaConnection,
    topic: str,
    *,
    since: datetime | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[Comparison]:
    """Yield every comparison that the topic holds now; what is none of them is left out.

    Args:
        connection: to the brokers.
        topic: its name.
        since: only messages that the broker got from then on.
        timeout_seconds: for all of it.

    Raises:
        SetupError: no broker answers, it refuses us, there is no such topic, or the time ran out.
    """
    consumer = Consumer(
        connection.properties()
        | {
            "group.id": "vault-ml-model",  # librdkafka wants one; it is not joined and nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,  # with aborted transactions the last offset may never be seen
        }
    )
    try:
        left = _begin(consumer, topic, since)
        deadline = time.monotonic() + timeout_seconds
        while left:
            message = consumer.poll(_POLL_SECONDS)
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{topic} was not read to its end within {timeout_seconds:g} seconds: "
                    "look back less far with --within."
                )
            if message is None:
                continue
            # librdkafka looks for its group's coordinator unasked; what the topic holds comes without it.
            partition, error = message.partition() or 0, message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                left.pop(partition, None)
            elif error is not None and error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise SetupError(f"{topic} cannot be read: {error.str()}.")
            elif error is None and partition in left:
                comparison = _comparison(message.value())
                if comparison is not None:
                    yield comparison
                if (message.offset() or 0) + 1 >= left[partition]:
                    del left[partition]
    except KafkaException as error:
        raise SetupError(f"{topic} cannot be read: {error.args[0].str()}.") from error
    finally:
        consumer.close()


def _begin(consumer: Consumer, topic: str, since: datetime | None) -> dict[int, int]:
    """Go to where the time begins; returns the end of each partition that holds anything after it."""
    found = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
    if found.error is not None or not found.partitions:
        raise SetupError(
            f"There is no topic {topic}: a consumer writes it once a candidate is on trial; "
            "set QUEUE_COMPARISON if it has another name."
        )
    starts, ends = [], {}
    for number in found.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ANSWER_SECONDS)
        starts.append(TopicPartition(topic, number, low))
        ends[number] = high
    if since is not None:
        asked = [TopicPartition(topic, each.partition, int(since.timestamp() * 1000)) for each in starts]
        starts = consumer.offsets_for_times(asked, timeout=_ANSWER_SECONDS)
    starts = [each for each in starts if each.offset != OFFSET_END and each.offset < ends[each.partition]]
    consumer.assign(starts)
    return {each.partition: ends[each.partition] for each in starts}


def _comparison(value: bytes | None) -> Comparison | None:
    try:
        return None if value is None else Comparison.from_json(value)
    except ValueError:
        return None
