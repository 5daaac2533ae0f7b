"""Delivery: how outcomes and offsets get into Kafka; one interface, two promises.

`transactions` writes both at once (exactly once), `confirmations` one after the other (at least once).
docs/adr/0013-one-transaction-for-results-and-offsets.md says why there are two.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from consumer.analysis import Analysis
from consumer.backlog import InHand
from consumer.errors import MessageTooLarge, VaultMLError
from consumer.messages import OutgoingMessage
from consumer.offsets import PartitionProgress
from consumer.report import Costs


@dataclass(frozen=True)
class Outcome:
    """What is said of a recording once its message is in Kafka."""

    outcome: str
    reason: str
    line: dict[str, object]
    costs: Costs = field(default_factory=Costs)
    analysis: Analysis | None = None
    error: VaultMLError | None = None
    """Why it is a dead letter."""
    exhausted: bool = False
    """The error might have healed, and did not in time."""


@dataclass(frozen=True, eq=False)
class Letter:
    """An outcome on its way out: the message, where it goes, and the recording that it is about.

    `written_at` is of the monotonic clock, in seconds.
    """

    topic: str
    message: OutgoingMessage
    recording: InHand
    outcome: Outcome
    written_at: float

    @property
    def progress(self) -> PartitionProgress:
        """The partition that the recording's event came from."""
        return self.recording.progress

    @property
    def offset(self) -> int:
        """Where the event stood in its partition."""
        return self.recording.position.offset


@dataclass(frozen=True)
class Receipt:
    """What became of a letter: it is in Kafka for good, or refused for its size."""

    letter: Letter
    refused: MessageTooLarge | None = None


class Delivery(Protocol):
    """Takes letters, sees them into Kafka, and commits what is finished.

    All methods are called from one thread. What belongs to a partition that was taken away is dropped: its
    new owner does it again.
    """

    @property
    def undelivered(self) -> int:
        """Letters that are on their way; not those that wait for the messages before them."""
        ...

    @property
    def troubled(self) -> bool:
        """Whether something waits because Kafka did not take it."""
        ...

    def send(self, letter: Letter) -> None:
        """Take a letter."""
        ...

    def turn(self, wait_seconds: float = 0.0) -> Sequence[Receipt]:
        """Go on with what is under way, and return what came of it.

        Raises:
            StreamSetupError: Kafka refuses us for good; says why.
            ProducerEnded: the pod must begin anew.
        """
        ...

    def settle(self, going: Collection[PartitionProgress], deadline: float) -> Sequence[Receipt]:
        """Commit what is finished of partitions that go away; `deadline` is of the monotonic clock."""
        ...

    def close(self) -> None:
        """Let go of Kafka."""
        ...
