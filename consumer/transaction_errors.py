"""Transaction errors: what Kafka refuses a transactional producer, or ends it for, and what to do then."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException

from consumer.connection import NOT_AUTHORISED
from consumer.errors import BrokerAway, ProducerEnded, ProducerFenced, TransactionsRefused

_REFUSALS = {
    **dict.fromkeys(
        NOT_AUTHORISED | {KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED}, "grant WRITE and DESCRIBE on it"
    ),
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "raise the brokers' transaction.max.timeout.ms to {} at least",
    **dict.fromkeys(
        {
            KafkaError.UNSUPPORTED_VERSION,
            KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            KafkaError._UNSUPPORTED_FEATURE,
        },
        "bring the brokers to Kafka 2.5 or later",
    ),
}
"""What waiting does not change, and what to do."""

_FENCES = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
"""Another producer has the id, or the coordinator ended a transaction that was open for too long."""


def not_begun(
    error: KafkaException, transactional_id: str, *, timeout_ms: int
) -> TransactionsRefused | ProducerEnded | BrokerAway:
    """Return what it means that `init_transactions` failed.

    Args:
        error: of the call.
        transactional_id: that was to be taken.
        timeout_ms: `transaction.timeout.ms`, which the brokers may limit.
    """
    cause = error.args[0]
    if (remedy := _REFUSALS.get(cause.code())) is not None:
        return TransactionsRefused(
            f"Kafka refuses the transactional id {transactional_id!r} ({cause.str()}): "
            f"{remedy.format(timeout_ms)}, or set KAFKA_DELIVERY=at-least-once."
        )
    if cause.fatal():
        return ended(error)
    return BrokerAway(f"Kafka does not open transactions yet ({cause.str()}).")


def ended(error: Exception, first: Exception | None = None, topics: Sequence[str] = ()) -> ProducerEnded:
    """Return what it means that a producer can write no more.

    Args:
        error: what ended it: its argument is a KafkaError, or says why.
        first: what had failed before, and was to be taken back.
        topics: that it wrote to.
    """
    if _code(error) in _FENCES:
        return ProducerFenced(
            f"Kafka ended our producer ({words(error)}): if another pod writes under its transactional id, "
            "give each its own POD_NAME."
        )
    # Taking back what never reached Kafka ends the producer too: the first error is the one that tells.
    told = error if first is None else first
    if _code(told) in NOT_AUTHORISED:
        return ProducerEnded(
            f"Kafka does not let us write to topic {' or '.join(map(repr, topics))} ({words(told)}): grant "
            "WRITE on it."
        )
    return ProducerEnded(f"Kafka ended our producer ({words(told)}): the broker's log says more.")


def words(error: Exception) -> str:
    """Return what an error of librdkafka says."""
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(error)


def _code(error: Exception) -> int | None:
    cause = error.args[0]
    return cause.code() if isinstance(cause, KafkaError) else None
