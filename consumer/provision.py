"""Provision: the topics that we write to are there, or are made; and we may write to them."""

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its types forget what it offers
    AclOperation,
    AdminClient,
)
from confluent_kafka.cimpl import NewTopic  # confluent_kafka.admin offers it, but its types do not say so

from consumer.connection import NOT_AUTHORISED, KafkaConnection, librdkafka_log
from consumer.errors import BrokerAway, StreamSetupError

_log = structlog.get_logger("vault-ml.provision")

_NOT_THERE_YET = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.LEADER_NOT_AVAILABLE,
}


def ensure_topic(connection: KafkaConnection, topic: str, *, like: int, timeout_seconds: float = 3.0) -> None:
    """See that we may write to a topic; create it with `like` partitions where it is missing and we may.

    Raises:
        StreamSetupError: it is missing and could not be created, or we may not write; says what to do.
        BrokerAway: no broker answers.
    """
    # The client must outlive the answers: its requests end with it.
    admin = AdminClient(connection.properties(), logger=librdkafka_log())
    try:
        cluster = admin.list_topics(topic, timeout=timeout_seconds)
    except KafkaException as error:
        raise BrokerAway(f"No broker of KAFKA_BROKER answers ({error.args[0].str()}).") from error
    found = cluster.topics[topic]
    if found.error is None:
        if cluster.controller_id in cluster.brokers:  # else nobody is there to ask: the demo's broker alone
            _ensure_right(admin, topic, timeout_seconds)
        return
    if found.error.code() in NOT_AUTHORISED:
        raise StreamSetupError(f"Kafka does not show us topic {topic!r}: grant DESCRIBE and WRITE on it.")
    if found.error.code() not in _NOT_THERE_YET:
        raise StreamSetupError(f"Topic {topic!r} cannot be used ({found.error.str()}): look at it.")
    # Replication -1 is the broker's default (Kafka 2.4 and later).
    created = admin.create_topics([NewTopic(topic, num_partitions=like, replication_factor=-1)])
    try:
        created[topic].result(timeout_seconds)
    except TimeoutError:
        raise BrokerAway(f"No broker of KAFKA_BROKER creates topic {topic!r} in time.") from None
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise StreamSetupError(
                f"Topic {topic!r} does not exist and could not be created "
                f"({error.args[0].str()}); create it, or grant CREATE."
            ) from error
    else:
        _log.info("topic created", topic=topic, partitions=like)


def _ensure_right(admin: AdminClient, topic: str, timeout_seconds: float) -> None:
    """Ask whether we may write: a transaction that is refused for it does not say for which topic."""
    asked = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=timeout_seconds
    )
    try:
        allowed = asked[topic].result(timeout_seconds).authorized_operations
    except TimeoutError:
        raise BrokerAway(f"No broker of KAFKA_BROKER describes topic {topic!r} in time.") from None
    except KafkaException as error:
        if error.args[0].code() in _NOT_THERE_YET:
            return  # another pod has just made it
        raise BrokerAway(f"Kafka does not describe topic {topic!r} ({error.args[0].str()}).") from error
    # A broker that does not know rights says nothing of them.
    if allowed and AclOperation.WRITE not in allowed:
        raise StreamSetupError(f"Kafka does not let us write to topic {topic!r}: grant WRITE on it.")
