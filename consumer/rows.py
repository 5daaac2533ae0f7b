"""Rows: the letters of each partition that wait for Kafka, and which of them travel together.

A row is written from its front. A letter that Kafka would not take is set apart: its row waits behind it, it
is tried again by itself, and what the other rows hold goes on without it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from consumer.delivery import Letter
from consumer.offsets import PartitionProgress, Place

BATCH_LETTERS = 500
BATCH_BYTES = 16 * 1024**2
"""What one transaction carries at most; a message that alone holds more goes alone."""

Spot = tuple[PartitionProgress, int | None]
"""A message of a partition by its offset; None: the partition's commit, where no letter goes with it."""


@dataclass(frozen=True)
class Contents:
    """What one transaction carries: letters of whole messages, and the places behind them."""

    letters: tuple[Letter, ...]
    places: tuple[tuple[PartitionProgress, Place], ...]

    @property
    def spots(self) -> dict[Spot, None]:
        """The messages that it carries, in order; where it carries none, the partitions' commits."""
        return dict.fromkeys(map(spot_of, self.letters)) or {(p, None): None for p, _ in self.places}

    @property
    def alone(self) -> Spot | None:
        """The message that it carries, or None where it carries more: nobody knows then which one is bad."""
        return next(iter(self.spots)) if len(self.spots) == len(self.places) == 1 else None


@dataclass
class _Row:
    """Letters of one partition by offset, and how many of them are due."""

    by_offset: dict[int, list[Letter]] = field(default_factory=dict)
    due: int = 0
    counted_to: int | None = None
    """Up to which offset `due` has been counted."""

    def before(self, offset: int) -> list[tuple[int, list[Letter]]]:
        return sorted((at, letters) for at, letters in self.by_offset.items() if at < offset)


