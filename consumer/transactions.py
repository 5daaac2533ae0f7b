"""Transactions: exactly-once delivery; outcomes and the offsets behind them in one Kafka transaction.

A letter waits until all messages before its own are finished: only the unbroken row from the front is
written, with the offset behind it. So what a reader sees and what the group goes on from never differ.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from confluent_kafka import TopicPartition

from consumer.delivery import Letter, Receipt
from consumer.errors import ProducerEnded
from consumer.offsets import PartitionProgress
from consumer.rows import BATCH_LETTERS, Contents, Rows, Spot, spot_of
from consumer.sink import too_large
from consumer.transactional_producer import Batch, Fate, NotWritten

_log = structlog.get_logger("vault-ml.delivery")

BATCH_SECONDS = 0.1
"""A transaction is written when its first letter is so old, or when it is full."""

AGAIN_SECONDS = 0.5
"""After a transaction that came to nothing."""

ABORTS_TO_SEARCH = 3
"""In a row, and without a word about which letter is at fault; then fewer travel together, to find it."""

BLOCKED_SECONDS = 2.0
"""For a message that its topic does not take."""

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


class Producer(Protocol):
    """What is needed of the transactional producer."""

    def write(self, batch: Batch) -> None:
        """Write a batch; the one before must have met its fate."""
        ...

    def take(self, wait_seconds: float = 0.0) -> Fate | None:
        """Return what became of the batch, or None while that is open."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True)
class _UnderWay:
    contents: Contents
    since: float


class Transactions:
    """Gathers letters and writes them, batch after batch.

    Args:
        producer: begun.
        source: the group that we read as.
        wrote: told the result of each transaction, for metrics.
    """

    def __init__(
        self,
        producer: Producer,
        source: Group,
        wrote: Callable[[bool], None] = lambda written: None,
    ) -> None:
        self._producer, self._source, self._wrote = producer, source, wrote
        self._rows = Rows()
        self._under_way: _UnderWay | None = None
        self._due_since: float | None = None
        self._not_before = 0.0
        self._aborts = 0
        """In a row, with nothing that says which letter is at fault."""
        self._ended = False

    @property
    def undelivered(self) -> int:
        """Letters that are due; those that wait for the messages before them are not."""
        return self._rows.due

    @property
    def troubled(self) -> bool:
        """Whether Kafka keeps us waiting."""
        waiting = self._under_way is not None and time.monotonic() - self._under_way.since > TROUBLED_SECONDS
        return waiting or self._aborts > 0 or self._rows.resting

    def send(self, letter: Letter) -> None:
        """Take a letter; it is written when all before it are finished."""
        if letter.progress.revoked:
            return
        self._rows.put(letter)
        letter.progress.finished(letter.offset)

    def turn(self, wait_seconds: float = 0.0) -> Sequence[Receipt]:
        """See what became of the transaction under way; begin the next one when it is due."""
        receipts = self._take_in(wait_seconds)
        self._rows.drop_revoked()
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
            self._rows.drop_revoked()
            if self._under_way is not None:
                continue
            if not any(progress.commit_due for progress in going):
                break
            if (now := time.monotonic()) < self._not_before:
                time.sleep(_SLICE_SECONDS)
            elif not self._begin(now):
                break  # what is left has nowhere to go
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
        if isinstance(fate, ProducerEnded):
            self._ended = True
            raise fate
        self._wrote(not isinstance(fate, NotWritten))
        if isinstance(fate, NotWritten):
            return self._not_written(under_way.contents, fate)
        return self._written(under_way.contents)

    def _written(self, contents: Contents) -> list[Receipt]:
        self._aborts = 0
        for progress, place in contents.places:
            progress.committed(place)
        self._rows.written(contents)
        return [Receipt(letter) for letter in contents.letters]

    def _not_written(self, contents: Contents, fate: NotWritten) -> list[Receipt]:
        if fate.nowhere:
            for index in sorted(fate.nowhere):
                self._block(spot_of(contents.letters[index]), contents.letters[index].topic, fate.why)
            return []
        if fate.too_large:
            return self._refused([contents.letters[index] for index in sorted(fate.too_large)], contents)
        alone = contents.alone
        searching = self._rows.searching or self._aborts >= ABORTS_TO_SEARCH
        if alone is not None and (searching or self._rows.rests(alone)):
            topics = ", ".join(sorted({letter.topic for letter in contents.letters}))
            self._block(alone, topics, fate.why)
            return []
        if self._aborts == 0:
            _log.warning("transaction aborted, writing again", why=fate.why)
        self._aborts += 1
        if searching or self._aborts >= ABORTS_TO_SEARCH:
            self._rows.carry_fewer(len(contents.letters))
        else:
            self._not_before = time.monotonic() + AGAIN_SECONDS
        return []

    def _block(self, spot: Spot, topic: str, why: str) -> None:
        """Let a message rest: its topic does not take it. What lies before it, and elsewhere, goes on."""
        progress, offset = spot
        if not self._rows.rests(spot):
            _log.warning(
                "result not delivered, sending again",
                topic=topic,
                source=f"{progress.topic}/{progress.partition}" + ("" if offset is None else f"/{offset}"),
                why=f"{why}; create the topic where it is missing, and grant WRITE on it",
            )
        if not progress.revoked:
            self._rows.set_apart(spot, time.monotonic() + BLOCKED_SECONDS)

    def _refused(self, refused: Sequence[Letter], contents: Contents) -> list[Receipt]:
        """Take in that a request with these letters was too large for its topic."""
        for spot in dict.fromkeys(map(spot_of, refused)):
            # Which of those that travelled together was too large, only each alone can tell; and what comes
            # in place of that one may be too large again.
            self._rows.set_apart(spot)
        if contents.alone is None:
            return []
        largest = max(refused, key=lambda letter: letter.message.size_bytes)
        self._rows.remove(largest)
        if largest.progress.revoked:
            return []
        largest.progress.reopened(largest.offset)
        return [Receipt(largest, too_large(largest.topic))]

    # Out: the next transaction.

    def _is_due(self, now: float) -> bool:
        due, assigned = self._rows.due, self._source.assigned
        if due == 0 and not any(progress.commit_due for progress in assigned):
            # What failed went away with its partition.
            self._due_since, self._aborts = None, 0
            self._rows.carry_all()
            return False
        if self._due_since is None:
            self._due_since = now
        waited = now - self._due_since >= BATCH_SECONDS
        return waited or due >= BATCH_LETTERS or self._rows.hurried(assigned, now)

    def _begin(self, now: float) -> bool:
        """Begin the next transaction; says whether there was one."""
        self._due_since = None
        contents = self._rows.next_contents(self._source.assigned, now)
        if contents is None:
            return False
        self._under_way = _UnderWay(contents, now)
        self._producer.write(
            Batch(
                messages=tuple((letter.topic, letter.message) for letter in contents.letters),
                offsets=tuple(
                    TopicPartition(progress.topic, progress.partition, place.offset, metadata=place.note)
                    for progress, place in contents.places
                ),
                group=self._source.group_metadata(),
            )
        )
        return True
