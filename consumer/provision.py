"""Provision: the topics that we write to are there, or are made."""

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # confluent_kafka.admin offers it, but its types do not say so

from consumer.connection import KafkaConnection, librdkafka_log
from consumer.errors import BrokerAway, StreamSetupError

_log = structlog.get_logger("vault-ml.provision")

_NOT_THERE_YET = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.LEADER_NOT_AVAILABLE,
}


def ensure_topic(connection: KafkaConnection, topic: str, *, like: int, timeout_seconds: float = 3.0) -> None:
    """Create a topic with `like` partitions where it is missing and we may.

    Raises:
        StreamSetupError: it is missing and could not be created; says what to do.
        BrokerAway: no broker answers.
    """
    # The client must outlive the answers: its requests end with it.
    admin = AdminClient(connection.properties(), logger=librdkafka_log())
    try:
        found = admin.list_topics(topic, timeout=timeout_seconds).topics[topic]
    except KafkaException as error:
        raise BrokerAway(f"No broker of KAFKA_BROKER answers ({error.args[0].str()}).") from error
    if found.error is None:
        return
    if found.error.code() not in _NOT_THERE_YET:
        raise StreamSetupError(f"Topic {topic!r} cannot be used: {found.error.str()}.")
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
