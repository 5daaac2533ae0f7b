"""Prefetch: messages that Kafka gave us and nobody has taken yet, by partition; given out in turns.

Pausing a partition in librdkafka throws away what it has fetched ahead, and a consumer that goes on gets
first what was fetched first. So what was fetched stands here until it is wanted, a little of each partition,
and no partition stands still while others move.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from consumer.offsets import PartitionProgress

AHEAD_MESSAGES = 32
"""Of one partition; at so many it is paused, at half of them it is fetched again."""

AHEAD_BYTES = 8 * 1024**2
"""Of all partitions; at so many all are paused, and at half of them those that are not full go on."""


@dataclass(frozen=True)
class SourceMessage:
    """One message of the source topic, and the progress of the partition that it belongs to."""

    offset: int
    value: bytes | None
    progress: PartitionProgress
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None
    """When it was written, Unix time; None where the broker does not say."""

    @property
    def size_bytes(self) -> int:
        """Value and headers."""
        return len(self.value or b"") + sum(len(name) + len(value) for name, value in self.headers)


class Prefetch:
    """Messages by the number of their partition, each in the order of the offsets."""

    def __init__(self) -> None:
        self._messages: dict[int, deque[SourceMessage]] = {}
        """In the order in which the partitions have their turn; none is empty."""
        self._size_bytes = 0
        self._full: set[int] = set()
        self._too_large = False

    def put(self, message: SourceMessage) -> None:
        """Add the next message of its partition."""
        self._messages.setdefault(message.progress.partition, deque()).append(message)
        self._size_bytes += message.size_bytes

    def next_partition(self, but_of: Collection[int] = ()) -> int | None:
        """Return the partition whose turn it is, or None where nothing waits.

        Args:
            but_of: partitions that are passed over.
        """
        return next((number for number in self._messages if number not in but_of), None)

    def take(self, but_of: Collection[int] = ()) -> SourceMessage | None:
        """Return the next message of the partition whose turn it is, or None."""
        number = self.next_partition(but_of)
        if number is None:
            return None
        messages = self._messages.pop(number)
        message = messages.popleft()
        if messages:
            self._messages[number] = messages  # last in line now
        self._size_bytes -= message.size_bytes
        return message

    def holds(self, number: int) -> bool:
        """Whether there is a message of this partition."""
        return number in self._messages

    def drop(self, number: int) -> None:
        """Forget the messages of a partition: somebody else reads them."""
        self._size_bytes -= sum(message.size_bytes for message in self._messages.pop(number, ()))
        self._full.discard(number)

    def to_pause(self, assigned: Collection[int]) -> set[int]:
        """Return which of these partitions are not to be fetched now."""
        self._too_large = self._size_bytes >= (AHEAD_BYTES // 2 if self._too_large else AHEAD_BYTES)
        if self._too_large:
            return set(assigned)
        self._full = {
            number
            for number, messages in self._messages.items()
            if len(messages) >= (AHEAD_MESSAGES // 2 + 1 if number in self._full else AHEAD_MESSAGES)
        }
        return self._full & set(assigned)
