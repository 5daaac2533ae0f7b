"""Events in from Kafka, as a member of the group."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from consumer.commits import Commits
from consumer.complaints import Complaints
from consumer.connection import NOT_AUTHORISED, KafkaConnection, librdkafka_log
from consumer.errors import BrokerAway, StreamSetupError
from consumer.headers import headers_of
from consumer.offsets import PartitionProgress
from consumer.places import Places
from consumer.prefetch import Prefetch, SourceMessage
from consumer.retention import Losses, TopicRetention, seconds_left

_log = structlog.get_logger("vault-ml.stream")

SOCKET_TIMEOUT_MS = 5_000
"""A broker that takes connections and does not answer must not hold up a commit, or the end, for long."""

_LEAVE_POLL_SECONDS = 0.05

PREFETCH_KILOBYTES = 8_192
"""Most that librdkafka fetches ahead: a backlog, however long, takes no more memory than this."""

_FETCH_BYTES = 256 * 1024
"""Of a partition in one fetch: what a pause throws away; a larger message comes all the same."""

_AT_ONCE = 64
"""Messages that are taken from librdkafka at a time."""

_METADATA_SECONDS = 1.0
"""Of one question for metadata: in between, the reason why none is answered comes through a callback."""

SESSION_TIMEOUT_MS = 10_000
"""How long a dead pod keeps its partitions; librdkafka beats from its own thread, work does not delay it."""


BeforeRevoke = Callable[[list[PartitionProgress]], None]


class EventSource:
    """Reads the source topic as a member of the group; commits what is finished.

    All methods are called from one thread, and the callbacks run inside `poll`.

    Args:
        connection: the brokers.
        group: KAFKA_GROUP.
        topic: QUEUE_NAME.
        instance_id: KAFKA_GROUP_INSTANCE_ID.
        losses: told what Kafka deleted before we read it.
        retention: of the topic.
        properties: of librdkafka, further ones.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        group: str,
        topic: str,
        instance_id: str | None = None,
        losses: Losses | None = None,
        retention: TopicRetention | None = None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        self._topic = topic
        self._losses, self._retention = losses or Losses(group), retention
        self._before_revoke: BeforeRevoke | None = None
        self._complaints = Complaints(connection, group=group, topic=topic)
        self._prefetch = Prefetch()
        self._paused: set[int] = set()
        """Partitions that librdkafka does not fetch now."""
        self._was_member = False
        self._progress: dict[int, PartitionProgress] = {}
        self._commits = Commits(self._progress.get)
        self._consumer = Consumer(
            connection.properties()
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # It tells us, and we say what was lost before we go on at the log's start.
                "auto.offset.reset": "error",
                # Also makes a new owner wait for what the pod before it has open: those offsets may be about
                # to move (KIP-447).
                "isolation.level": "read_committed",
                "partition.assignment.strategy": "cooperative-sticky",
                **({} if instance_id is None else {"group.instance.id": instance_id}),
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "queued.max.messages.kbytes": PREFETCH_KILOBYTES,
                "max.partition.fetch.bytes": _FETCH_BYTES,
                "socket.timeout.ms": SOCKET_TIMEOUT_MS,
                "error_cb": self._complaints.on_error,
                "on_commit": self._commits.on_commit,
            }
            | dict(properties or {}),
            logger=librdkafka_log(),
        )
        self._places = Places(self._consumer, self._losses)

    def check_topic(self, topic: str, *, timeout_seconds: float = 3.0) -> int:
        """Return the number of partitions of a topic; to be called before `join`.

        Raises:
            StreamSetupError: login refused, no such topic, or no right to it; says which.
            BrokerAway: no broker answers.
        """
        partitions, error = self._ask_for(topic, time.monotonic() + timeout_seconds)
        if error is None:
            return partitions
        if error.code() in NOT_AUTHORISED:
            raise StreamSetupError(f"Kafka does not let us read topic {topic!r}; grant DESCRIBE and READ.")
        raise StreamSetupError(f"Topic {topic!r} does not exist ({error.str()}); create it.")

    def _ask_for(self, topic: str, deadline: float) -> tuple[int, KafkaError | None]:
        while True:
            try:
                found = self._consumer.list_topics(topic, timeout=_METADATA_SECONDS).topics[topic]
                return len(found.partitions), found.error
            except KafkaException as error:
                self._consumer.poll(0)  # yields no message before joining, but runs the error callback
                if self._complaints.refusal:
                    raise StreamSetupError(self._complaints.refusal) from error
                if time.monotonic() > deadline:
                    raise BrokerAway(
                        f"No broker of KAFKA_BROKER answers ({error.args[0].str()}); check the address and "
                        "KAFKA_SECURITY."
                    ) from error

    def join(self, before_revoke: BeforeRevoke) -> None:
        """Join the consumer group; partitions arrive during `poll`.

        Args:
            before_revoke: called with the partitions that are about to be taken away, while their offsets can
                still be committed: the last chance to finish what is under way.
        """
        self._before_revoke = before_revoke
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(
        self, timeout_seconds: float, *, wanted: bool = True, but_of: Collection[int] = ()
    ) -> SourceMessage | None:
        """Return the next message, or None; runs the callbacks of the group.

        Args:
            timeout_seconds: how long to wait where nothing has been fetched ahead.
            wanted: whether a message may be returned; without it fetching goes on until enough is ahead.
            but_of: partitions that nothing is wanted of.

        Raises:
            StreamSetupError: we may not read the topic or join the group.
        """
        now = time.monotonic()
        self._places.look_up(now)
        self._places.go_on(now, self._progress, self._paused.__contains__)
        ahead = wanted and self._prefetch.next_partition({*but_of, *self._places.unknown}) is not None
        self._fetch_ahead(0.0 if ahead else timeout_seconds)
        return self._prefetch.take({*but_of, *self._places.unknown}) if wanted else None

    def _fetch_ahead(self, timeout_seconds: float) -> None:
        """Take what librdkafka has; wait for the first message only."""
        for turn in range(_AT_ONCE):
            message = self._consumer.poll(0.0 if turn else timeout_seconds)
            if message is None:
                break
            self._receive(message)
            self._pause_what_is_full()
        self._pause_what_is_full()

    def _receive(self, message: Message) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        progress = None if partition is None else self._progress.get(partition)
        if error is not None:
            self._take_error(error, progress)
        elif progress is not None and offset is not None:
            timestamp_ms = _timestamp_ms(message)
            progress.received(offset)
            self._losses.fetched(progress, offset, timestamp_ms)
            self._prefetch.put(
                SourceMessage(offset, message.value(), progress, headers_of(message), timestamp_ms)
            )
            self._complaints.readable(progress.partition)
        # Else it was fetched before the partition was taken away: its new owner has it.

    def _take_error(self, error: KafkaError, progress: PartitionProgress | None) -> None:
        if progress is not None and error.code() == KafkaError._PARTITION_EOF:
            self._at_end(progress.partition)
        elif progress is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._places.astray(progress.partition)
        else:
            self._complaints.of_message(error, progress)

    def _pause_what_is_full(self) -> None:
        full = self._prefetch.to_pause(self._progress)
        if full == self._paused:
            return
        if more := full - self._paused:
            self._consumer.pause(self._partitions(more))
        if less := self._paused - full:
            self._consumer.resume(self._partitions(less))
        self._paused = full

    def _at_end(self, partition: int) -> None:
        """Take note that a partition holds no more now; for who asks for `enable.partition.eof`."""

    def group_metadata(self) -> Any:  # noqa: ANN401  # librdkafka's, opaque
        """Return who we are in the group: a transaction that carries it fails once others have our place."""
        return self._consumer.consumer_group_metadata()

    @property
    def joined(self) -> bool:
        """Whether we are a member of the group; with fewer partitions than members, one without any."""
        return bool(self._consumer.memberid())

    @property
    def assigned(self) -> list[PartitionProgress]:
        """The partitions that are ours now."""
        return list(self._progress.values())

    def commit(self, partitions: Collection[PartitionProgress] | None = None, *, wait: bool = False) -> None:
        """Commit what is finished, of all assigned partitions or of some; for at-least-once delivery.

        A commit that fails is logged and made again later: it can only repeat messages, not lose one.

        Args:
            partitions: None for all that are assigned.
            wait: for the broker's answer.
        """
        due = self._progress.values() if partitions is None else partitions
        self._commits.commit(self._consumer, due, wait=wait)

    @property
    def away(self) -> bool:
        """Whether Kafka did not answer when it was last asked, or gives us what cannot be unpacked."""
        return self._places.away or self._complaints.unreadable

    def lags(self) -> dict[tuple[str, int], int]:
        """Return the messages of each assigned partition that are not finished yet; note if Kafka answers."""
        self._was_member = self._was_member or self.joined
        away = self._was_member and not self.joined
        return self._places.lags(self._progress, self._paused.__contains__, away=away)

    def seconds_until_expiry(self) -> dict[str, float]:
        """Return, by topic, when the oldest unfinished message may be deleted; empty where nobody knows."""
        if self._retention is None:
            return {}
        self._retention.turn(time.monotonic())
        seconds = seconds_left(self._losses.oldest_ms(), self._retention.seconds)
        return {} if seconds is None else {self._topic: seconds}

    def _partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]

    def leave(self, *, timeout_seconds: float) -> None:
        """Leave the group, so that others take over at once; what is finished has been committed before.

        Where Kafka does not answer in time we go without a word: what is not committed comes again.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._commits.under_way > 0 and time.monotonic() < deadline:
            self._consumer.poll(_LEAVE_POLL_SECONDS)
        try:
            # Leaving has no time limit of its own: first see whether somebody is there to hear it.
            self._consumer.list_topics(self._topic, timeout=_METADATA_SECONDS)
        except KafkaException:
            _log.warning("kafka does not answer, stopping without a word; messages may come again")
            return
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._begin(partitions)
        consumer.incremental_assign(partitions)
        _log.info(
            "partitions assigned", added=[at.partition for at in partitions], all=sorted(self._progress)
        )

    def _begin(self, partitions: Iterable[TopicPartition]) -> None:
        begun = [PartitionProgress(at.topic, at.partition) for at in partitions]
        self._progress |= {progress.partition: progress for progress in begun}
        self._places.begin(begun)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        going = [self._progress[at.partition] for at in partitions if at.partition in self._progress]
        if self._before_revoke is not None:
            self._before_revoke(going)
        self._forget(going)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Somebody else has them already: what is under way must not be published or committed by us.
        _log.warning("partitions lost: the group had no word from us in time")
        self._forget([self._progress[at.partition] for at in partitions if at.partition in self._progress])
        consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[PartitionProgress]) -> None:
        for progress in partitions:
            progress.revoked = True
            self._prefetch.drop(progress.partition)
            self._places.forget(progress.partition)
            self._paused.discard(progress.partition)
            self._complaints.readable(progress.partition)
            del self._progress[progress.partition]
        if partitions:
            _log.info(
                "partitions given back", gone=[p.partition for p in partitions], all=sorted(self._progress)
            )


def _timestamp_ms(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds
