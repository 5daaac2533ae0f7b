"""What Kafka deletes before it was read is said and counted, and never jumped over in silence."""

import math
import time
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Producer

from consumer.connection import KafkaConnection
from consumer.offsets import PartitionProgress, Place
from consumer.retention import Losses, TopicRetention, retention_seconds, seconds_left
from tests.brokers.kafka import WITH_AUTHORIZER, KafkaBroker, User
from tests.brokers.topics import allow_all_but_create, create_topic, delete_before
from tests.pods import Pod
from tests.worlds import World, keys

HOUR = 3600


def lost(pod: Pod) -> list[tuple[int, int]]:
    return [(line["first"], line["last"]) for line in pod.lines(event="events expired unread")]


def wait_until_lost(pod: Pod, events: int) -> None:
    pod.wait_for(lambda: pod.metric("vault_ml_events_expired_total") == events, f"{events} lost")


def test_what_expired_while_no_pod_was_there_is_counted_and_the_rest_is_done(
    world: World, clip: Path
) -> None:
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(10)]
    world.send(*events[:2])
    with world.pod() as pod:
        world.results(2)
        pod.wait_for(lambda: world.committed() == {0: 2}, "committed")
        (line,) = pod.lines(event="nothing committed, reading from the beginning")
        assert line["partition"] == 0
        assert pod.metric("vault_ml_events_expired_total") == 0
    world.send(*events[2:])
    delete_before(world.kafka.bootstrap, world.source, 7)
    with world.pod() as pod:
        pod.wait_for(lambda: world.committed() == {0: 10}, "all that is left is done")
        wait_until_lost(pod, 5)
        assert lost(pod) == [(2, 6)]
    done = {n for n in range(10) if f"cam/{n}.mp4" in keys(world.everything())}
    assert done == {0, 1, 7, 8, 9}


def test_what_expires_during_an_outage_is_counted_at_once_and_once(world: World, clip: Path) -> None:
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(120)]
    with world.pod() as pod:
        pod.wait_until_ready()
        known, world.vault.secret_key = world.vault.secret_key, "rotated"
        world.send(*events)
        pod.wait_for(lambda: pod.metric("vault_ml_outage", part="vault") == 1, "outage seen")
        in_hand = int(pod.metric("vault_ml_in_flight"))
        delete_before(world.kafka.bootstrap, world.source, 90)
        pod.wait_for(lambda: bool(lost(pod)), "said during the outage")
        assert pod.metric("vault_ml_outage", part="vault") == 1
        delete_before(world.kafka.bootstrap, world.source, 100)
        pod.wait_for(lambda: lost(pod)[-1][1] == 99, "so is what expires next")
        world.vault.secret_key = known
        pod.wait_for(lambda: world.committed() == {0: 120}, "the rest is done")
        ranges = lost(pod)
        assert ranges[0][0] >= in_hand
        assert all(before[1] + 1 == after[0] for before, after in pairwise(ranges))
        gone = ranges[-1][1] + 1 - ranges[0][0]
        assert pod.metric("vault_ml_events_expired_total") == gone
    assert len(set(keys(world.everything()))) == len(world.everything()) == 120 - gone


def test_that_everything_expired_is_said_though_no_message_follows(world: World, clip: Path) -> None:
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(6)]
    world.send(*events[:1])
    with world.pod() as pod:
        world.results(1)
        pod.wait_for(lambda: world.committed() == {0: 1}, "committed")
    world.send(*events[1:])
    delete_before(world.kafka.bootstrap, world.source, 6)
    with world.pod() as pod:
        wait_until_lost(pod, 5)
        assert lost(pod) == [(1, 5)]
        pod.wait_for(lambda: world.committed() == {0: 6}, "the next owner does not count them again")
    with world.pod() as pod:
        world.send(world.store("cam/last.mp4", clip))
        pod.wait_for(lambda: world.committed() == {0: 7}, "committed")
        assert pod.metric("vault_ml_events_expired_total") == 0


