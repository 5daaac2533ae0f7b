"""Where a message stood in Kafka, and what goes out to Kafka: plain values, without a client."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Where one event came from; `index` counts the events of one message from 0."""

    topic: str
    partition: int
    offset: int
    index: int = 0

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}/{self.index}"


@dataclass(frozen=True)
class OutgoingMessage:
    """A result or a dead letter, ready for a producer; header values are UTF-8."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size_bytes(self) -> int:
        """Key, value and headers together: what counts against the broker's `message.max.bytes`."""
        return (
            len(self.key)
            + len(self.value)
            + sum(len(name.encode()) + len(value) for name, value in self.headers)
        )
