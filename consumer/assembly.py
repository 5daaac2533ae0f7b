"""Assembly: the parts that a pod and a replay have alike, put together as the settings say."""

from collections.abc import Callable
from functools import partial

from consumer.confirmations import Confirmations
from consumer.delivery import Delivery
from consumer.metrics import Metrics
from consumer.outbox import OutboxSettings
from consumer.parts import BACKSTOP_SECONDS, attempt_seconds, kafka_connection, worker_limits
from consumer.pool import WorkerPool
from consumer.settings import Settings, secret_values
from consumer.sink import ResultSink
from consumer.stream import EventSource
from consumer.transactional_producer import TransactionalProducer
from consumer.transactions import Transactions
from consumer.worker import WorkerSettings, work


def transactional_producer(settings: Settings, name: str) -> TransactionalProducer | None:
    """Return the producer of exactly-once delivery, not begun; None where the settings say at-least-once.

    Args:
        settings: of the pod.
        name: what tells it from every other producer that runs.
    """
    if settings.kafka_delivery != "exactly-once":
        return None
    return TransactionalProducer(
        kafka_connection(settings),
        transactional_id=f"{settings.kafka_transaction_prefix}-{name}",
        max_message_bytes=settings.max_message_bytes,
    )


def delivery_by(
    producer: TransactionalProducer | None,
    open_sink: Callable[[], ResultSink],
    source: EventSource,
    metrics: Metrics,
) -> Delivery:
    """Return the delivery by a transactional producer, or by a sink where there is none."""
    if producer is None:
        return Confirmations(open_sink(), source)
    return Transactions(producer, source, metrics.transaction)


def outbox_settings(settings: Settings, target_topic: str, dead_letter_topic: str) -> OutboxSettings:
    """Return where outcomes go, how large they may be, and what must not stand in them."""
    return OutboxSettings(
        target_topic=target_topic,
        dead_letter_topic=dead_letter_topic,
        max_message_bytes=settings.max_message_bytes,
        secrets=secret_values(settings),
    )


def worker_pool(settings: Settings, workers: WorkerSettings) -> WorkerPool:
    """Return the pool of processes that look at recordings, bound as the settings say; not entered yet."""
    return WorkerPool(
        partial(work, workers),
        workers=settings.workers,
        time_limit_seconds=attempt_seconds(settings) + BACKSTOP_SECONDS,
        limits=worker_limits(settings),
    )
