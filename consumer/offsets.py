"""Offsets of one partition: which messages are finished, and how far the group may commit."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """What is committed of a partition: the offset that the group goes on from, and a note beside it."""

    offset: int
    note: str = ""


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
    begun_at: Place | None = None
    """What was committed when the partition became ours; None before that is known, or where nothing was."""
    note: str = ""
    """What the next commit says beside the offset: Kafka's metadata of a commit, at most 4096 bytes."""
    held_bytes: int = 0
    """Of outcomes that wait for the messages before them."""
    _fetched: dict[int, int] = field(default_factory=dict)
    """Offset -> outcomes still missing, from the first unfinished message on, in the order of the offsets.

    A message that holds a list of n events has n outcomes.
    """
    _next_offset: int | None = None
    """One past the highest offset that was taken into hand."""
    _received_to: int | None = None
    """One past the highest offset that Kafka gave us, fetched ahead or in hand."""
    _asked: Place | None = None
    """What the last commit said, whether Kafka has answered it or not."""
    _committed: Place | None = None
    _uncommitted: list[int] = field(default_factory=list)
    """Offsets of finished messages with outcomes that no commit covers yet."""

    def received(self, offset: int) -> None:
        """Note a message that Kafka gave us and that nobody has taken into hand yet."""
        self._received_to = offset + 1

    def fetched(self, offset: int, outcomes: int) -> None:
        """Note a message taken into hand, with that many outcomes to come (none: it is finished at once)."""
        if outcomes > 0 or self._fetched:
            self._fetched[offset] = outcomes
        self._next_offset = offset + 1

    def finished(self, offset: int) -> None:
        """Note one outcome of the message."""
        self._fetched[offset] -= 1
        while self._fetched and self._fetched[first := next(iter(self._fetched))] == 0:
            del self._fetched[first]
            self._uncommitted.append(first)

    def reopened(self, offset: int) -> None:
        """Take one outcome of a message back: Kafka did not take it as it was."""
        missing = self._fetched.get(offset, 0) + 1
        self._fetched = dict(sorted((self._fetched | {offset: missing}).items()))
        if offset in self._uncommitted:
            self._uncommitted.remove(offset)

    @property
    def commit_due(self) -> Place | None:
        """What is to be committed, or None when that has been done already."""
        if self.finished_to is None:
            return None
        due = Place(self.finished_to, self.note)
        return None if due == self._asked else due

    @property
    def finished_to(self) -> int | None:
        """The first offset that is not finished; None before the first message."""
        return next(iter(self._fetched), self._next_offset)

    def commit_asked(self, place: Place) -> None:
        """Note a commit that is under way, so that the same is not committed twice."""
        self._asked = place

    def commit_confirmed(self, place: Place) -> None:
        """Note that Kafka has taken a commit; a later one may be under way."""
        self._committed = place
        self._uncommitted = [offset for offset in self._uncommitted if offset >= place.offset]

    def committed(self, place: Place | None) -> None:
        """Note what is committed and nothing is under way; None: what that is, is not known."""
        self._asked = self._committed = place
        if place is not None:
            self.commit_confirmed(place)

    @property
    def committed_place(self) -> Place | None:
        """What Kafka said last that it has taken: a pod after us reads this, or something newer."""
        return self._committed

    @property
    def next_offset(self) -> int | None:
        """The offset that Kafka gives next; None before the first message where nothing is committed."""
        if self._received_to is not None:
            return self._received_to
        return None if self.begun_at is None else self.begun_at.offset

    def goes_on_at(self, offset: int) -> None:
        """Note that what lies between the last message received and this offset will never come."""
        if self._received_to == self._next_offset:
            self._next_offset = offset  # else what was fetched ahead comes first
        self._received_to = offset

    @property
    def held(self) -> int:
        """Messages in hand that no commit covers yet: what a crash would repeat."""
        return len(self._uncommitted) + len(self._fetched)
