"""Comparisons go to Kafka as well as they can, and hold nothing up where they cannot."""

from functools import partial

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from consumer.comparison import Comparison, Side, Trial
from consumer.connection import KafkaConnection
from consumer.diff_topic import MOST_WAITING, DiffTopic
from consumer.errors import BrokerAway, StreamSetupError
from consumer.messages import OutgoingMessage
from consumer.rollout import Candidate, Rollout
from consumer.sink import Delivered, ResultSink
from consumer.topics import read_topic
from consumer.trial_metrics import TrialMetrics
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic

ROLLOUT = Rollout(4, 1, candidate=Candidate(2, "shadow", 100.0))


def trial(number: int = 0) -> Trial:
    comparison = Comparison(
        f"id-{number}", "storj", f"{number}.mp4", "shadow", 4, "yolo", Side(1, "a"), Side(2, "b")
    )
    return Trial(ROLLOUT, comparison)


class Sink:
    """Stands in for a producer whose broker does as the test says."""

    def __init__(self) -> None:
        self.sent: list[Delivered] = []
        self.refused = False

    def send(self, _topic: str, _message: OutgoingMessage, delivered: Delivered) -> None:
        self.sent.append(delivered)

    def poll(self, timeout_seconds: float = 0.0) -> None:
        if self.refused:
            raise StreamSetupError("refused for good")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def diffs_with(registry: CollectorRegistry, *sinks: Sink) -> DiffTopic:
    waiting = iter(sinks)
    return DiffTopic("diffs", lambda: next(waiting), TrialMetrics(registry))  # type: ignore[arg-type, return-value]  # a fake for faults


def test_what_was_taken_is_on_the_topic_once_it_is_flushed(
    kafka: KafkaBroker, registry: CollectorRegistry
) -> None:
    topic = create_topic(kafka.bootstrap, "comparison")
    connection = KafkaConnection(brokers=kafka.bootstrap)
    diffs = DiffTopic(
        topic, partial(ResultSink, connection, max_message_bytes=1_000_000), TrialMetrics(registry)
    )
    for number in range(20):
        diffs.take(trial(number))
    diffs.flush(30.0)
    records = read_topic(kafka.bootstrap, topic, 20, timeout_seconds=10.0)
    assert [Comparison.from_json(record.value or b"") for record in records] == [
        trial(number).comparison for number in range(20)
    ]
    assert {record.key for record in records} == {f"id-{number}".encode() for number in range(20)}


def test_a_recording_that_began_before_a_change_does_not_turn_the_metrics_back(
    registry: CollectorRegistry,
) -> None:
    diffs = diffs_with(registry)
    diffs.take(Trial(Rollout(5, 2)))
    diffs.take(Trial(Rollout(4, 1)))
    page = generate_latest(registry)
    assert b"vault_ml_rollout_generation 5.0" in page
    assert b'live="2"' in page


def test_no_producer_is_made_where_nothing_is_compared(registry: CollectorRegistry) -> None:
    diffs = diffs_with(registry)
    diffs.take(Trial(Rollout(1, 1)))
    diffs.turn()
    diffs.flush(0.0)
    assert b"vault_ml_rollout_generation 1.0" in generate_latest(registry)


def test_a_broker_that_is_away_costs_comparisons_and_a_bounded_memory(registry: CollectorRegistry) -> None:
    sink = Sink()
    diffs = diffs_with(registry, sink)
    for number in range(2 * MOST_WAITING):
        diffs.take(trial(number))
    assert len(sink.sent) == MOST_WAITING
    for delivered in sink.sent[:]:
        delivered(BrokerAway("away"))
    diffs.take(trial())
    assert len(sink.sent) == MOST_WAITING + 1, "it goes on when the broker is back"
    diffs.flush(0.0)


def test_a_producer_that_is_refused_for_good_is_replaced_and_stops_nothing(
    registry: CollectorRegistry,
) -> None:
    first, second = Sink(), Sink()
    diffs = diffs_with(registry, first, second)
    diffs.take(trial(1))
    first.refused = True
    diffs.turn()
    diffs.take(trial(2))
    assert (len(first.sent), len(second.sent)) == (1, 1)
