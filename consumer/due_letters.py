"""Letters that are due to be sent again: the oldest recordings, each once, as many as memory has room for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from consumer.letters import DeadLetter
from consumer.resend_plan import recording_of

MOST_BYTES = 32 * 1024**2
"""Of letters that are kept for one run: the command may run beside a live pod, in its memory."""

_RESERVE = 1_000
"""Recordings that are kept though fewer are wanted: some may turn out to have no event any more."""


@dataclass(frozen=True)
class Due:
    """One recording: the letter that is sent, and where its others lie, which are done with it too."""

    letter: DeadLetter
    oldest: tuple[datetime, str]
    others: tuple[str, ...] = ()

    @property
    def letters(self) -> int:
        """How many letters the recording has."""
        return 1 + len(self.others)


class Shelf:
    """Keeps the oldest recordings of all letters that come by; what it lets go waits for the next run.

    Args:
        recordings: how many at most.
        most_bytes: of letters; about twice that is kept for moments, and one recording whatever its size.
    """

    def __init__(self, recordings: int, most_bytes: int = MOST_BYTES) -> None:
        self._recordings, self._most_bytes = recordings, most_bytes
        self._kept: dict[str, Due] = {}
        self._bytes = 0
        self._gone: set[int] = set()
        """Hashes of recordings that were let go: the rest of one that is split would be sent as another."""

    def add(self, letter: DeadLetter) -> None:
        """Take in a letter: of several of one recording the newest that is whole is sent."""
        recording = recording_of(letter)
        if hash(recording) in self._gone:
            return
        before = self._kept.get(recording)
        if before is None:
            self._kept[recording] = Due(letter, letter.age)
        else:
            older, newer = sorted((before.letter, letter), key=lambda each: (each.whole, each.age))
            self._kept[recording] = Due(
                newer, min(before.oldest, letter.age), (*before.others, older.position)
            )
            self._bytes -= before.letter.size_bytes
        self._bytes += self._kept[recording].letter.size_bytes
        if len(self._kept) > 2 * self._recordings or self._bytes > 2 * self._most_bytes:
            self._let_go()

    def oldest(self) -> list[Due]:
        """Return what is kept, the oldest first."""
        self._let_go()
        return sorted(self._kept.values(), key=_oldest)

    @property
    def held_bytes(self) -> int:
        """About how much memory the letters take."""
        return self._bytes

    @property
    def holds_all(self) -> bool:
        """Whether nothing was let go."""
        return not self._gone

    def _let_go(self) -> None:
        ordered = sorted(self._kept.items(), key=lambda item: item[1].oldest)
        self._kept, self._bytes = {}, 0
        for recording, due in ordered:
            size_bytes = self._bytes + due.letter.size_bytes
            if self._kept and (len(self._kept) == self._recordings or size_bytes > self._most_bytes):
                self._gone.add(hash(recording))
                continue
            self._kept[recording] = due
            self._bytes = size_bytes


def take(
    read: Callable[[], Iterable[DeadLetter]],
    made_whole: Callable[[DeadLetter], DeadLetter],
    refuse: Callable[[DeadLetter], str | None],
    limit: int,
) -> Iterator[Due | tuple[Due, str]]:
    """Yield the oldest recordings that can be sent, at most `limit`; in between, those that cannot, and why.

    Only the source topic says whether it still has an event that a letter does not hold. Where it has not,
    the next recordings take the place, so that no letters keep back those behind them in each run.

    Args:
        read: the letters that look as if they could be sent, from the beginning each time.
        made_whole: gives a letter its event.
        refuse: why a letter cannot be sent, or None.
        limit: how many recordings.
    """
    taken, taken_bytes = 0, 0
    looked_at: set[str] = set()
    while True:
        shelf = Shelf(max(limit, _RESERVE))
        for letter in read():
            if recording_of(letter) not in looked_at:
                shelf.add(letter)
        refused = 0
        for due in shelf.oldest():
            if taken == limit or taken_bytes > MOST_BYTES:
                return
            looked_at.add(recording_of(due.letter))
            whole = replace(due, letter=made_whole(due.letter))
            why = refuse(whole.letter)
            if why is None:
                taken, taken_bytes = taken + 1, taken_bytes + whole.letter.size_bytes
                yield whole
            else:
                refused += 1
                yield whole, why
        if shelf.holds_all or not refused:
            return


def _oldest(due: Due) -> tuple[datetime, str]:
    return due.oldest
