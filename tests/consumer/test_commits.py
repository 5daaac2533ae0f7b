"""Commits of at-least-once delivery: a note counts once a real Kafka has it, and not when it was sent."""

import time

from confluent_kafka import Consumer

from consumer.attempts import Attempts
from consumer.backlog import InHand
from consumer.commits import Commits
from consumer.events import RecordingEvent
from consumer.messages import Position
from consumer.offsets import PartitionProgress, Place
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic

SECONDS = 30.0


def test_no_try_begins_before_kafka_has_the_note_that_would_tell_of_it(kafka: KafkaBroker) -> None:
    topic = create_topic(kafka.bootstrap, "notes")
    progress = PartitionProgress(topic, 0)
    commits, attempts = Commits({0: progress}.get), Attempts()
    member = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": topic,
            "enable.auto.commit": False,
            "on_commit": commits.on_commit,
        }
    )
    try:
        member.subscribe([topic])
        deadline = time.monotonic() + SECONDS
        while not member.assignment() and time.monotonic() < deadline:
            member.poll(0.1)
        progress.fetched(7, 1)
        attempts.meet(progress)
        position = Position(topic, 0, 7)
        recording = InHand(RecordingEvent(raw={}, key="a"), position, progress, 0.0, b"{}")
        assert attempts.take_in(recording) is None
        commits.commit(member, [progress])
        assert progress.commit_due is None, "it is on its way, and not sent twice"
        assert not attempts.ask(recording)
        while commits.under_way and time.monotonic() < deadline:
            member.poll(0.1)
        assert progress.committed_place == Place(7, progress.note)
        assert attempts.ask(recording)
    finally:
        member.close()
