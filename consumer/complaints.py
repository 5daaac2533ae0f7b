"""Complaints: what the Kafka client reports beside messages; each said once a minute, and what it means."""

import time

import structlog
from confluent_kafka import KafkaError

from consumer.connection import NOT_AUTHORISED, KafkaConnection, refusal
from consumer.errors import StreamSetupError
from consumer.offsets import PartitionProgress

_log = structlog.get_logger("vault-ml.stream")

REPEAT_SECONDS = 60.0
"""An error that lasts is said again after this long, not at each of librdkafka's attempts."""


class Complaints:
    """Hears what librdkafka reports to a member of a group.

    Args:
        connection: the brokers.
        group: KAFKA_GROUP.
        topic: QUEUE_NAME.
    """

    def __init__(self, connection: KafkaConnection, *, group: str, topic: str) -> None:
        self._connection, self._group, self._topic = connection, group, topic
        self.refusal: str | None = None
        """Why the brokers refuse our login, where they do."""
        self._said: dict[int, float] = {}
        self._unreadable: dict[int, float] = {}
        """Partitions whose next batch cannot be unpacked, and when that was said last."""

    @property
    def unreadable(self) -> bool:
        """Whether a partition stands still, because its next batch cannot be unpacked."""
        return bool(self._unreadable)

    def readable(self, number: int) -> None:
        """Take note of a message of a partition, or that the partition is not ours any more."""
        self._unreadable.pop(number, None)

    def on_error(self, error: KafkaError) -> None:
        """Hear what concerns no message; librdkafka's `error_cb`."""
        self.refusal = refusal(self._connection, error) or self.refusal
        self._say(error)

    def of_message(self, error: KafkaError, progress: PartitionProgress | None) -> None:
        """Hear what came in place of a message.

        Args:
            error: that it is.
            progress: of its partition, if that is ours.

        Raises:
            StreamSetupError: we may not read the topic or join the group, or are out of it for good.
        """
        if error.code() in NOT_AUTHORISED:
            raise StreamSetupError(
                f"Kafka does not let group {self._group!r} read topic {self._topic!r} ({error.str()}); "
                "grant READ on both."
            )
        if error.fatal():
            raise StreamSetupError(
                f"Kafka ended our membership for good ({error.str()}): if another pod has the same "
                "KAFKA_GROUP_INSTANCE_ID, give each its own."
            )
        if error.code() == KafkaError._BAD_COMPRESSION and progress is not None:
            self._cannot_unpack(progress, time.monotonic())
        else:
            self._say(error)

    def _say(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now - self._said.get(error.code(), -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._said[error.code()] = now
            _log.warning("kafka reports an error", error=error.str())

    def _cannot_unpack(self, progress: PartitionProgress, now: float) -> None:
        """Say that a partition stands still: librdkafka asks for the same batch for ever."""
        if now - self._unreadable.get(progress.partition, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._unreadable[progress.partition] = now
            _log.error(
                "messages cannot be unpacked, the partition stands still",
                topic=progress.topic,
                partition=progress.partition,
                offset=progress.next_offset,
                why="a compressed batch is broken, or over 100 MB unpacked: look at who wrote it, stop all "
                f"pods, and move the offset of group {self._group!r} behind it with kafka-consumer-groups.sh",
            )
