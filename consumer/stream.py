"""Events in from Kafka, as a member of the group."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from consumer.connection import NOT_AUTHORISED, KafkaConnection, librdkafka_log, refusal
from consumer.errors import BrokerAway, StreamSetupError
from consumer.offsets import PartitionProgress, Place
from consumer.retention import Losses, TopicRetention, seconds_left

_log = structlog.get_logger("vault-ml.stream")

SOCKET_TIMEOUT_MS = 5_000
"""A broker that takes connections and does not answer must not hold up a commit, or the end, for long."""

_REPEAT_SECONDS = 60.0
"""An error that lasts is said again after this long, not at each of librdkafka's attempts."""

_ENDS_SECONDS = 0.5
_LEAVE_POLL_SECONDS = 0.05

PREFETCH_KILOBYTES = 8_192
"""Most that librdkafka fetches ahead: a backlog, however long, takes no more memory than this."""

_METADATA_SECONDS = 1.0
"""Of one question for metadata: in between, the reason why none is answered comes through a callback."""

_LOOK_UP_TRIES = 3
_PLACE_SECONDS = 1.0
"""Between two tries to find out where to go on with a partition."""

SESSION_TIMEOUT_MS = 10_000
"""How long a dead pod keeps its partitions; librdkafka beats from its own thread, work does not delay it."""


