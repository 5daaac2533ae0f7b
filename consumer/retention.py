"""Retention: what Kafka deletes before it was read is said and counted, and when it may happen next is known.

Kafka deletes whole segments whose newest message is older than the topic's `retention.ms` (its documentation,
topic configs). So a message may live longer than that, and never shorter unless `retention.bytes` is set.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its types forget what it offers
    AdminClient,
    ConfigResource,
    ResourceType,
)

from consumer.connection import NOT_AUTHORISED, KafkaConnection, librdkafka_log
from consumer.offsets import PartitionProgress

_log = structlog.get_logger("vault-ml.retention")

REFRESH_SECONDS = 600.0
"""Between two questions for the topic's retention: it is changed by people."""

_AGAIN_SECONDS = 60.0


class TopicRetention:
    """How long a topic keeps its messages, asked in the background now and then."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._asked_at: float | None = None
        self._asked: tuple[AdminClient, ConfigResource, Future[dict[str, object]]] | None = None
        self._next_at = 0.0
        self.refusals = 0
        """How often in a row Kafka did not say."""
        self.seconds: float | None = None
        """Infinite where nothing expires; None where that is not known."""

    def turn(self, now: float) -> None:
        """Take in what Kafka answered, or ask again when it is time; never waits."""
        if self._asked is not None:
            if self._asked[2].done():
                self._take(self._asked[2], now)
                self._asked = None
        elif now >= self._next_at:
            # The client must outlive the answer: its requests end with it.
            admin = AdminClient(self._connection.properties(), logger=librdkafka_log())
            topic = ConfigResource(ResourceType.TOPIC, self._topic)
            self._asked = admin, topic, admin.describe_configs([topic], request_timeout=5.0)[topic]

    def _take(self, answer: "Future[dict[str, object]]", now: float) -> None:
        try:
            configs = answer.result()
        except KafkaException as error:
            refused = error.args[0].code() in NOT_AUTHORISED
            self._next_at = now + (REFRESH_SECONDS if refused else _AGAIN_SECONDS)
            self.refusals += 1
            if self.refusals == 1:
                _log.info("retention not known", topic=self._topic, why=error.args[0].str())
            return
        self.refusals, self._next_at = 0, now + REFRESH_SECONDS
        self.seconds = retention_seconds(
            {name: str(getattr(entry, "value", "")) for name, entry in configs.items()}
        )


def retention_seconds(configs: dict[str, str]) -> float:
    """Return how long a topic with these configs keeps a message at least; infinite where it deletes none."""
    milliseconds = int(configs.get("retention.ms", -1))
    deletes = "delete" in configs.get("cleanup.policy", "delete")
    return milliseconds / 1000 if deletes and milliseconds >= 0 else math.inf


class Losses:
    """Says and counts the events that expired unread, each range once.

    Args:
        group: KAFKA_GROUP.
        expired: told how many offsets were lost; some of them may have been Kafka's own markers.
    """

    def __init__(self, group: str, expired: Callable[[int], None] = lambda events: None) -> None:
        self._group, self._expired = group, expired
        self._written: dict[PartitionProgress, dict[int, int]] = {}
        """Offset -> timestamp of messages that are not known to be finished."""

    def go_on(self, progress: PartitionProgress, low: int, high: int) -> int:
        """Return where to go on with a partition of which Kafka does not have what comes next; say why.

        Args:
            progress: of the partition.
            low: the log's first offset.
            high: one after its last.
        """
        expected = progress.next_offset
        where = {"topic": progress.topic, "partition": progress.partition}
        if expected is None:
            _log.info(
                "nothing committed, reading from the beginning",
                **where,
                group=self._group,
                first=low,
                why="the group has not read this partition yet, or Kafka has forgotten its offsets "
                "(offsets.retention.minutes)",
            )
        elif expected > high:
            _log.error(
                "committed offset lies beyond the end, reading from the beginning",
                **where,
                committed=expected,
                end=high,
                why="the topic was made anew, or the brokers have lost its end",
            )
        else:
            self.expired(progress, low)
            return max(low, expected)
        return low

    def expired(self, progress: PartitionProgress, low: int) -> None:
        """Say and count what lay between the next offset and the log's start, where it lies before that."""
        expected = progress.next_offset
        if expected is None or low <= expected:
            return
        _log.error(
            "events expired unread",
            topic=progress.topic,
            partition=progress.partition,
            first=expected,
            last=low - 1,
            events=low - expected,
        )
        self._expired(low - expected)
        progress.goes_on_at(low)

    def fetched(self, progress: PartitionProgress, offset: int, timestamp_ms: int | None) -> None:
        """Note when a message was written."""
        if timestamp_ms is not None:
            written, done = self._written.setdefault(progress, {}), progress.finished_to or 0
            written[offset] = timestamp_ms
            while (first := next(iter(written))) < done:
                del written[first]

    def oldest_ms(self) -> int | None:
        """Return the timestamp of the oldest message that is not finished; None where there is none."""
        oldest: list[int] = []
        for progress, written in list(self._written.items()):
            done = progress.finished_to or 0
            for offset in [offset for offset in written if offset < done]:
                del written[offset]
            if progress.revoked or not written:
                del self._written[progress]
            else:
                oldest.append(written[min(written)])
        return min(oldest, default=None)


def seconds_left(oldest_ms: int | None, retention: float | None) -> float | None:
    """Return in how many seconds the oldest unfinished message expires at the earliest.

    Infinite where none waits or none expires, None where the retention is not known, negative where it is
    overdue: Kafka deletes whole segments, so that some live longer.
    """
    if retention is None:
        return None
    return math.inf if oldest_ms is None else oldest_ms / 1000 + retention - time.time()
