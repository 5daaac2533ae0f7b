"""The transactional producer: one batch at a time, messages and offsets together or not at all.

librdkafka's transactional calls wait for brokers, some of them for as long as a socket may be silent. They
are made by a thread of its own, so that the pod's loop goes on polling; between the two cross only a
`Batch` and what became of it. How the calls fail: https://github.com/confluentinc/librdkafka,
INTRODUCTION.md, "Transactional Producer".
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.connection import NOT_AUTHORISED, KafkaConnection, librdkafka_log
from consumer.errors import BrokerAway, ProducerFenced, TransactionsRefused
from consumer.messages import OutgoingMessage

TRANSACTION_TIMEOUT_MS = 15_000
"""How long what a dead pod left open holds up the partition's next owner."""

_CALL_SECONDS = 5.0
_SOCKET_TIMEOUT_MS = 5_000

_REFUSALS = NOT_AUTHORISED | {
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    KafkaError._UNSUPPORTED_FEATURE,
}
"""What waiting does not change."""


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
    """

    why: str
    too_large: frozenset[int] = frozenset()


Fate = Written | NotWritten | ProducerFenced


class _Ended(Exception):  # noqa: N818  # never leaves this module; what does is ProducerFenced
    """Kafka ended the producer for good."""


class TransactionalProducer:
    """Writes batches, one after the other, in a thread of its own.

    Args:
        connection: the brokers.
        transactional_id: of this pod, and of no other that runs.
        max_message_bytes: MAX_MESSAGE_BYTES.
    """

    def __init__(self, connection: KafkaConnection, *, transactional_id: str, max_message_bytes: int) -> None:
        self.transactional_id = transactional_id
        self._producer = Producer(
            connection.properties()
            | {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
                # The next transaction begins while the broker still writes the marks of the last one, and is
                # told to come again: soon, or each transaction takes 100 ms.
                "retry.backoff.ms": 10,
                "message.max.bytes": max_message_bytes + 65_536,
                "linger.ms": 1,
                # The topic's limit holds for a whole batch, not for each message in it.
                "batch.size": min(1_000_000, max_message_bytes),
            },
            logger=librdkafka_log(),
        )
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._fates: SimpleQueue[Fate] = SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transactions", daemon=True)

    def begin(self, timeout_seconds: float = 10.0) -> None:
        """Take the transactional id, and end what a producer before us left open under it.

        Raises:
            TransactionsRefused: Kafka does not let us; says what to grant, or to set.
            BrokerAway: no answer in time.
        """
        try:
            self._producer.init_transactions(timeout_seconds)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() in _REFUSALS or cause.fatal():
                raise TransactionsRefused(
                    f"Kafka refuses the transactional id {self.transactional_id!r} ({cause.str()}): grant "
                    "WRITE and DESCRIBE on it, or set KAFKA_DELIVERY=at-least-once."
                ) from error
            raise BrokerAway(f"Kafka does not open transactions yet ({cause.str()}).") from error
        self._thread.start()

    def write(self, batch: Batch) -> None:
        """Write a batch; the one before must have met its fate."""
        self._batches.put(batch)

    def take(self, wait_seconds: float = 0.0) -> Fate | None:
        """Return what became of the batch, or None while that is open."""
        try:
            return self._fates.get(timeout=wait_seconds) if wait_seconds > 0 else self._fates.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """End the thread once it is idle; what is open then, Kafka ends."""
        self._ending.set()
        self._batches.put(None)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._fates.put(self._write(batch))

    def _write(self, batch: Batch) -> Fate:
        too_large: set[int] = set()
        try:
            try:
                self._producer.begin_transaction()
                for index, (topic, message) in enumerate(batch.messages):
                    self._produce(topic, message, index, too_large)
                if batch.offsets:
                    self._persist(
                        lambda: self._producer.send_offsets_to_transaction(
                            list(batch.offsets), batch.group, _CALL_SECONDS
                        )
                    )
                self._persist(lambda: self._producer.commit_transaction(_CALL_SECONDS))
            except (KafkaException, BufferError) as error:
                # The delivery reports, which say what message was the reason, come while it is taken back.
                self._take_back()
                return NotWritten(_words(error), frozenset(too_large))
        except _Ended as error:
            return ProducerFenced(
                f"Kafka ended our producer ({error}): another pod may write as {self.transactional_id!r}; "
                "give each its own POD_NAME."
            )
        return Written()

    def _take_back(self) -> None:
        try:
            self._persist(lambda: self._producer.abort_transaction(_CALL_SECONDS))
        except KafkaException as error:
            if not self._ending.is_set():
                raise _Ended(_words(error)) from error

    def _produce(self, topic: str, message: OutgoingMessage, index: int, too_large: set[int]) -> None:
        def report(index: int, error: KafkaError | None, _message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                too_large.add(index)

        try:
            self._producer.produce(
                topic,
                key=message.key,
                value=message.value,
                headers=[(name, value) for name, value in message.headers],
                on_delivery=partial(report, index),
            )
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                too_large.add(index)
            raise

    def _persist(self, call: Callable[[], object]) -> None:
        """Make a call until it is done: one that ran out of time goes on where it was."""
        while True:
            try:
                call()
            except KafkaException as error:
                cause = error.args[0]
                if cause.fatal():
                    raise _Ended(cause.str()) from error
                if not cause.retriable() or self._ending.is_set():
                    raise
            else:
                return


def _words(error: Exception) -> str:
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(error)
