"""Transactions: exactly-once delivery; outcomes and the offsets behind them in one Kafka transaction.

A letter waits until all messages before its own are finished: only the unbroken row from the front is
written, with the offset behind it. So what a reader sees and what the group goes on from never differ.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from confluent_kafka import TopicPartition

from consumer.delivery import Letter, Receipt
from consumer.errors import ProducerFenced
from consumer.offsets import PartitionProgress, Place
from consumer.sink import too_large
from consumer.transactional_producer import Batch, Fate, NotWritten, TransactionalProducer

_log = structlog.get_logger("vault-ml.delivery")

BATCH_SECONDS = 0.1
BATCH_LETTERS = 500
BATCH_BYTES = 16 * 1024**2
"""A transaction is written when its first letter is so old, or when it is so large."""

AGAIN_SECONDS = 0.5
"""After a transaction that came to nothing."""

BLOCKED_SECONDS = 2.0
"""For a message whose topic is not there."""

TROUBLED_SECONDS = 5.0
"""A transaction that is open for longer waits for a broker."""

_SLICE_SECONDS = 0.05


class Group(Protocol):
    """What is needed of the source: its partitions, and who we are in the group."""

    @property
    def assigned(self) -> list[PartitionProgress]:
        """The partitions that are ours now."""
        ...

    def group_metadata(self) -> Any:  # noqa: ANN401  # opaque, see Batch
        """Return what fences us, once another pod has our partitions."""
        ...


@dataclass(frozen=True)
class _UnderWay:
    letters: tuple[Letter, ...]
    places: tuple[tuple[PartitionProgress, Place], ...]
    since: float


@dataclass
class _Row:
    """Letters of one partition by offset, and how far they are due."""

    by_offset: dict[int, list[Letter]] = field(default_factory=dict)
    due: int = 0
    """Of them, how many lie before the first unfinished message."""
    counted_to: int | None = None
    """Up to which offset `due` has been counted."""


class Transactions:
    """Gathers letters and writes them, batch after batch.

    Args:
        producer: begun.
        source: the group that we read as.
        wrote: told the result of each transaction, for metrics.
    """

    def __init__(
        self,
        producer: TransactionalProducer,
        source: Group,
        wrote: Callable[[bool], None] = lambda written: None,
    ) -> None:
        self._producer, self._source, self._wrote = producer, source, wrote
        self._rows: dict[PartitionProgress, _Row] = {}
        self._under_way: _UnderWay | None = None
        self._due_since: float | None = None
        self._not_before = 0.0
        self._failed = self._ended = False
        self._one_by_one: set[tuple[PartitionProgress, int]] = set()
        """Messages of a transaction that was too large somewhere: they are written one by one."""
        self._blocked: dict[tuple[PartitionProgress, int], float] = {}
        """Messages whose topic is not there, and when to try again; what lies before them goes on."""

    @property
    def undelivered(self) -> int:
        """Letters that are due; those that wait for the messages before them are not."""
        return sum(row.due for row in self._rows.values())

    @property
    def troubled(self) -> bool:
        """Whether Kafka keeps us waiting."""
        waiting = self._under_way is not None and time.monotonic() - self._under_way.since > TROUBLED_SECONDS
        return waiting or self._failed or bool(self._blocked)

    def send(self, letter: Letter) -> None:
        """Take a letter; it is written when all before it are finished."""
        if letter.progress.revoked:
            return
        row = self._rows.setdefault(letter.progress, _Row())
        row.by_offset.setdefault(letter.offset, []).append(letter)
        letter.progress.held_bytes += _size_bytes(letter)
        letter.progress.finished(letter.offset)

    def turn(self, wait_seconds: float = 0.0) -> Sequence[Receipt]:
        """See what became of the transaction under way; begin the next one when it is due."""
        receipts = self._take_in(wait_seconds)
        self._drop_revoked()
        now = time.monotonic()
        if self._under_way is None and now >= self._not_before and self._is_due(now):
            self._begin(now)
        return receipts

    def settle(self, going: Collection[PartitionProgress], deadline: float) -> Sequence[Receipt]:
        """Write what is due of these partitions, or wait for the deadline.

        A transaction that is open then ends by itself: whole, and the next owner waits for it; or not at all.
        """
        receipts: list[Receipt] = []
        while not self._ended and time.monotonic() < deadline:
            receipts += self._take_in(_SLICE_SECONDS)
            self._drop_revoked()
            if self._under_way is not None:
                continue
            if not any(progress.commit_due for progress in going):
                break
            if (now := time.monotonic()) >= self._not_before:
                self._begin(now)
            if self._under_way is None:
                time.sleep(_SLICE_SECONDS)
        return receipts

    def close(self) -> None:
        """Let go of Kafka: what is open ends with the producer's time-out, or with its successor."""
        self._producer.close()

    # In: what became of the transaction under way.

    def _take_in(self, wait_seconds: float) -> list[Receipt]:
        under_way = self._under_way
        fate = None if under_way is None else self._producer.take(wait_seconds)
        if under_way is None or fate is None:
            return []
        self._under_way = None
        return self._settle(under_way, fate)

    def _settle(self, under_way: _UnderWay, fate: Fate) -> list[Receipt]:
        if isinstance(fate, ProducerFenced):
            self._ended = True
            raise fate
        self._wrote(not isinstance(fate, NotWritten))
        if isinstance(fate, NotWritten):
            return self._not_written(under_way, fate)
        self._failed = False
        for progress, place in under_way.places:
            progress.committed(place)
        for letter in under_way.letters:
            self._remove(letter)
        return [Receipt(letter) for letter in under_way.letters]

    def _not_written(self, under_way: _UnderWay, fate: NotWritten) -> list[Receipt]:
        refused = [under_way.letters[index] for index in sorted(fate.too_large)]
        if fate.nowhere:
            again_at = time.monotonic() + BLOCKED_SECONDS
            for index in fate.nowhere:
                letter = under_way.letters[index]
                if _message(letter) not in self._blocked:
                    _log.warning("result not delivered, sending again", topic=letter.topic, why=fate.why)
                self._blocked[_message(letter)] = again_at
            return []
        if not refused:
            if not self._failed:
                _log.warning("transaction aborted, writing again", why=fate.why)
            self._failed = True
            self._not_before = time.monotonic() + AGAIN_SECONDS
            return []
        if len(messages := {_message(letter) for letter in under_way.letters}) > 1:
            # Which of those that travelled together was too large, only each alone can tell.
            self._one_by_one |= messages
            return []
        largest = max(refused, key=lambda letter: letter.message.size_bytes)
        self._remove(largest)
        if largest.progress.revoked:
            return []
        largest.progress.reopened(largest.offset)
        return [Receipt(largest, too_large(largest.topic))]

    def _remove(self, letter: Letter) -> None:
        row = self._rows.get(letter.progress)
        if row is None:
            return
        row.by_offset[letter.offset].remove(letter)
        if not row.by_offset[letter.offset]:
            del row.by_offset[letter.offset]
            self._one_by_one.discard(_message(letter))
            self._blocked.pop(_message(letter), None)
        letter.progress.held_bytes -= _size_bytes(letter)
        row.counted_to = None

    def _drop_revoked(self) -> None:
        for progress in [progress for progress in self._rows if progress.revoked]:
            del self._rows[progress]
        for message in [message for message in self._blocked if message[0].revoked]:
            del self._blocked[message]

    # Out: the next transaction.

    def _is_due(self, now: float) -> bool:
        for progress, row in self._rows.items():
            if row.counted_to is None or row.counted_to != progress.finished_to:
                row.counted_to = progress.finished_to
                row.due = sum(len(letters) for _, letters in _before(row, progress.finished_to))
        due = self.undelivered
        if due == 0 and not any(progress.commit_due for progress in self._source.assigned):
            self._due_since = None
            return False
        if self._due_since is None:
            self._due_since = now
        return now - self._due_since >= BATCH_SECONDS or due >= BATCH_LETTERS

    def _begin(self, now: float) -> None:
        letters, places = self._next_batch(now)
        self._due_since = None
        if not places:
            return
        self._under_way = _UnderWay(tuple(letters), tuple(places.items()), now)
        self._producer.write(
            Batch(
                messages=tuple((letter.topic, letter.message) for letter in letters),
                offsets=tuple(
                    TopicPartition(progress.topic, progress.partition, place.offset, metadata=place.note)
                    for progress, place in places.items()
                ),
                group=self._source.group_metadata(),
            )
        )

    def _next_batch(self, now: float) -> tuple[list[Letter], dict[PartitionProgress, Place]]:
        """Return the letters that come next, and the places behind them; whole messages only."""
        letters: list[Letter] = []
        places: dict[PartitionProgress, Place] = {}
        size_bytes = 0
        for progress in self._source.assigned:
            place = progress.commit_due
            if place is None:
                continue
            row = self._rows.get(progress, _Row())
            for offset, of_message in sorted(_before(row, place.offset)):
                blocked = self._blocked.get((progress, offset), 0.0) > now
                if blocked or self._is_full(letters, size_bytes) or self._stands_alone(letters, of_message):
                    place = Place(offset, progress.note)
                    break
                letters += of_message
                size_bytes += sum(letter.message.size_bytes for letter in of_message)
            if place != progress.committed_place:
                places[progress] = place
            if self._one_by_one and letters:
                break
        return letters, places

    @staticmethod
    def _is_full(letters: Sequence[Letter], size_bytes: int) -> bool:
        return len(letters) >= BATCH_LETTERS or size_bytes >= BATCH_BYTES

    def _stands_alone(self, letters: Sequence[Letter], following: Sequence[Letter]) -> bool:
        """Whether the next message must not travel with the letters before it."""
        return bool(letters) and not self._one_by_one.isdisjoint(
            {_message(letters[-1]), _message(following[0])}
        )


def _message(letter: Letter) -> tuple[PartitionProgress, int]:
    return letter.progress, letter.offset


def _before(row: _Row, offset: int | None) -> Iterable[tuple[int, list[Letter]]]:
    return ((at, letters) for at, letters in row.by_offset.items() if offset is not None and at < offset)


def _size_bytes(letter: Letter) -> int:
    """Return what a letter takes of memory; its event's own message is kept for a dead letter."""
    return letter.message.size_bytes + len(letter.recording.payload)