def test_gaps_of_transactions_are_no_losses(world: World, clip: Path) -> None:
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap, "transactional.id": world.source})
    producer.init_transactions()
    for n in range(6):
        producer.begin_transaction()
        producer.produce(world.source, b"{}")
        if n % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    world.send(world.store("cam/0.mp4", clip))
    with world.pod() as pod:
        world.results(1)
        world.letters(3)
        assert lost(pod) == []
        assert pod.metric("vault_ml_events_expired_total") == 0


def test_when_the_oldest_unfinished_event_expires_is_known(world: World, clip: Path) -> None:
    topic = create_topic(world.kafka.bootstrap, "hour", config={"retention.ms": str(HOUR * 1000)})
    world.source = topic
    with world.pod() as pod:
        pod.wait_for(
            lambda: pod.metric("vault_ml_oldest_event_expires_seconds", topic=topic) == math.inf,
            "nothing waits",
        )
        world.vault.secret_key = "rotated"
        world.send(world.store("cam/0.mp4", clip))
        pod.wait_for(
            lambda: HOUR - 60 < pod.metric("vault_ml_oldest_event_expires_seconds", topic=topic) < HOUR,
            "less than an hour is left",
        )


def test_without_the_right_to_read_a_topics_configuration_that_is_said_once(tmp_path: Path) -> None:
    user = User("plain-user", "plain-secret", "PLAIN")
    with KafkaBroker(tmp_path, users=(user,), settings=WITH_AUTHORIZER) as kafka:
        allow_all_but_create(kafka.bootstrap, user.name)
        topic = create_topic(kafka.bootstrap, "hour", config={"retention.ms": str(HOUR * 1000)})
        allowed = TopicRetention(KafkaConnection(kafka.bootstrap), topic)
        refused = TopicRetention(
            KafkaConnection(kafka.sasl_bootstrap, "SASL_PLAINTEXT", user.mechanism, user.name, user.password),
            topic,
        )
        deadline = time.monotonic() + 30
        while (allowed.seconds is None or refused.refusals == 0) and time.monotonic() < deadline:
            allowed.turn(time.monotonic())
            refused.turn(time.monotonic())
        assert allowed.seconds == HOUR
        assert refused.seconds is None
        assert refused.refusals == 1


@pytest.mark.parametrize(
    ("configs", "seconds"),
    [
        ({"retention.ms": "3600000", "cleanup.policy": "delete"}, HOUR),
        ({"retention.ms": "3600000", "cleanup.policy": "compact,delete"}, HOUR),
        ({"retention.ms": "3600000", "cleanup.policy": "compact"}, math.inf),
        ({"retention.ms": "-1", "cleanup.policy": "delete"}, math.inf),
    ],
)
def test_how_long_a_topic_keeps_its_messages(configs: dict[str, str], seconds: float) -> None:
    assert retention_seconds(configs) == seconds


def test_what_is_left_is_counted_from_the_oldest_message() -> None:
    written_ms = int((time.time() - 600) * 1000)
    assert seconds_left(written_ms, HOUR) == pytest.approx(HOUR - 600, abs=5)
    assert seconds_left(None, HOUR) == math.inf
    assert seconds_left(written_ms, None) is None


def test_a_range_is_counted_once() -> None:
    counted: list[int] = []
    losses, progress = Losses("group", counted.append), PartitionProgress("events", 0)
    progress.begun_at = Place(10)
    losses.expired(progress, 10)
    losses.expired(progress, 15)
    assert losses.go_on(progress, 15, 40) == 15
    assert losses.go_on(progress, 18, 40) == 18
    assert counted == [5, 3]


def test_an_offset_beyond_the_end_is_another_matter() -> None:
    counted: list[int] = []
    losses, progress = Losses("group", counted.append), PartitionProgress("events", 0)
    progress.begun_at = Place(100)
    assert losses.go_on(progress, 5, 40) == 5
    assert counted == []


def test_what_is_finished_is_forgotten_though_nobody_asks_when_it_expires() -> None:
    losses, progress = Losses("group"), PartitionProgress("events", 0)
    for offset in range(1_000):
        losses.fetched(progress, offset, 1_700_000_000_000 + offset)
        progress.fetched(offset, 0)
    assert len(losses._written[progress]) <= 2