class Rows:
    """Letters in rows, one for each partition; what is not in Kafka stays."""

    def __init__(self) -> None:
        self._rows: dict[PartitionProgress, _Row] = {}
        self._apart: dict[Spot, float] = {}
        """What travels alone; and when to try it again, by the monotonic clock (0: at once)."""
        self._most = BATCH_LETTERS
        """Letters that travel together now: fewer, while nobody knows which of them is bad."""
        self._alone_was_last = False

    def put(self, letter: Letter) -> None:
        """Take a letter in."""
        row = self._rows.setdefault(letter.progress, _Row())
        row.by_offset.setdefault(letter.offset, []).append(letter)
        row.counted_to = None
        letter.progress.held_bytes += _size_bytes(letter)

    def remove(self, letter: Letter) -> None:
        """Let go of a letter, unless its partition has gone already."""
        row = self._rows.get(letter.progress)
        if row is None:
            return
        row.by_offset[letter.offset].remove(letter)
        if not row.by_offset[letter.offset]:
            del row.by_offset[letter.offset]
        row.counted_to = None
        letter.progress.held_bytes -= _size_bytes(letter)

    def drop_revoked(self) -> None:
        """Forget the partitions that were taken away: their new owner does it again."""
        for progress in [progress for progress in self._rows if progress.revoked]:
            del self._rows[progress]
        for spot in [spot for spot in self._apart if spot[0].revoked]:
            del self._apart[spot]

    # What is due.

    @property
    def due(self) -> int:
        """Letters that may go; not those that wait for a message before them, or behind one that rests."""
        for progress, row in self._rows.items():
            if row.counted_to is None or row.counted_to != progress.finished_to:
                row.counted_to = progress.finished_to
                row.due = sum(len(letters) for _, letters in self._may_go(progress, row))
        return sum(row.due for row in self._rows.values())

    def _may_go(self, progress: PartitionProgress, row: _Row) -> Iterable[tuple[int, list[Letter]]]:
        resting = {at for (of, at), again_at in self._apart.items() if of is progress and again_at > 0.0}
        to = 0 if progress.finished_to is None or None in resting else progress.finished_to
        return row.before(min([to, *(at for at in resting if at is not None)]))

    @property
    def resting(self) -> bool:
        """Whether something waits because its topic does not take it."""
        return any(again_at > 0.0 for again_at in self._apart.values())

    def rests(self, spot: Spot) -> bool:
        """Whether a message waits because its topic does not take it."""
        return self._apart.get(spot, 0.0) > 0.0

    @property
    def searching(self) -> bool:
        """Whether fewer letters travel together than could."""
        return self._most < BATCH_LETTERS

    def hurried(self, assigned: Sequence[PartitionProgress], now: float) -> bool:
        """Whether the next transaction need not wait for more letters: it would not carry them."""
        return self.searching or self._one_alone(assigned, now) is not None

    # What goes wrong, and right.

    def set_apart(self, spot: Spot, again_at: float = 0.0) -> None:
        """Let a message travel alone from now on, and rest until then; it becomes the last of those."""
        self._apart.pop(spot, None)
        self._apart[spot] = again_at
        self._count_again(spot[0])

    def carry_fewer(self, carried: int) -> None:
        """Carry half as much: a transaction of so many letters failed, and nothing says for which of them."""
        self._most = max(1, min(self._most, carried) // 2)

    def carry_all(self) -> None:
        """Carry as much as there is again."""
        self._most = BATCH_LETTERS

    def written(self, contents: Contents) -> None:
        """Let go of what is in Kafka; its topic takes what rests for it, then."""
        for letter in contents.letters:
            self.remove(letter)
        if (alone := contents.alone) is not None and self._apart.pop(alone, 0.0) > 0.0:
            topics = {letter.topic for letter in contents.letters}
            for spot in [spot for spot in self._apart if self.rests(spot) and self._topics(spot) <= topics]:
                self._apart[spot] = 0.0
                self._count_again(spot[0])
        self._most = min(BATCH_LETTERS, 2 * self._most)

    def _topics(self, spot: Spot) -> set[str]:
        progress, offset = spot
        row = self._rows.get(progress, _Row())
        return set() if offset is None else {letter.topic for letter in row.by_offset.get(offset, ())}

    def _count_again(self, progress: PartitionProgress) -> None:
        if (row := self._rows.get(progress)) is not None:
            row.counted_to = None

    # The next transaction.

    def next_contents(self, assigned: Sequence[PartitionProgress], now: float) -> Contents | None:
        """Return what goes next, or None; one message that travels alone, and then all others, in turns."""
        alone = self._one_alone(assigned, now)
        if alone is None or self._alone_was_last:
            together = self._all_together(assigned)
            self._alone_was_last = together is None
            return together or alone
        self._alone_was_last = True
        return alone

    def _all_together(self, assigned: Sequence[PartitionProgress]) -> Contents | None:
        letters: list[Letter] = []
        places: list[tuple[PartitionProgress, Place]] = []
        size_bytes = 0
        for progress in assigned:
            place = progress.commit_due
            if place is None or (progress, None) in self._apart:
                continue
            row = self._rows.get(progress, _Row())
            for offset, of_message in row.before(place.offset):
                full = len(letters) >= self._most or size_bytes >= BATCH_BYTES
                if full or (progress, offset) in self._apart:
                    place = Place(offset, progress.note)
                    break
                letters += of_message
                size_bytes += sum(letter.message.size_bytes for letter in of_message)
            if place != progress.committed_place:
                places.append((progress, place))
            if self._most == 1 and places:
                break
        return Contents(tuple(letters), tuple(places)) if places else None

    def _one_alone(self, assigned: Sequence[PartitionProgress], now: float) -> Contents | None:
        fronts: dict[PartitionProgress, list[tuple[int, list[Letter]]]] = {}
        for (progress, offset), again_at in self._apart.items():
            place = progress.commit_due
            if again_at > now or place is None or progress not in assigned:
                continue
            if progress not in fronts:
                fronts[progress] = self._rows.get(progress, _Row()).before(place.offset)
            front = fronts[progress]
            if offset is None:
                place = Place(front[0][0], progress.note) if front else place
                return Contents((), ((progress, place),))
            if front and front[0][0] == offset:
                place = Place(front[1][0], progress.note) if len(front) > 1 else place
                return Contents(tuple(front[0][1]), ((progress, place),))
        return None


def spot_of(letter: Letter) -> Spot:
    """Return the message that a letter is about."""
    return letter.progress, letter.offset


def _size_bytes(letter: Letter) -> int:
    """Return what a letter takes of memory; its event's own message is kept for a dead letter."""
    return letter.message.size_bytes + len(letter.recording.payload)
