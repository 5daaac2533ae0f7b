"""Places: where we go on in each partition, where its log begins and ends, what Kafka deleted in between."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.offsets import PartitionProgress, Place
from consumer.retention import Losses

_log = structlog.get_logger("vault-ml.stream")

AGAIN_SECONDS = 1.0
"""Between two questions for places that Kafka did not tell."""

_PLACES_SECONDS = 1.0
_ENDS_SECONDS = 0.5


class Places:
    """Asks Kafka for the places of partitions; nothing of a partition is given out before its place is known.

    Args:
        consumer: that reads them.
        losses: told what Kafka deleted before we read it.
    """

    def __init__(self, consumer: Consumer, losses: Losses) -> None:
        self._consumer, self._losses = consumer, losses
        self._unknown: dict[int, PartitionProgress] = {}
        self._ask_at = 0.0
        self._astray: dict[int, float] = {}
        """Partitions of which Kafka does not have what comes next, and when to look where they go on."""
        self.away = False
        """Whether Kafka did not answer when it was last asked for the ends of a log."""

    def begin(self, partitions: Iterable[PartitionProgress]) -> None:
        """Take note of partitions that became ours: what is committed of them is to be asked."""
        self._unknown |= {progress.partition: progress for progress in partitions}
        self._ask_at = 0.0

    def forget(self, number: int) -> None:
        """Take note of a partition that is not ours any more."""
        self._unknown.pop(number, None)
        self._astray.pop(number, None)

    @property
    def unknown(self) -> Collection[int]:
        """Partitions whose committed offset is not known yet."""
        return self._unknown.keys()

    def look_up(self, now: float) -> None:
        """Note what is committed of the partitions that began, where that is not known; all in one question.

        Where Kafka does not say it in a second, the caller goes on and comes again.
        """
        if not self._unknown or now < self._ask_at:
            return
        asked = [TopicPartition(each.topic, each.partition) for each in self._unknown.values()]
        try:
            found = self._consumer.committed(asked, timeout=_PLACES_SECONDS)
        except KafkaException as error:
            _log.warning("committed offset not known", error=error.args[0].str())
            self._ask_at = time.monotonic() + AGAIN_SECONDS
            return
        for at in found:
            if at.error is not None:
                _log.warning("committed offset not known", error=at.error.str(), partition=at.partition)
                self._ask_at = time.monotonic() + AGAIN_SECONDS
                continue
            progress = self._unknown.pop(at.partition)
            if at.offset >= 0:
                progress.begun_at = Place(at.offset, at.metadata or "")
                progress.committed(progress.begun_at)

    def astray(self, number: int) -> None:
        """Take note that Kafka does not have what comes next in a partition."""
        self._astray[number] = 0.0

    def go_on(
        self, now: float, assigned: Mapping[int, PartitionProgress], paused: Callable[[int], bool]
    ) -> None:
        """Go on with partitions of which Kafka does not have what comes next.

        Args:
            now: monotonic seconds.
            assigned: the partitions that are ours, by number.
            paused: whether a partition is not to be fetched now.
        """
        due = [number for number, at in self._astray.items() if at <= now and number not in self._unknown]
        for number in due:
            self._astray[number] = now + AGAIN_SECONDS
            progress = assigned[number]
            at = TopicPartition(progress.topic, number)
            try:
                low, high = self._consumer.get_watermark_offsets(at, timeout=_ENDS_SECONDS)
            except KafkaException:
                continue
            del self._astray[number]
            # It is not being fetched any more, so it cannot be moved: take it anew, from there.
            self._consumer.incremental_unassign([at])
            at.offset = self._losses.go_on(progress, low, high)
            self._consumer.incremental_assign([at])
            if paused(number):
                self._consumer.pause([at])

    def lags(
        self, assigned: Mapping[int, PartitionProgress], paused: Callable[[int], bool], *, away: bool
    ) -> dict[tuple[str, int], int]:
        """Return the messages of each assigned partition that are not finished yet; note if Kafka answers.

        Args:
            assigned: the partitions that are ours, by number.
            paused: whether a partition is not being fetched: then nobody else tells what expires of it.
            away: whether it is known already that no broker answers.
        """
        self.away = away
        lags = {}
        for number, progress in assigned.items():
            low, high = self._ends(TopicPartition(progress.topic, number))
            if number not in self._unknown and paused(number):
                self._losses.expired(progress, low)
            done = progress.finished_to
            if done is None:
                done = low if progress.begun_at is None else progress.begun_at.offset
            if high >= 0:
                lags[progress.topic, number] = max(0, high - done)
        return lags

    def _ends(self, at: TopicPartition) -> tuple[int, int]:
        """Return the first offset of a partition and the one after its last, as of now if the broker answers.

        What the fetches said would be old while the partition is paused.
        """
        if not self.away:
            try:
                return self._consumer.get_watermark_offsets(at, timeout=_ENDS_SECONDS)
            except KafkaException:
                self.away = True
        return self._consumer.get_watermark_offsets(at, cached=True)
