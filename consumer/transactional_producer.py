"""The transactional producer: one batch at a time, messages and offsets together or not at all.

librdkafka's transactional calls wait for brokers, some of them for as long as a socket may be silent. They
are made by a thread of its own, so that the pod's loop goes on polling; between the two cross only a
`Batch` and what became of it. How the calls fail: https://github.com/confluentinc/librdkafka,
INTRODUCTION.md, "Transactional Producer".
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.connection import KafkaConnection, librdkafka_log
from consumer.errors import ProducerEnded
from consumer.messages import OutgoingMessage
from consumer.sink import NOWHERE, put, size_properties
from consumer.transaction_errors import ended, not_begun, words

TRANSACTION_TIMEOUT_MS = 15_000
"""How long what a dead pod left open holds up the partition's next owner."""

_CALL_SECONDS = 5.0
_LATE_SECONDS = 2.0
_SOCKET_TIMEOUT_MS = 5_000


@dataclass(frozen=True)
class Batch:
    """What one transaction carries: messages with their topics, and offsets in the name of a group."""

    messages: tuple[tuple[str, OutgoingMessage], ...]
    offsets: tuple[TopicPartition, ...]
    group: Any
    """As `Consumer.consumer_group_metadata` gave it: opaque, and it fences a pod that was left behind.

    None where there are no offsets.
    """


@dataclass(frozen=True)
class Written:
    """The batch is in Kafka, whole."""


@dataclass(frozen=True)
class NotWritten:
    """Nothing of the batch is in Kafka.

    Args:
        why: one sentence.
        too_large: indexes of messages that their topic refused for their size.
        nowhere: indexes of messages whose topic is not there, or not for us.
    """

    why: str
    too_large: frozenset[int] = frozenset()
    nowhere: frozenset[int] = frozenset()


Fate = Written | NotWritten | ProducerEnded


@dataclass
class _Refused:
    """Indexes of messages that are the reason why a batch is not written."""

    too_large: set[int] = field(default_factory=set)
    nowhere: set[int] = field(default_factory=set)
    why_nowhere: str | None = None

    def note(self, index: int, error: KafkaError | None) -> None:
        """Take note of a delivery report."""
        if error is None:
            return
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self.too_large.add(index)
        elif error.code() in NOWHERE:
            self.nowhere.add(index)
            self.why_nowhere = error.str()


class _Ended(Exception):  # noqa: N818  # never leaves this module; what does is ProducerEnded
    """The producer can write no more; the argument is a KafkaError, or says why."""


class TransactionalProducer:
    """Writes batches, one after the other.

    Args:
        connection: the brokers.
        transactional_id: of this pod, and of no other that runs.
        max_message_bytes: MAX_MESSAGE_BYTES.
    """

    def __init__(self, connection: KafkaConnection, *, transactional_id: str, max_message_bytes: int) -> None:
        self.transactional_id = transactional_id
        self._properties = (
            connection.properties()
            | size_properties(max_message_bytes)
            | {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
                # The next transaction begins while the broker still writes the marks of the last one, and is
                # told to come again: soon, or each transaction takes 100 ms.
                "retry.backoff.ms": 10,
                # A topic that is not there is said to be missing before the transaction runs out of time.
                "topic.metadata.propagation.max.ms": 1_000,
                "linger.ms": 1,
            }
        )
        self._writer = _Writer(self._properties)

    def begin(self, timeout_seconds: float = 10.0) -> None:
        """Take the transactional id, and end what a producer before us left open under it.

        Raises:
            TransactionsRefused: Kafka does not let us; says what to grant, or to set.
            ProducerEnded: it did, and ended the producer at once; a new one is needed.
            BrokerAway: no answer in time.
        """
        try:
            self._writer.producer.init_transactions(timeout_seconds)
        except KafkaException as error:
            raise not_begun(error, self.transactional_id, timeout_ms=TRANSACTION_TIMEOUT_MS) from error
        self._writer.start()

    def write(self, batch: Batch) -> None:
        """Write a batch; the one before must have met its fate."""
        self._writer.batches.put(batch)

    def take(self, wait_seconds: float = 0.0) -> Fate | None:
        """Return what became of the batch, or None while that is open."""
        if self._writer.give_up_if_stuck():
            # Nothing of the batch is committed, nor will be: who takes the same id ends what is open.
            self._writer = _Writer(self._properties)
            self._writer.start(anew=True)
        alive, fates = self._writer.alive, self._writer.fates
        try:
            return fates.get(timeout=wait_seconds) if wait_seconds > 0 else fates.get_nowait()
        except Empty:
            if alive:
                return None
            return ProducerEnded("The thread that writes to Kafka has died; the log says of what.")

    def close(self) -> None:
        """End the thread once it is idle; what is open then, Kafka ends."""
        self._writer.end()


