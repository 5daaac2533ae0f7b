"""The broker of the tests keeps what it promises; otherwise no test that uses it says anything."""

import contextlib
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from consumer.errors import SetupError
from consumer.topics import produce, read_topic
from tests.brokers.kafka import KafkaBroker, User
from tests.brokers.topics import committed_offsets, create_topic
from tests.conftest import KAFKA_USERS

SECONDS = 30.0


def test_messages_come_back_with_key_and_value(kafka: KafkaBroker) -> None:
    topic = create_topic(kafka.bootstrap, "echo", partitions=3)
    produce(kafka.bootstrap, topic, [b"one", b"two"], key=b"camera")
    records = read_topic(kafka.bootstrap, topic, count=2, timeout_seconds=SECONDS)
    assert [(record.key, record.value) for record in records] == [(b"camera", b"one"), (b"camera", b"two")]


def test_a_topic_does_not_come_into_being_by_itself(kafka: KafkaBroker) -> None:
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "topic.metadata.propagation.max.ms": 1000, "log_level": 0}
    )
    errors: list[KafkaError | None] = []
    producer.produce(
        f"nobody-made-{uuid.uuid4().hex}", b"lost", on_delivery=lambda error, _: errors.append(error)
    )
    producer.flush(SECONDS)
    assert [error and error.code() for error in errors] == [KafkaError.UNKNOWN_TOPIC_OR_PART]


def test_the_offset_of_a_group_can_be_read(kafka: KafkaBroker) -> None:
    topic = create_topic(kafka.bootstrap, "offsets", partitions=2)
    assert committed_offsets(kafka.bootstrap, "reader", topic) == {}
    member = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "log_level": 0})
    member.commit(offsets=[TopicPartition(topic, 1, 7)], asynchronous=False)
    member.close()
    assert committed_offsets(kafka.bootstrap, "reader", topic) == {1: 7}


def test_what_was_acknowledged_survives_a_power_cut(own_kafka: KafkaBroker) -> None:
    topic = create_topic(own_kafka.bootstrap, "durable", partitions=2)
    values = {b"message %d" % number for number in range(2000)}
    produce(own_kafka.bootstrap, topic, sorted(values))
    own_kafka.kill()
    own_kafka.restart()
    records = read_topic(own_kafka.bootstrap, topic, count=len(values), timeout_seconds=SECONDS)
    assert len(records) == len(values)
    assert {record.value for record in records} == values


def test_a_frozen_broker_answers_again_when_thawed(own_kafka: KafkaBroker) -> None:
    topic = create_topic(own_kafka.bootstrap, "frozen")
    produce(own_kafka.bootstrap, topic, [b"before"])
    own_kafka.freeze()
    assert read_topic(own_kafka.bootstrap, topic, count=1, timeout_seconds=2) == []
    own_kafka.thaw()
    assert len(read_topic(own_kafka.bootstrap, topic, count=1, timeout_seconds=SECONDS)) == 1


@pytest.mark.parametrize("user", KAFKA_USERS, ids=lambda user: user.mechanism)
def test_a_user_logs_in_and_a_wrong_password_does_not(kafka: KafkaBroker, user: User) -> None:
    listener = {"bootstrap.servers": kafka.sasl_bootstrap, "security.protocol": "SASL_PLAINTEXT"}
    assert _refusal(listener, user, user.password) is None
    assert _refusal(listener, user, "a wrong password") == KafkaError._AUTHENTICATION


def test_tls_needs_the_authority_of_the_broker(kafka: KafkaBroker, tmp_path: Path) -> None:
    user = KAFKA_USERS[-1]
    listener = {"bootstrap.servers": kafka.tls_bootstrap, "security.protocol": "SASL_SSL"}
    assert _refusal(listener | {"ssl.ca.location": str(kafka.ca_file)}, user, user.password) is None
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    other = listener | {"ssl.ca.location": str(tmp_path / "other.pem")}
    assert _refusal(other, user, user.password) == KafkaError._SSL


def test_the_broker_ends_when_the_tests_are_killed(kafka: KafkaBroker, tmp_path: Path) -> None:
    assert kafka  # Java and the jars are there
    program = textwrap.dedent(
        """
        import pathlib, sys, time
        from tests.brokers.kafka import KafkaBroker
        with KafkaBroker(pathlib.Path(sys.argv[1])) as broker:
            print(broker.bootstrap, flush=True)
            time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as tests:
        assert tests.stdout is not None
        host, port = tests.stdout.readline().decode().split(":")
        tests.kill()
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < deadline:
            socket.create_connection((host, int(port)), timeout=1).close()
            time.sleep(0.05)
        pytest.fail("the broker still listens")


def test_a_broker_that_cannot_start_shows_its_log(
    kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert kafka  # Java and the jars are there
    directory = tmp_path_factory.mktemp("broken")
    with (
        pytest.raises(SetupError, match="three"),
        KafkaBroker(directory, settings={"num.io.threads": "three"}),
    ):
        pass


def _refusal(listener: Mapping[str, str], user: User, password: str) -> int | None:
    """Return the code of the error that a login ends with; None when it is let in."""
    seen: list[int] = []
    client = Producer(
        {
            **listener,
            "sasl.mechanism": user.mechanism,
            "sasl.username": user.name,
            "sasl.password": password,
            "error_cb": lambda error: seen.append(error.code()),
            "log_level": 0,
        }
    )
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        # librdkafka reports a refusal through error_cb; the call itself only runs out of time.
        with contextlib.suppress(KafkaException):
            client.list_topics(timeout=0.5)
            return None
        client.poll(0)
        refusals = {KafkaError._AUTHENTICATION, KafkaError._SSL}.intersection(seen)
        if refusals:
            return refusals.pop()
    return KafkaError._TIMED_OUT
