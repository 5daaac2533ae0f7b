"""Commits: offsets that the consumer itself commits, for at-least-once delivery."""

from collections.abc import Callable, Collection

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.offsets import PartitionProgress, Place

_log = structlog.get_logger("vault-ml.stream")


class Commits:
    """Commits what is finished; one that fails is logged and made again later: it repeats messages at most.

    Args:
        assigned: returns the partition of that number, if it is ours.
    """

    def __init__(self, assigned: Callable[[int], PartitionProgress | None]) -> None:
        self._assigned = assigned
        self.under_way = 0
        """Commits that the broker has not answered."""

    def commit(
        self, consumer: Consumer, partitions: Collection[PartitionProgress], *, wait: bool = False
    ) -> None:
        """Commit what is finished of these partitions.

        Args:
            consumer: the member of the group.
            partitions: that are ours.
            wait: for the broker's answer.
        """
        due = {p: place for p in partitions if (place := p.commit_due) is not None}
        if not due:
            return
        offsets = [
            TopicPartition(p.topic, p.partition, place.offset, metadata=place.note)
            for p, place in due.items()
        ]
        try:
            if wait:
                consumer.commit(offsets=offsets, asynchronous=False)
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
                self.under_way += 1
        except KafkaException as error:
            _log.warning("commit failed; these messages may come again", error=error.args[0].str())
            return
        for p, place in due.items():
            if wait:
                p.committed(place)
            else:
                # A note counts once Kafka has it: a try that ends the pod before would leave no trace.
                p.commit_asked(place)

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Take in the broker's answer; librdkafka's `on_commit`."""
        self.under_way = max(0, self.under_way - 1)
        # Where some partitions are refused and others not, each says so for itself.
        for at in partitions:
            progress, refused = self._assigned(at.partition), error or at.error
            if refused is not None:
                _log.warning(
                    "commit failed; these messages may come again",
                    partition=at.partition,
                    error=refused.str(),
                )
            if progress is None:
                continue
            if refused is None:
                progress.commit_confirmed(Place(at.offset, at.metadata or ""))
            else:
                progress.committed(None)
