"""Past events as a source: one stretch of a topic, once, read beside the consumers and not among them.

The partitions are assigned by ourselves, so nobody's are taken away. A group of its own keeps the place,
and a replay that was interrupted goes on there.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event

import structlog
from confluent_kafka import KafkaException, TopicPartition

from consumer.connection import KafkaConnection
from consumer.errors import BrokerAway
from consumer.events import parse_message
from consumer.past import Stretch
from consumer.prefetch import SourceMessage
from consumer.replay_mark import ReplayMark
from consumer.stream import BeforeRevoke, EventSource

_log = structlog.get_logger("vault-ml.past_source")

_COMMITTED_SECONDS = 10.0


@dataclass(frozen=True)
class Window:
    """Which past events are meant.

    Attributes:
        since, until: when the event was written; `until` itself is out.
        cameras: as events name them; empty for all.
        limit: at most so many messages in one run; None for all.
        rate: at most so many messages a second; None for as fast as they can be looked at.
    """

    since: datetime
    until: datetime
    cameras: tuple[str, ...] = ()
    limit: int | None = None
    rate: float | None = None

    def takes(self, message: SourceMessage) -> bool:
        """Tell whether a message is meant; one that holds a list is, where any of its events is."""
        at = message.timestamp_ms
        if at is not None and not self.since.timestamp() * 1000 <= at < self.until.timestamp() * 1000:
            return False
        if not self.cameras:
            return True
        return any(getattr(entry, "camera", "") in self.cameras for entry in parse_message(message.value))


class PastSource(EventSource):
    """Gives the messages of a window, each with a mark, and sets the stop event once all are finished.

    Args:
        connection: the brokers.
        group: keeps the place of this replay, and of no other.
        topic: QUEUE_NAME.
        stretches: what the topic held when the replay began.
        window: which of it.
        mark: goes with each message.
        stop: set at the end.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        group: str,
        topic: str,
        stretches: Sequence[Stretch],
        window: Window,
        mark: ReplayMark,
        stop: Event,
    ) -> None:
        super().__init__(connection, group=group, topic=topic, properties={"enable.partition.eof": True})
        self._group, self._topic_read, self._stretches = group, topic, stretches
        self._window, self._mark, self._stop = window, mark, stop
        self._read_to = {each.partition: each.end for each in stretches}
        self._begins: list[TopicPartition] = []
        self._open: set[int] = set()
        """Partitions that may give more."""
        self._ended: set[int] = set()
        """Partitions of which everything was fetched."""
        self._next_at = 0.0
        self.taken = 0
        """Messages that were given."""
        self.complete = False
        """Whether all of the window, or as much of it as the limit allows, is finished."""
        self.limited = False
        """Whether the limit has been reached; more of the window may be left."""

    def places(self, *, anew: bool = False) -> list[TopicPartition]:
        """Return where to begin, or to go on; partitions of which nothing is left are not in it.

        Args:
            anew: from the beginning, whatever has been done.

        Raises:
            BrokerAway: no answer in time.
        """
        asked = [TopicPartition(self._topic_read, each.partition) for each in self._stretches]
        try:
            found = self._consumer.committed(asked, timeout=_COMMITTED_SECONDS)
        except KafkaException as error:
            # Where the right is missing, librdkafka looks for the coordinator until its time is up.
            raise BrokerAway(
                f"Kafka does not say how far the replay is ({error.args[0].str()}): try again, and grant "
                f"READ and DESCRIBE on group {self._group!r} where there is an authorizer."
            ) from error
        committed = {} if anew else {at.partition: at.offset for at in found}
        begins = [(each, max(each.begin, committed.get(each.partition, -1))) for each in self._stretches]
        return [
            TopicPartition(self._topic_read, each.partition, begin)
            for each, begin in begins
            if begin < each.end
        ]

    def begin(self, places: Sequence[TopicPartition]) -> None:
        """Begin at these places; for `join`, which knows nothing of them."""
        self._begins = list(places)

    def join(self, before_revoke: BeforeRevoke) -> None:
        """Take the partitions; they stay ours until the end."""
        self._begin(self._begins)
        self._open = set(self._progress)
        self._consumer.assign(self._begins)

    @property
    def joined(self) -> bool:
        """Whether there is anything to read; there is no group to be a member of."""
        return bool(self._progress)

    def poll(
        self, timeout_seconds: float, *, wanted: bool = True, but_of: Collection[int] = ()
    ) -> SourceMessage | None:
        """Return the next message that is meant, or None; stops the service once all are finished."""
        self._open -= {number for number in self._ended if not self._prefetch.holds(number)}
        self._stop_at_the_end()
        wait = self._next_at - time.monotonic()
        if wait > 0 or not self._open:
            # What was committed is known through a callback, which runs in here.
            return super().poll(min(max(wait, 0.0) or timeout_seconds, timeout_seconds), wanted=False)
        message = super().poll(timeout_seconds, wanted=wanted, but_of=but_of)
        if message is None or message.progress.partition not in self._open:
            return None
        if message.offset >= self._read_to[message.progress.partition]:
            self._open.discard(message.progress.partition)
            return None
        if not self._window.takes(message):
            message.progress.fetched(message.offset, 0)
            return None
        self.taken += 1
        if self.taken == self._window.limit:
            self.limited = True
            self._open.clear()
        if self._window.rate is not None:
            self._next_at = time.monotonic() + 1 / self._window.rate
        return replace(message, headers=(self._mark.to_header(),))

    def _at_end(self, partition: int) -> None:
        self._ended.add(partition)  # what was fetched ahead of it comes first

    def _stop_at_the_end(self) -> None:
        if self._open or any(each.held or each.commit_due for each in self._progress.values()):
            return
        self.complete = True
        self._stop.set()
