"""Confirmations: at-least-once delivery; Kafka confirms a letter, then its offset is committed."""

import time
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

import structlog

from consumer.delivery import Letter, Receipt
from consumer.errors import BrokerAway, MessageTooLarge
from consumer.offsets import PartitionProgress
from consumer.sink import ResultSink

_log = structlog.get_logger("vault-ml.delivery")

RESEND_SECONDS = 2.0
"""After a failed delivery; librdkafka itself has tried for its own time-out before."""

COMMIT_SECONDS = 1.0
_SLICE_SECONDS = 0.1


class Commits(Protocol):
    """What is needed of the source: it commits offsets."""

    def commit(self, partitions: Collection[PartitionProgress] | None = None, *, wait: bool = False) -> None:
        """Commit what is finished, of all assigned partitions or of some."""
        ...


class Confirmations:
    """Sends letters as they come, and commits what was confirmed about once a second."""

    def __init__(self, sink: ResultSink, source: Commits) -> None:
        self._sink, self._source = sink, source
        self._resend: deque[tuple[float, Letter]] = deque()
        self._receipts: list[Receipt] = []
        self._troubles: set[str] = set()
        """Topics to which the last delivery failed."""
        self._committed_at = 0.0
        self.undelivered = 0

    @property
    def troubled(self) -> bool:
        """Whether something waits because Kafka did not take it."""
        return bool(self._troubles)

    def send(self, letter: Letter) -> None:
        """Take a letter."""
        self.undelivered += 1
        self._post(letter)

    def turn(self, wait_seconds: float = 0.0) -> Sequence[Receipt]:
        """Take in what was confirmed, send again what was not, commit now and then."""
        self._sink.poll(wait_seconds)
        now = time.monotonic()
        while self._resend and self._resend[0][0] <= now:
            self._post(self._resend.popleft()[1])
        if now - self._committed_at >= COMMIT_SECONDS:
            self._committed_at = now
            self._source.commit()
        receipts, self._receipts = self._receipts, []
        return receipts

    def settle(self, going: Collection[PartitionProgress], deadline: float) -> Sequence[Receipt]:
        """Wait until all is confirmed, or for the deadline; then commit and wait for that."""
        receipts = list(self.turn())
        while self.undelivered and (left := deadline - time.monotonic()) > 0:
            receipts += self.turn(min(left, _SLICE_SECONDS))
        self._source.commit(going, wait=True)
        return receipts

    def close(self) -> None:
        """Nothing to do: what was not confirmed comes again."""

    def _post(self, letter: Letter) -> None:
        if letter.progress.revoked:
            self.undelivered -= 1
            return
        self._sink.send(letter.topic, letter.message, partial(self._delivered, letter))

    def _delivered(self, letter: Letter, failure: BrokerAway | MessageTooLarge | None) -> None:
        if isinstance(failure, BrokerAway):
            if letter.topic not in self._troubles:
                _log.warning("result not delivered, sending again", why=str(failure))
            self._troubles.add(letter.topic)
            self._resend.append((time.monotonic() + RESEND_SECONDS, letter))
            return
        self.undelivered -= 1
        if failure is None:
            self._troubles.discard(letter.topic)
            if not letter.progress.revoked:
                letter.progress.finished(letter.offset)
        self._receipts.append(Receipt(letter, failure))
