"""What a topic holds now, from a moment on: read to its end as it was at the start, without a group.

Nothing is joined and nothing committed, so consumers do not notice, and no right to a group is needed.
Messages of transactions that were aborted or are still open are not seen.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.connection import NOT_AUTHORISED, KafkaConnection, librdkafka_log, refusal
from consumer.errors import BrokerAway, StreamSetupError
from consumer.topics import Record, to_record

_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 10.0
_METADATA_SECONDS = 1.0
"""Of one question for metadata: in between, the reason why none is answered comes through a callback."""
SILENCE_SECONDS = 30.0
"""How long nothing may come before the end: then the broker is away."""

_REFUSALS = NOT_AUTHORISED - {KafkaError.GROUP_AUTHORIZATION_FAILED}
"""librdkafka looks for its group's coordinator unasked; what a topic holds comes without it."""


@dataclass(frozen=True)
class Stretch:
    """Offsets of one partition to read, without `end`; `oldest` is the first that the broker still has."""

    partition: int
    begin: int
    end: int
    oldest: int

    @classmethod
    def of_one(cls, partition: int, offset: int) -> Self:
        """Return the stretch of one message."""
        return cls(partition, offset, offset + 1, 0)


@dataclass(frozen=True)
class PastRecord:
    """A message of the past, with when it was written."""

    record: Record
    at: datetime


class Past:
    """Reads what a topic holds now; for one thread, as a context manager.

    Args:
        connection: to the brokers.
        topic: its name.
    """

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self.topic = topic
        self._connection = connection
        self._refusal: str | None = None
        self._consumer = Consumer(
            connection.properties()
            | {
                "group.id": "vault-ml-past",  # librdkafka wants one; it is not joined, nothing is committed
                "enable.auto.commit": False,
                # What expires between our asking and our reading is gone; what is behind it is not.
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                # Control records of transactions take offsets too: the last one may never be seen.
                "enable.partition.eof": True,
                # A broker without more to send says so only after this long; a person waits for it.
                "fetch.wait.max.ms": 20,
                "error_cb": self._on_error,
            },
            logger=librdkafka_log(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def stretches(self, since: datetime | None = None) -> list[Stretch]:
        """Return what there is to read from a moment on, for each partition; nothing of a missing topic.

        Raises:
            StreamSetupError: the login is refused, or we may not read the topic.
            BrokerAway: no broker answers.
        """
        try:
            partitions, error = self._ask_for_topic()
            if error is not None:
                if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                    return []
                raise self._named(error)
            return [self._stretch(number, since) for number in partitions]
        except KafkaException as failure:
            raise self._named(failure.args[0]) from failure

    def read(self, stretches: Sequence[Stretch]) -> Iterator[PastRecord]:
        """Yield the messages of these stretches; those of a partition are in order.

        Raises:
            StreamSetupError: the login is refused, or we may not read the topic.
            BrokerAway: nothing came for a while, and the end was not reached.
        """
        ends = {each.partition: each.end for each in stretches if each.begin < each.end}
        try:
            self._consumer.assign(
                [
                    TopicPartition(self.topic, each.partition, each.begin)
                    for each in stretches
                    if each.partition in ends
                ]
            )
            heard_at, trouble = time.monotonic(), ""
            while ends:
                if time.monotonic() - heard_at > SILENCE_SECONDS:
                    raise BrokerAway(
                        f"Kafka sent nothing more of topic {self.topic!r} for {SILENCE_SECONDS:g} s, and its "
                        f"end was not reached{trouble}; try again."
                    )
                message = self._consumer.poll(_POLL_SECONDS)
                if message is None:
                    continue
                partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.code() in _REFUSALS or error.fatal():
                        raise self._named(error)
                    # It may pass, and it may come for ever: a batch that cannot be unpacked, say.
                    trouble = f" ({error.str()}, partition {partition})"
                    continue
                if error is not None:
                    ends.pop(partition, None)
                elif partition in ends:
                    if offset < ends[partition]:
                        yield PastRecord(to_record(message), _written_at(message))
                    if offset + 1 >= ends[partition]:
                        del ends[partition]
                heard_at = time.monotonic()  # only now: whoever got the record may have taken his time
        except KafkaException as error:
            raise self._named(error.args[0]) from error
        finally:
            with contextlib.suppress(RuntimeError):  # closed already: whoever reads was ended in the middle
                self._consumer.unassign()

    def _ask_for_topic(self) -> tuple[list[int], KafkaError | None]:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                found = self._consumer.list_topics(self.topic, timeout=_METADATA_SECONDS).topics[self.topic]
                return sorted(found.partitions), found.error
            except KafkaException:
                self._consumer.poll(0)  # runs the error callback, which knows why nobody answers
                if self._refusal is not None or time.monotonic() > deadline:
                    raise

    def _stretch(self, number: int, since: datetime | None) -> Stretch:
        at = TopicPartition(self.topic, number)
        low, high = self._consumer.get_watermark_offsets(at, timeout=_ANSWER_SECONDS)
        begin = low
        if since is not None:
            asked = TopicPartition(self.topic, number, int(since.timestamp() * 1000))
            (answer,) = self._consumer.offsets_for_times([asked], timeout=_ANSWER_SECONDS)
            if answer.error is not None:
                raise self._named(answer.error)
            begin = high if answer.offset in (OFFSET_END, -1) else answer.offset
        return Stretch(number, begin, high, low)

    def _named(self, error: KafkaError) -> StreamSetupError | BrokerAway:
        if self._refusal is not None:
            return StreamSetupError(self._refusal)
        if error.code() in _REFUSALS:
            return StreamSetupError(
                f"Kafka does not let us read topic {self.topic!r}; grant DESCRIBE and READ."
            )
        return BrokerAway(
            f"Topic {self.topic!r} cannot be read: no broker of KAFKA_BROKER answers ({error.str()}); check "
            "the address and KAFKA_SECURITY."
        )

    def _on_error(self, error: KafkaError) -> None:
        self._refusal = refusal(self._connection, error) or self._refusal


def _written_at(message: Message) -> datetime:
    try:
        return datetime.fromtimestamp(max(0, message.timestamp()[1]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a producer may say any number
        return datetime.max.replace(tzinfo=UTC)