@dataclass(frozen=True)
class SourceMessage:
    """One message of the source topic, and the progress of the partition that it belongs to."""

    offset: int
    value: bytes | None
    progress: PartitionProgress
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None
    """When it was written, Unix time; None where the broker does not say."""


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
        self._group = group
        self._losses, self._retention = losses or Losses(group), retention
        self._before_revoke: BeforeRevoke | None = None
        self.paused = False
        """Whether fetching is paused; partitions that come meanwhile are paused too."""
        self._refusal: str | None = None
        self._connection = connection
        self._commits_under_way = 0
        self._said: dict[int, float] = {}
        self._held_back: set[int] = set()
        self._astray: dict[int, float] = {}
        """Partitions of which Kafka does not have what comes next, and when to look where they go on."""
        self._was_member = False
        self.away = False
        """Whether Kafka did not answer when it was last asked how far behind we are."""
        self._progress: dict[int, PartitionProgress] = {}
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
                "socket.timeout.ms": SOCKET_TIMEOUT_MS,
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
            }
            | dict(properties or {}),
            logger=librdkafka_log(),
        )

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
                if self._refusal:
                    raise StreamSetupError(self._refusal) from error
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

    def poll(self, timeout_seconds: float) -> SourceMessage | None:
        """Return the next message, or None; runs the callbacks of the group.

        Raises:
            StreamSetupError: we may not read the topic or join the group.
        """
        self._find_places()
        message = self._consumer.poll(timeout_seconds)
        if message is None:
            return None
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            self._at_end(message.partition() or 0)
            return None
        if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._astray[message.partition() or 0] = 0.0
            return None
        if error is not None:
            self._raise_if_lasting(error)
            _log.warning("kafka reports an error", error=error.str())
            return None
        partition, offset = message.partition(), message.offset()
        progress = None if partition is None else self._progress.get(partition)
        if progress is None or offset is None:
            # Fetched before the partition was taken away: its new owner has it.
            return None
        if progress.finished_to is None:
            self._look_up_place(progress)
        timestamp_ms = _timestamp_ms(message)
        self._losses.fetched(progress, offset, timestamp_ms)
        return SourceMessage(
            offset,
            message.value(),
            progress,
            # What has been received is always a list of pairs; the declared type is that of what may be sent.
            headers=tuple(cast(list[tuple[str, bytes]], message.headers() or [])),
            timestamp_ms=timestamp_ms,
        )

    def _at_end(self, partition: int) -> None:
        """Take note that a partition holds no more now; for who asks for `enable.partition.eof`."""

    def group_metadata(self) -> Any:  # noqa: ANN401  # librdkafka's, opaque
        """Return who we are in the group: a transaction that carries it fails once others have our place."""
        return self._consumer.consumer_group_metadata()

    def _find_places(self) -> None:
        """Go on with partitions of which Kafka does not have what comes next."""
        now = time.monotonic()
        for number in [number for number, at in self._astray.items() if at <= now]:
            self._astray[number] = now + _PLACE_SECONDS
            progress, at = self._progress.get(number), TopicPartition(self._topic, number)
            if progress is None:
                del self._astray[number]
            elif progress.next_offset is not None or self._look_up_place(progress):
                try:
                    low, high = self._consumer.get_watermark_offsets(at, timeout=_ENDS_SECONDS)
                except KafkaException:
                    continue
                del self._astray[number]
                # It is not being fetched any more, so it cannot be moved: take it anew, from there.
                self._consumer.incremental_unassign([at])
                at.offset = self._losses.go_on(progress, low, high)
                self._consumer.incremental_assign([at])
                if self.paused or number in self._held_back:
                    self._consumer.pause([at])

    def _note_losses(self, progress: PartitionProgress, low: int) -> None:
        """Note what expires of a paused partition; of others we are told, once all fetched ahead is read."""
        if not self.paused and progress.partition not in self._held_back:
            return
        if progress.next_offset is not None or self._look_up_place(progress):
            self._losses.expired(progress, low)

    def _look_up_place(self, progress: PartitionProgress) -> bool:
        """Note what is committed of a partition that begins; says whether that is known now."""
        asked = [TopicPartition(progress.topic, progress.partition)]
        for _ in range(_LOOK_UP_TRIES):
            try:
                (found,) = self._consumer.committed(asked, timeout=_METADATA_SECONDS)
            except KafkaException as error:
                _log.warning("committed offset not known", error=error.args[0].str())
                continue
            if found.offset >= 0:
                progress.begun_at = Place(found.offset, found.metadata or "")
                progress.committed(progress.begun_at)
            return True
        return False

    @property
    def joined(self) -> bool:
        """Whether we are a member of the group; with fewer partitions than members, one without any."""
        return bool(self._consumer.memberid())

    @property
    def assigned(self) -> list[PartitionProgress]:
        """The partitions that are ours now."""
        return list(self._progress.values())

    def pause(self) -> None:
        """Fetch nothing more, but stay in the group: `poll` goes on."""
        if not self.paused:
            self.paused = True
            self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again."""
        if self.paused:
            self.paused = False
            self._consumer.resume(self._partitions(set(self._progress) - self._held_back))

    def hold_back(self, messages: int, size_bytes: int) -> None:
        """Pause each partition that holds so much from its first unfinished message on."""
        full = {
            number
            for number, progress in self._progress.items()
            if progress.held >= messages or progress.held_bytes >= size_bytes
        }
        if full == self._held_back:
            return
        if more := full - self._held_back:
            self._consumer.pause(self._partitions(more))
        if not self.paused and (less := (self._held_back - full) & set(self._progress)):
            self._consumer.resume(self._partitions(less))
        self._held_back = full

    def commit(self, partitions: Collection[PartitionProgress] | None = None, *, wait: bool = False) -> None:
        """Commit what is finished, of all assigned partitions or of some; for at-least-once delivery.

        A commit that fails is logged and made again later: it can only repeat messages, not lose one.

        Args:
            partitions: None for all that are assigned.
            wait: for the broker's answer.
        """
        due = {
            p: place
            for p in (self._progress.values() if partitions is None else partitions)
            if (place := p.commit_due) is not None
        }
        if not due:
            return
        offsets = [
            TopicPartition(p.topic, p.partition, place.offset, metadata=place.note)
            for p, place in due.items()
        ]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
                self._commits_under_way += 1
        except KafkaException as error:
            _log.warning("commit failed; these messages may come again", error=error.args[0].str())
            return
        for p, place in due.items():
            p.committed(place)

    def lags(self) -> dict[tuple[str, int], int]:
        """Return the messages of each assigned partition that are not finished yet; note if Kafka answers."""
        lags = {}
        self._was_member = self._was_member or self.joined
        self.away = self._was_member and not self.joined
        for at in self._consumer.position(self._consumer.assignment()):
            low, high = self._ends(at)
            progress = self._progress.get(at.partition)
            if progress is not None:
                self._note_losses(progress, low)
            done = progress.finished_to if progress is not None else None
            if done is None:
                done = at.offset if at.offset >= 0 else low
            if high >= 0:
                lags[at.topic, at.partition] = max(0, high - done)
        return lags

    def seconds_until_expiry(self) -> dict[str, float]:
        """Return, by topic, when the oldest unfinished message may be deleted; empty where nobody knows."""
        if self._retention is None:
            return {}
        self._retention.turn(time.monotonic())
        seconds = seconds_left(self._losses.oldest_ms(), self._retention.seconds)
        return {} if seconds is None else {self._topic: seconds}

    def _ends(self, at: TopicPartition) -> tuple[int, int]:
        """Return the first offset of a partition and the one after its last, as of now if the broker answers.

        What the fetches said would be old while the partition is paused.
        """
        if not self.away:
            try:
                low, high = self._consumer.get_watermark_offsets(at, timeout=_ENDS_SECONDS)
            except KafkaException:
                self.away = True
            else:
                return low, high
        low, high = self._consumer.get_watermark_offsets(at, cached=True)
        return low, high

    def _partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]

    def leave(self, *, timeout_seconds: float) -> None:
        """Leave the group, so that others take over at once; what is finished has been committed before.

        Where Kafka does not answer in time we go without a word: what is not committed comes again.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._commits_under_way > 0 and time.monotonic() < deadline:
            self._consumer.poll(_LEAVE_POLL_SECONDS)
        try:
            # Leaving has no time limit of its own: first see whether somebody is there to hear it.
            self._consumer.list_topics(self._topic, timeout=_METADATA_SECONDS)
        except KafkaException:
            _log.warning("kafka does not answer, stopping without a word; messages may come again")
            return
        self._consumer.close()

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._commits_under_way = max(0, self._commits_under_way - 1)
        if error is None:
            return
        _log.warning("commit failed; these messages may come again", error=error.str())
        for at in partitions:
            if at.partition in self._progress:
                self._progress[at.partition].committed(None)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            self._progress[at.partition] = PartitionProgress(at.topic, at.partition)
        consumer.incremental_assign(partitions)
        if self.paused:
            consumer.pause(partitions)
        _log.info(
            "partitions assigned", added=[at.partition for at in partitions], all=sorted(self._progress)
        )

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
            self._held_back.discard(progress.partition)
            self._astray.pop(progress.partition, None)
            del self._progress[progress.partition]
        if partitions:
            _log.info(
                "partitions given back", gone=[p.partition for p in partitions], all=sorted(self._progress)
            )

    def _on_error(self, error: KafkaError) -> None:
        self._refusal = refusal(self._connection, error) or self._refusal
        now = time.monotonic()
        if now - self._said.get(error.code(), -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._said[error.code()] = now
            _log.warning("kafka reports an error", error=error.str())

    def _raise_if_lasting(self, error: KafkaError) -> None:
        if error.code() in NOT_AUTHORISED:
            raise StreamSetupError(
                f"Kafka does not let group {self._group!r} read topic {self._topic!r} ({error.str()}); "
                "grant READ on both."
            )
        if error.fatal():
            raise StreamSetupError(f"Kafka ended our membership for good: {error.str()}.")


def _timestamp_ms(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds
