"""Where events may be sent again, and what is said of those that Kafka does not take."""

import pytest

from consumer import resend, settings
from consumer.connection import KafkaConnection
from consumer.errors import StreamSetupError
from consumer.resend_plan import plan_of
from tests.consumer.failed import NOON, letter

NOBODY = KafkaConnection("127.0.0.1:1")


@pytest.mark.parametrize(
    ("topic", "called"),
    [
        ("results", "QUEUE_TARGET"),
        ("source.comparison", "QUEUE_COMPARISON"),
        ("source.dead-letter", "QUEUE_DEAD_LETTER"),
        ("source.dead-letter.replayed", "the notes beside QUEUE_DEAD_LETTER"),
    ],
)
def test_events_are_not_sent_among_what_pods_write(topic: str, called: str) -> None:
    loaded = settings.load_topics(
        {"QUEUE_NAME": "source", "QUEUE_TARGET": "results", "KAFKA_BROKER": "127.0.0.1:1"}
    )
    plan = plan_of([letter(0)], {}, source="source", topic=topic, now=NOON)
    with pytest.raises(StreamSetupError, match=f"to '{topic}', which is {called}: give another topic"):
        resend.check(plan.sendings, NOBODY, resend.topics_written(loaded))


def test_who_does_not_say_where_results_go_may_send_events_again() -> None:
    loaded = settings.load_topics({"QUEUE_NAME": "source", "KAFKA_BROKER": "127.0.0.1:1"})
    assert "QUEUE_TARGET" not in resend.topics_written(loaded).values()
