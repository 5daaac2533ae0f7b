"""The mock broker: enough of Kafka for the demonstration."""

import socket
import subprocess
import sys
import textwrap
import time

import pytest

from consumer.errors import BrokerAway, SetupError
from consumer.mock_broker import MockBroker
from consumer.topics import produce, read_topic


def test_messages_come_back_in_the_order_of_their_partition() -> None:
    with MockBroker({"events": 1}) as broker:
        produce(broker.bootstrap, "events", [b"first", b"second", None])
        records = read_topic(broker.bootstrap, "events", count=3, timeout_seconds=20)
    assert [(record.offset, record.value) for record in records] == [(0, b"first"), (1, b"second"), (2, None)]


def test_a_topic_has_the_partitions_that_were_asked_for() -> None:
    with MockBroker({"events": 3}) as broker:
        for partition in range(3):
            produce(broker.bootstrap, "events", [b"%d" % partition], partition=partition)
        with pytest.raises(BrokerAway):
            produce(broker.bootstrap, "events", [b"nowhere"], partition=3, timeout_seconds=5)
        records = read_topic(broker.bootstrap, "events", count=3, timeout_seconds=20)
    assert {record.partition: record.value for record in records} == {0: b"0", 1: b"1", 2: b"2"}


def test_reading_ends_at_the_deadline_with_what_was_there() -> None:
    with MockBroker({"events": 1}) as broker:
        produce(broker.bootstrap, "events", [b"only"])
        records = read_topic(broker.bootstrap, "events", count=2, timeout_seconds=2)
    assert [record.value for record in records] == [b"only"]


def test_another_process_sees_the_same_topic() -> None:
    program = textwrap.dedent(
        """
        import sys
        from consumer.topics import produce
        produce(sys.argv[1], "events", [b"from another process"])
        """
    )
    with MockBroker({"events": 1}) as broker:
        subprocess.run([sys.executable, "-c", program, broker.bootstrap], check=True, timeout=60)
        records = read_topic(broker.bootstrap, "events", count=1, timeout_seconds=20)
    assert [record.value for record in records] == [b"from another process"]


def test_stopping_closes_the_socket() -> None:
    with MockBroker() as broker:
        host, port = broker.bootstrap.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    deadline = time.monotonic() + 10
    while _answers(host, int(port)):
        assert time.monotonic() < deadline, "the port is still open"
        time.sleep(0.05)


def test_a_broker_that_is_not_running_says_so() -> None:
    with pytest.raises(SetupError, match="not running"):
        _ = MockBroker().bootstrap


def test_a_topic_that_exists_cannot_be_created_again() -> None:
    with MockBroker({"events": 1}) as broker, pytest.raises(SetupError, match="events"):
        broker.create_topic("events", 2)


def test_it_prints_nothing() -> None:
    program = (
        "from consumer.mock_broker import MockBroker\nwith MockBroker({'a': 1}) as broker: broker.bootstrap"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"", b"")


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
