"""Offsets of one partition: which messages are finished, and how far the group may commit."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class PartitionProgress:
    """Messages of one assigned partition, from fetched to finished; finished in any order.

    Only the contiguous prefix of finished messages may be committed: a crash then repeats messages,
    and never skips one. One object lives from assignment to revocation; `revoked` tells work that is
    still under way that its outcome is no longer ours to publish.
    """

    topic: str
    partition: int
    revoked: bool = False
    _fetched: dict[int, int] = field(default_factory=dict)
    """Offset -> outcomes still missing, from the first unfinished message on, in the order of the offsets.

    A message that holds a list of n events has n outcomes.
    """
    _next_offset: int | None = None
    """One past the highest offset fetched."""
    _committed: int | None = None

    def fetched(self, offset: int, outcomes: int) -> None:
        """Note a message with that many outcomes to come (none: it is finished at once)."""
        if outcomes > 0 or self._fetched:
            self._fetched[offset] = outcomes
        self._next_offset = offset + 1

    def finished(self, offset: int) -> None:
        """Note that one outcome of the message is delivered and confirmed."""
        self._fetched[offset] -= 1
        while self._fetched and self._fetched[first := next(iter(self._fetched))] == 0:
            del self._fetched[first]

    @property
    def commit_offset(self) -> int | None:
        """The offset that the group would go on from, or None when nothing new may be committed."""
        return None if self.finished_to == self._committed else self.finished_to

    @property
    def finished_to(self) -> int | None:
        """The first offset that is not finished; None before the first message."""
        return next(iter(self._fetched), self._next_offset)

    def committed(self, offset: int) -> None:
        """Note what was committed, so that it is not committed again."""
        self._committed = offset

    @property
    def held(self) -> int:
        """Messages from the first unfinished one to the last fetched: what a crash would repeat."""
        return len(self._fetched)
