"""Messages out to Kafka, each confirmed by itself: at-least-once results, and comparisons."""

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.connection import KafkaConnection, librdkafka_log
from consumer.errors import BrokerAway, MessageTooLarge, StreamSetupError
from consumer.messages import OutgoingMessage

DELIVERY_TIMEOUT_MS = 30_000
"""How long librdkafka itself tries to deliver before it reports a failure; then we wait and send again."""

NOWHERE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
"""A topic that is not there, or not for us: somebody has to mend that."""

Delivered = Callable[[BrokerAway | MessageTooLarge | None], None]


def size_properties(max_message_bytes: int) -> dict[str, object]:
    """Return librdkafka's properties of a producer whose messages were measured by MAX_MESSAGE_BYTES."""
    return {
        # Room for key, headers and framing beside the value, which is measured before it is sent.
        "message.max.bytes": max_message_bytes + 65_536,
        # The topic's limit holds for a whole batch, not for each message in it.
        "batch.size": min(1_000_000, max_message_bytes),
    }


def put(
    producer: Producer,
    topic: str,
    message: OutgoingMessage,
    report: Callable[[KafkaError | None, Message], None],
) -> None:
    """Queue a message at a producer, which tells its fate to `report`.

    Raises:
        BufferError, KafkaException: it was not queued, and `report` hears nothing.
    """
    producer.produce(
        topic,
        key=message.key,
        value=message.value,
        headers=[(name, value) for name, value in message.headers],
        on_delivery=report,
    )


def too_large(topic: str) -> MessageTooLarge:
    """Return what is wrong where a topic refused a message for its size."""
    return MessageTooLarge(
        f"Topic {topic!r} does not take a message of this size; lower MAX_MESSAGE_BYTES below its limit."
    )


class ResultSink:
    """Sends results and dead letters, and says of each when the broker has confirmed it."""

    def __init__(self, connection: KafkaConnection, *, max_message_bytes: int) -> None:
        self._ended: str | None = None
        self._producer = Producer(
            connection.properties()
            | size_properties(max_message_bytes)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": DELIVERY_TIMEOUT_MS,
                "linger.ms": 5,
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
            put(self._producer, topic, message, report)
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

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._ended = error.str()


def _not_delivered(topic: str, error: KafkaError) -> BrokerAway | MessageTooLarge:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return too_large(topic)
    remedy = (
        "; create the topic where it is missing, and grant WRITE on it" if error.code() in NOWHERE else ""
    )
    return BrokerAway(f"The broker did not confirm a message to topic {topic!r} ({error.str()}){remedy}.")
