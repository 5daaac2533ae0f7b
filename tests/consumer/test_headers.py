"""A header that cannot be shown costs no message."""

import ctypes
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Message

from consumer.headers import headers_of
from consumer.mock_broker import MockBroker

SECONDS = 30.0
VALUE = b'{"payload": {"key": "a.mp4"}}'

# rd_kafka_vtype_t and rd_kafka_conf_res_t of librdkafka's src/rdkafka.h
TOPIC, PARTITION, PAYLOAD, MSGFLAGS, HEADER, END = 1, 3, 4, 7, 9, 0
COPY = 2


def produce(broker: MockBroker, topic: str, *headers: tuple[bytes, bytes]) -> None:
    """Write a message as a client in C may: confluent-kafka itself refuses such names."""
    library, reason = broker.library, ctypes.create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", broker.bootstrap.encode(), reason, 512)
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, reason, 512))
    arguments: list[object] = []
    for name, value in headers:
        arguments += [ctypes.c_int(HEADER), ctypes.c_char_p(name), ctypes.c_char_p(value)]
        arguments += [ctypes.c_ssize_t(len(value))]
    library.rd_kafka_producev(
        client,
        *[ctypes.c_int(TOPIC), ctypes.c_char_p(topic.encode())],
        *[ctypes.c_int(PARTITION), ctypes.c_int32(0)],
        *[ctypes.c_int(MSGFLAGS), ctypes.c_int(COPY)],
        *[ctypes.c_int(PAYLOAD), ctypes.c_char_p(VALUE), ctypes.c_size_t(len(VALUE))],
        *arguments,
        ctypes.c_int(END),
    )
    assert library.rd_kafka_flush(client, 10_000) == 0
    library.rd_kafka_destroy(client)


@pytest.fixture
def broker() -> Iterator[MockBroker]:
    with MockBroker({"events": 1}) as broker:
        yield broker


def received(broker: MockBroker, count: int) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "any", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["events"])
    deadline = time.monotonic() + SECONDS
    messages: list[Message] = []
    while len(messages) < count and time.monotonic() < deadline:
        if (message := consumer.poll(0.5)) is not None and message.error() is None:
            messages.append(message)
    consumer.close()
    assert len(messages) == count
    return messages


def test_a_header_whose_name_is_not_utf_8_costs_the_headers_and_not_the_message(broker: MockBroker) -> None:
    produce(broker, "events", (b"fine", b"y"))
    produce(broker, "events", (b"\xff\xfebad", b"x"), (b"fine", b"y"))
    fine, bad = received(broker, 2)
    for _ in range(100):  # the interpreter makes a call in another way that it has made often
        assert headers_of(fine) == (("fine", b"y"),)
    assert headers_of(bad) == ()
    assert bad.value() == VALUE


def test_headers_come_in_their_order_with_names_that_repeat(broker: MockBroker) -> None:
    produce(broker, "events", (b"b", b"1"), (b"a", b"\xff"), (b"b", b""))
    (message,) = received(broker, 1)
    assert headers_of(message) == (("b", b"1"), ("a", b"\xff"), ("b", b""))
