"""Topics that we write to are there, and a right that is missing is named; a real Kafka says so."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its types forget what it offers
    AclOperation,
    ResourceType,
)

from consumer.connection import KafkaConnection
from consumer.errors import ProducerEnded, ProducerFenced, StreamSetupError
from consumer.messages import OutgoingMessage
from consumer.mock_broker import MockBroker
from consumer.provision import ensure_topic
from consumer.transactional_producer import Batch, NotWritten, TransactionalProducer, Written
from tests.brokers.kafka import WITH_AUTHORIZER, KafkaBroker, User
from tests.brokers.topics import allow, create_topic

LOGIN = User("plain-user", "plain-secret", "PLAIN")
SECONDS = 60.0


def test_a_topic_that_we_may_see_and_not_write_to_is_named_at_the_start_and_stops_no_other_later(
    tmp_path: Path,
) -> None:
    with KafkaBroker(tmp_path, users=(LOGIN,), settings=WITH_AUTHORIZER) as kafka:
        for topic in ("open", "shut", "hidden"):
            create_topic(kafka.bootstrap, topic, exact=True)
        write, describe = AclOperation.WRITE, AclOperation.DESCRIBE
        for kind, name, operations in (
            (ResourceType.TOPIC, "open", [write, describe, AclOperation.READ]),
            (ResourceType.TOPIC, "shut", [describe]),
            (ResourceType.TRANSACTIONAL_ID, "one", [write, describe]),
            (ResourceType.GROUP, "group", [AclOperation.READ]),
        ):
            allow(kafka.bootstrap, LOGIN.name, kind, name, operations)
        connection = KafkaConnection(
            kafka.sasl_bootstrap, "SASL_PLAINTEXT", LOGIN.mechanism, LOGIN.name, LOGIN.password
        )
        ensure_topic(connection, "open", like=1)
        with pytest.raises(StreamSetupError, match="write to topic 'shut': grant WRITE"):
            ensure_topic(connection, "shut", like=1)
        with pytest.raises(StreamSetupError, match=r"'hidden'.*grant DESCRIBE and WRITE"):
            ensure_topic(connection, "hidden", like=1)

        writer = TransactionalProducer(connection, transactional_id="one", max_message_bytes=100_000)
        writer.begin(SECONDS)
        reader = Consumer(connection.properties() | {"group.id": "group"})
        place, group = (TopicPartition("open", 0, 1),), reader.consumer_group_metadata()
        message = OutgoingMessage(b"k", b"v", [])

        def fate_of(*topics: str, offsets: tuple[TopicPartition, ...]) -> object:
            writer.write(Batch(tuple((topic, message) for topic in topics), offsets, group))
            return writer.take(SECONDS)

        assert isinstance(fate_of("open", "shut", offsets=place), NotWritten)
        assert isinstance(fate_of("shut", offsets=place), NotWritten), "the letter alone is refused"
        assert isinstance(fate_of("open", offsets=place), Written), "and the others go on"
        ended = fate_of("open", "shut", offsets=())
        assert isinstance(ended, ProducerEnded | NotWritten)
        assert not isinstance(ended, ProducerFenced), "nobody else is there"
        writer.close()
        reader.close()


def test_a_broker_that_cannot_be_asked_for_rights_holds_nobody_up() -> None:
    with MockBroker({"events": 1}) as broker:
        ensure_topic(KafkaConnection(broker.bootstrap), "events", like=1)
