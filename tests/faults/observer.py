"""What a reader of the topics sees, and when: a consumer without a group, with read_committed."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.results import Header
from consumer.topics import Record, to_record

_POLL_SECONDS = 0.2

_Answer = TypeVar("_Answer")


Place = tuple[int, int]
"""Partition and offset of a message of the source topic."""


def _reader(bootstrap: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "soak-reader",  # librdkafka wants one; it is not joined and nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


class Observer:
    """Notes each outcome when it can be read, in a thread of its own."""

    def __init__(self, bootstrap: str, topics: Sequence[str], partitions: int) -> None:
        self._consumer = _reader(bootstrap, "read_committed")
        self._consumer.assign([TopicPartition(topic, n, 0) for topic in topics for n in range(partitions)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer")
        self.first_seen: dict[Place, float] = {}
        """When each message of the source topic had its first outcome, by time.monotonic()."""
        self.sources: set[str] = set()
        """The events that have an outcome."""
        self.finished = False
        """Whether its thread came to its end in good order."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(_POLL_SECONDS)
            if message is not None and message.error() is None:
                self._note(to_record(message).headers.get(Header.SOURCE, ""), time.monotonic())
        self.finished = True

    def _note(self, source: str, now: float) -> None:
        match source.rsplit("/", 3):
            case [_topic, partition, offset, _index] if partition.isdigit() and offset.isdigit():
                self.sources.add(source)
                self.first_seen.setdefault((int(partition), int(offset)), now)
            # Any other is the books' to find.


def read_to_end(bootstrap: str, topic: str, partitions: int, *, seconds: float = 600.0) -> list[Record]:
    """Return every record of a topic that a reader with read_committed is given, by a reader of its own.

    Raises:
        TimeoutError: the end was not reached in time.
    """
    consumer = _reader(bootstrap, "read_committed")
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    deadline = time.monotonic() + seconds
    unfinished, records = set(range(partitions)), []
    try:
        while unfinished:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was not read to its end within {seconds:g} s.")
            message = consumer.poll(_POLL_SECONDS)
            if message is None:
                continue
            if message.error() is None:
                records.append(to_record(message))
            elif _is_end(message):
                unfinished.discard(message.partition() or 0)
    finally:
        consumer.close()
    return records


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def open_transactions(bootstrap: str, topic: str, partitions: int) -> list[int]:
    """Return the partitions that a reader with read_committed cannot read to their end."""
    committed, everything = (_reader(bootstrap, level) for level in ("read_committed", "read_uncommitted"))

    def end(reader: Consumer, number: int) -> int:
        at = TopicPartition(topic, number)
        return patiently(lambda: int(reader.get_watermark_offsets(at, timeout=10.0)[1]))

    try:
        return [number for number in range(partitions) if end(committed, number) != end(everything, number)]
    finally:
        committed.close()
        everything.close()


def patiently(ask: Callable[[], _Answer], *, seconds: float = 120.0) -> _Answer:
    """Return what Kafka answers; asks again for so long where it does not.

    Raises:
        KafkaException: it still does not.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (KafkaException, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
