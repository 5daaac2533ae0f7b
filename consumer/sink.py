"""Results and dead letters out to Kafka, each confirmed before anything is committed."""

from collections.abc import Callable

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # confluent_kafka.admin offers it, but its types do not say so

from consumer.connection import KafkaConnection, librdkafka_log
from consumer.errors import BrokerAway, MessageTooLarge, StreamSetupError
from consumer.messages import OutgoingMessage

_log = structlog.get_logger("vault-ml.sink")

DELIVERY_TIMEOUT_MS = 30_000
"""How long librdkafka itself tries to deliver before it reports a failure; then we wait and send again."""

_NOT_THERE_YET = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.LEADER_NOT_AVAILABLE,
}


Delivered = Callable[[BrokerAway | MessageTooLarge | None], None]


class ResultSink:
    """Sends results and dead letters, and says of each when the broker has confirmed it."""

    def __init__(self, connection: KafkaConnection, *, max_message_bytes: int) -> None:
        self._connection = connection
        self._ended: str | None = None
        self._producer = Producer(
            connection.properties()
            | {
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": DELIVERY_TIMEOUT_MS,
                # Room for key, headers and framing beside the value, which is measured before it is sent.
                "message.max.bytes": max_message_bytes + 65_536,
                "linger.ms": 5,
                # The topic's limit holds for a whole batch, not for each message in it.
                "batch.size": min(1_000_000, max_message_bytes),
                "error_cb": self._on_error,
            },
            logger=librdkafka_log(),
        )

    def send(self, topic: str, message: OutgoingMessage, delivered: Delivered) -> None:
        """Queue a message; `delivered` is called, inside `poll`, with None once the broker confirmed it.

        BrokerAway is an outage: the caller waits and sends again. MessageTooLarge never heals.
        """

        def report(error: KafkaError | None, _message: Message) -> None:
            delivered(None if error is None else _not_delivered(topic, error))

        try:
            self._producer.produce(
                topic,
                key=message.key,
                value=message.value,
                headers=[(name, value) for name, value in message.headers],
                on_delivery=report,
            )
        except BufferError:
            delivered(BrokerAway(f"Too many messages wait for topic {topic!r} to take them."))
        except KafkaException as error:
            delivered(_not_delivered(topic, error.args[0]))

    def poll(self, timeout_seconds: float = 0.0) -> None:
        """Run the `delivered` callbacks that are due.

        Raises:
            StreamSetupError: Kafka will never take a message of this producer again; says why.
        """
        self._producer.poll(timeout_seconds)
        if self._ended is not None:
            raise StreamSetupError(
                f"Kafka refuses our producer for good ({self._ended}); grant WRITE on the topics, and "
                "IDEMPOTENT_WRITE on the cluster where the broker is older than 2.8."
            )

    def ensure_topic(self, topic: str, *, like: int, timeout_seconds: float = 3.0) -> None:
        """Create a topic with `like` partitions where it is missing and we may.

        Raises:
            StreamSetupError: it is missing and could not be created; says what to do.
            BrokerAway: no broker answers.
        """
        try:
            found = self._producer.list_topics(topic, timeout=timeout_seconds).topics[topic]
        except KafkaException as error:
            raise BrokerAway(f"No broker of KAFKA_BROKER answers ({error.args[0].str()}).") from error
        if found.error is None:
            return
        if found.error.code() not in _NOT_THERE_YET:
            raise StreamSetupError(f"Topic {topic!r} cannot be used: {found.error.str()}.")
        # Replication -1 is the broker's default (Kafka 2.4 and later).
        wanted = NewTopic(topic, num_partitions=like, replication_factor=-1)
        # The client must outlive the answer: its requests end with it.
        admin = AdminClient(self._connection.properties(), logger=librdkafka_log())
        created = admin.create_topics([wanted])
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

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._ended = error.str()


def _not_delivered(topic: str, error: KafkaError) -> BrokerAway | MessageTooLarge:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return MessageTooLarge(
            f"Topic {topic!r} does not take a message of this size; lower MAX_MESSAGE_BYTES below its limit."
        )
    return BrokerAway(f"The broker did not confirm a message to topic {topic!r}: {error.str()}")