class _Writer:
    """One librdkafka producer, and the thread that makes its calls."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.producer = Producer(properties, logger=librdkafka_log())
        self.batches: SimpleQueue[Batch | None] = SimpleQueue()
        self.fates: SimpleQueue[Fate] = SimpleQueue()
        self._ending = threading.Event()
        self._offsets_sent_at: float | None = None
        self._lock = threading.Lock()
        """Of the moment in which it is decided whether the offsets came back in time."""
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether somebody is there to write."""
        return self._thread is not None and self._thread.is_alive()

    def give_up_if_stuck(self) -> bool:
        """End the writer if the one call that does not keep to its time limit has not come back.

        https://github.com/confluentinc/librdkafka/issues/5456 and 5511: after the group's coordinator died,
        send_offsets_to_transaction may wait for ever. What was given up is not committed when it does return.
        """
        with self._lock:
            since = self._offsets_sent_at
            stuck = since is not None and time.monotonic() - since > _CALL_SECONDS + _LATE_SECONDS
            if stuck:
                self.end()
        return stuck

    def start(self, *, anew: bool = False) -> None:
        """Begin to write; `anew`: take over from one that is stuck, and say what became of its batch."""
        self._thread = threading.Thread(target=self._run, args=(anew,), name="transactions", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread as soon as its call comes back."""
        self._ending.set()
        self.batches.put(None)

    def _run(self, anew: bool) -> None:
        if anew:
            self.fates.put(self._take_over())
        while (batch := self.batches.get()) is not None and not self._ending.is_set():
            self.fates.put(self._write(batch))

    def _take_over(self) -> Fate:
        try:
            self._persist(lambda: self.producer.init_transactions(_CALL_SECONDS))
        except (_Ended, KafkaException) as error:
            return ended(error)
        return NotWritten("the group's coordinator did not answer in time")

    def _write(self, batch: Batch) -> Fate:
        refused, first = _Refused(), None
        try:
            try:
                self.producer.begin_transaction()
                for index, (topic, message) in enumerate(batch.messages):
                    self._produce(topic, message, partial(refused.note, index))
                if batch.offsets:
                    self._persist(lambda: self._send_offsets(batch))
                self._persist(lambda: self.producer.commit_transaction(_CALL_SECONDS))
            except (KafkaException, BufferError) as error:
                # The delivery reports, which say what message was the reason, come while it is taken back.
                first = error
                self._take_back()
                why = refused.why_nowhere or words(error)
                return NotWritten(why, frozenset(refused.too_large), frozenset(refused.nowhere))
        except _Ended as error:
            return ended(error, first, sorted({topic for topic, _ in batch.messages}))
        return Written()

    def _produce(
        self, topic: str, message: OutgoingMessage, reported: Callable[[KafkaError | None], None]
    ) -> None:
        def report(error: KafkaError | None, _message: Message) -> None:
            reported(error)

        try:
            put(self.producer, topic, message, report)
        except KafkaException as error:
            reported(error.args[0])
            raise

    def _send_offsets(self, batch: Batch) -> None:
        self._offsets_sent_at = time.monotonic()
        try:
            self.producer.send_offsets_to_transaction(list(batch.offsets), batch.group, _CALL_SECONDS)
        finally:
            with self._lock:
                self._offsets_sent_at = None
        if self._ending.is_set():
            raise _Ended("given up")

    def _take_back(self) -> None:
        try:
            self._persist(lambda: self.producer.abort_transaction(_CALL_SECONDS))
        except KafkaException as error:
            if not self._ending.is_set():
                raise _Ended(error.args[0]) from error

    def _persist(self, call: Callable[[], object]) -> None:
        """Make a call until it is done: one that ran out of time goes on where it was."""
        while True:
            try:
                call()
            except KafkaException as error:
                cause = error.args[0]
                if cause.fatal():
                    raise _Ended(cause) from error
                if not cause.retriable() or self._ending.is_set():
                    raise
            else:
                return
