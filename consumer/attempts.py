"""Attempts: what is known of recordings that ended a worker or a pod, kept beside the committed offset.

A pod that dies takes its memory with it, and the next one would walk into the same recording. So each commit
carries a note (Kafka's metadata of an offset): how often which recording broke down, and what was under way.
docs/adr/0014-limits-and-attempts.md has the rules.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import structlog

from consumer.backlog import MAX_BREAKDOWNS, InHand
from consumer.errors import PodDied, VaultMLError
from consumer.history import KINDS, Breakdowns, History, decode, encode, name_of, order
from consumer.offsets import PartitionProgress

_log = structlog.get_logger("vault-ml.attempts")

CAREFUL_MESSAGES = 2_000
"""Behind the place where a pod died: it had no more in hand than consumer/service.py holds of a partition
(1,000 messages), and what it had finished since its last commit."""

ANNOUNCED = 16
"""Recordings of a partition that are announced before they may begin."""

NOTE_SECONDS = 1.0
"""How long the note may say something else than what is under way, where nothing waits for it."""


@dataclass(frozen=True)
class _Alone:
    progress: PartitionProgress
    name: str
    before: Breakdowns | None
    """What was known of it before it was charged with a death that has not happened yet."""

    def is_(self, recording: InHand) -> bool:
        return self.progress is recording.progress and self.name == name_of(recording.position)


@dataclass(eq=False)
class _Partition:
    by: str
    tried: dict[str, Breakdowns]
    suspects: set[str]
    """What a pod that died had under way, and what has not been tried alone yet."""
    careful_before: int
    """Below this offset a recording begins only once a committed note names it."""
    announced: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    noted: History = field(default_factory=History)
    noted_at: float = float("-inf")
    read: str = ""
    """The committed note that was read last."""
    committed: History = field(default_factory=History)
    """What it says, if it is ours."""

    def history(self, progress: PartitionProgress) -> History:
        """Return what is to be noted; what lies before the committed offset is finished for good."""
        if (place := progress.committed_place) is not None:
            for names in (self.tried, self.suspects, self.announced):
                for name in [name for name in names if order(name)[0] < place.offset]:
                    names.pop(name) if isinstance(names, dict) else names.discard(name)
        return History(self.by, frozenset(self.suspects | self.announced | self.running), dict(self.tried))


class Attempts:
    """Says when a recording may be tried, and writes the notes of all partitions."""

    def __init__(self) -> None:
        self._partitions: dict[PartitionProgress, _Partition] = {}
        self._alone: _Alone | None = None
        """The one suspect that is tried now, or next."""

    def meet(self, progress: PartitionProgress) -> None:
        """Take note of a partition before anything of it is committed."""
        self._partition(progress)

    def take_in(self, recording: InHand) -> VaultMLError | None:
        """Take note of a recording that was fetched; returns why it is not to be tried any more, if so."""
        partition = self._partition(recording.progress)
        name = name_of(recording.position)
        recording.suspect = name in partition.suspects
        known = partition.tried.get(name)
        if known is None:
            return None
        recording.breakdowns = recording.attempts = known.count
        if known.count < MAX_BREAKDOWNS:
            return None
        recording.suspect = False
        partition.suspects.discard(name)
        # The note counts all of them together, and keeps the reason of the last one.
        last = "the pod" if known.reason == PodDied.reason else "a worker"
        return KINDS[known.reason](
            f"Workers or the pod ended {known.count} times while it was tried; {last} the last time."
        )

    def ask(self, recording: InHand) -> bool:
        """Return whether a try may begin now; where it may not yet, see that it soon may."""
        partition, name = self._partition(recording.progress), name_of(recording.position)
        committed = self._committed(recording.progress, partition)
        if recording.suspect:
            return self._ask_alone(recording, partition, committed)
        written = recording.breakdowns <= _count(committed.tried, name)
        if recording.position.offset >= partition.careful_before:
            return written and bool(committed.by)
        if len(partition.announced) < ANNOUNCED:
            partition.announced.add(name)
        return written and name in committed.under_way

    def _ask_alone(self, recording: InHand, partition: _Partition, committed: History) -> bool:
        name = name_of(recording.position)
        if self._alone is not None and self._alone.progress.revoked:
            self._alone = None
        if self._alone is None:
            self._alone = _Alone(recording.progress, name, partition.tried.get(name))
            # Written down as if the pod had died on it: it is taken back where the pod lives to do so.
            partition.tried[name] = Breakdowns(recording.breakdowns + 1, PodDied.reason)
        return self._alone.is_(recording) and _count(committed.tried, name) > recording.breakdowns

    def begun(self, recording: InHand) -> None:
        """Take note that a try begins."""
        partition, name = self._partition(recording.progress), name_of(recording.position)
        partition.announced.discard(name)
        partition.running.add(name)

    def ended(self, recording: InHand) -> None:
        """Take note that a try has ended, however it did, and the pod is still there."""
        partition = self._partitions.get(recording.progress)
        if partition is None:
            return
        name = name_of(recording.position)
        partition.running.discard(name)
        if recording.suspect:
            recording.suspect = False
            partition.suspects.discard(name)
            if self._alone is not None and self._alone.is_(recording):
                self._take_back(self._alone, partition)

    def broke_down(self, recording: InHand, reason: str) -> None:
        """Take note of a try that ended a worker; after `recording.breakdowns` was counted up."""
        partition = self._partition(recording.progress)
        partition.tried[name_of(recording.position)] = Breakdowns(recording.breakdowns, reason)

    def write(self, now: float) -> None:
        """Renew the notes that the next commits carry; those that nobody waits for, about once a second."""
        for progress in [progress for progress in self._partitions if progress.revoked]:
            del self._partitions[progress]
        for progress, partition in self._partitions.items():
            history, noted, place = partition.history(progress), partition.noted, progress.committed_place
            if history == noted:
                continue
            more_tried = any(noted.tried.get(name) != known for name, known in history.tried.items())
            waited_for = more_tried or not partition.announced <= noted.under_way
            moved = place is None or place.offset != progress.finished_to
            if waited_for or moved or now - partition.noted_at >= NOTE_SECONDS:
                self._note(progress, partition, history)
                partition.noted_at = now

    def leave(self, going: Collection[PartitionProgress]) -> None:
        """Leave partitions in good order: what is still under way there is nobody's suspect."""
        for progress in going:
            partition = self._partitions.get(progress)
            if partition is None:
                continue
            if self._alone is not None and self._alone.progress is progress:
                self._take_back(self._alone, partition)
            left = partition.history(progress)
            # Suspects of a pod before us that we did not come to are still that.
            by = partition.by if partition.suspects else ""
            self._note(progress, partition, History(by, frozenset(partition.suspects), left.tried))

    def _take_back(self, alone: _Alone, partition: _Partition) -> None:
        self._alone = None
        partition.tried.pop(alone.name, None)
        if alone.before is not None:
            partition.tried[alone.name] = alone.before

    def _partition(self, progress: PartitionProgress) -> _Partition:
        partition = self._partitions.get(progress)
        if partition is None:
            partition = self._partitions[progress] = self._begin(progress)
            # At once, so that no commit goes out without what is known.
            self._note(progress, partition, partition.history(progress))
        return partition

    @staticmethod
    def _begin(progress: PartitionProgress) -> _Partition:
        place = progress.begun_at
        found = History() if place is None else decode(place.note)
        if found is None:
            _log.warning(
                "a note beside the committed offset is not ours; ignored", partition=progress.partition
            )
            found = History()
        if found.by:
            _log.warning(
                "the partition was not given back; what was under way is tried one by one",
                partition=progress.partition,
                suspects=len(found.under_way),
            )
        careful_before = place.offset + CAREFUL_MESSAGES if place is not None and found.by else 0
        return _Partition(secrets.token_hex(4), dict(found.tried), set(found.under_way), careful_before)

    @staticmethod
    def _note(progress: PartitionProgress, partition: _Partition, history: History) -> None:
        partition.noted = history
        progress.note = encode(history)

    @staticmethod
    def _committed(progress: PartitionProgress, partition: _Partition) -> History:
        note = "" if progress.committed_place is None else progress.committed_place.note
        if note != partition.read:
            partition.read = note
            found = decode(note) or History()
            partition.committed = found if found.by == partition.by else History()
        return partition.committed


def _count(tried: Mapping[str, Breakdowns], name: str) -> int:
    known = tried.get(name)
    return 0 if known is None else known.count
