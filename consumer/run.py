"""`vault-ml run`: puts the pod together, and starts it once all that it needs is there."""

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event

import structlog
import tenacity
from prometheus_client import CollectorRegistry

from consumer.assembly import delivery_by, outbox_settings, transactional_producer, worker_pool
from consumer.connection import KafkaConnection
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.diff_topic import DiffTopic
from consumer.endpoints import Endpoints, Health
from consumer.errors import (
    BrokerAway,
    Outage,
    Part,
    ProducerEnded,
    SetupError,
    StreamSetupError,
    TransactionsRefused,
    VaultMLError,
)
from consumer.metrics import Metrics
from consumer.outbox import Outbox
from consumer.parts import kafka_connection, worker_settings
from consumer.pool import WorkerPool
from consumer.provision import ensure_topic
from consumer.retention import Losses, TopicRetention
from consumer.service import Service, ServiceLimits
from consumer.settings import Settings, secret_values
from consumer.sink import ResultSink
from consumer.stream import EventSource
from consumer.temporary import sweep
from consumer.transactional_producer import TransactionalProducer
from consumer.vault import VaultClient, VaultSettings
from consumer.worker import WorkerSettings

_log = structlog.get_logger("vault-ml")

LONGEST_START_WAIT_SECONDS = 15.0
FENCES_TO_GIVE_UP, FENCES_SECONDS = 3, 120.0
"""So often in so short a time, it is another pod and no pause of ours."""

FLUSH_SECONDS = 1.0
"""For the last comparisons, once the results are out and the group is left."""


def run(settings: Settings) -> None:
    """Consume events until SIGTERM or SIGINT.

    Waits for what is away, and says what it waits for; joins the consumer group only after the model's
    contract was checked, Vault has answered once and both topics are there.

    Raises:
        SetupError: HTTP_PORT is taken; Kafka refuses transactions, or takes our rights away while running.
    """
    stop = Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda number, _frame: stop.set())
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    health = Health(("contract", "vault", "kafka", "delivery", "group"), secrets=secret_values(settings))
    with Endpoints(health, registry, settings.http_port) as endpoints:
        _log.info(
            "starting",
            http_port=endpoints.port,
            source=settings.queue_name,
            target=settings.queue_target,
            delivery=settings.kafka_delivery,
        )
        _serve_through_fences(settings, metrics, health, stop)
    _log.info("stopped")


def _serve_through_fences(settings: Settings, metrics: Metrics, health: Health, stop: Event) -> None:
    """Serve; where Kafka has ended our producer, begin anew from what is committed.

    Raises:
        ProducerEnded: again and again; ProducerFenced: another pod writes under our transactional id.
    """
    fenced_at: deque[float] = deque(maxlen=FENCES_TO_GIVE_UP)
    while not stop.is_set():
        try:
            _serve_once(settings, metrics, health, stop)
        except ProducerEnded as error:
            fenced_at.append(time.monotonic())
            if len(fenced_at) == FENCES_TO_GIVE_UP and fenced_at[-1] - fenced_at[0] < FENCES_SECONDS:
                raise
            # A pod that stood still for longer than its transaction may: what it held is void, and only the
            # committed offsets tell which of it Kafka has.
            health.set_ready("group", False, "begins anew")
            metrics.holds_nothing()
            _log.warning("producer ended, beginning anew", why=str(error))


def _serve_once(settings: Settings, metrics: Metrics, health: Health, stop: Event) -> None:
    workers = worker_settings(settings)
    pool = worker_pool(settings, workers)
    if left := sweep(workers.download_directory):
        _log.info("files of a pod before this one removed", files=left)
    with pool:
        _serve(settings, workers=workers, pool=pool, metrics=metrics, health=health, stop=stop)


def _serve(
    settings: Settings,
    *,
    workers: WorkerSettings,
    pool: WorkerPool,
    metrics: Metrics,
    health: Health,
    stop: Event,
) -> None:
    connection = kafka_connection(settings)
    open_sink = partial(ResultSink, connection, max_message_bytes=settings.max_message_bytes)
    diffs = DiffTopic(settings.queue_comparison, open_sink, metrics.trials)
    source = EventSource(
        connection,
        group=settings.kafka_group,
        topic=settings.queue_name,
        instance_id=settings.kafka_group_instance_id,
        losses=Losses(settings.kafka_group, metrics.events_expired),
        retention=TopicRetention(connection, settings.queue_name),
    )
    producer = transactional_producer(settings, settings.pod_name)
    delivery = delivery_by(producer, open_sink, source, metrics)
    metrics.delivery(settings.kafka_delivery)
    service = Service(
        source=source,
        outbox=Outbox(
            delivery,
            outbox_settings(settings, settings.queue_target, settings.queue_dead_letter),
            metrics,
            diffs,
        ),
        pool=pool,
        limits=ServiceLimits(
            workers=settings.workers,
            requests_in_flight=settings.triton_in_flight,
            recording_deadline_seconds=settings.recording_deadline,
            duplicate_window=settings.duplicate_window,
            shutdown_grace_seconds=settings.shutdown_grace,
        ),
        metrics=metrics,
        health=health,
        stop=stop,
    )
    checks: list[tuple[str, Part, Callable[[], str]]] = [
        ("contract", "triton", lambda: _check_contract(workers.triton, metrics, diffs)),
        ("vault", "vault", lambda: _check_vault(workers.vault)),
        ("kafka", "kafka", lambda: _check_topics(source, connection, settings)),
        ("delivery", "kafka", lambda: _check_delivery(producer)),
    ]
    for name, part, check in checks:
        if not _wait_for(name, check, health, stop, partial(metrics.outage, part)):
            return
    try:
        service.run()
    finally:
        delivery.close()
        diffs.flush(FLUSH_SECONDS)


def _wait_for(
    name: str, check: Callable[[], str], health: Health, stop: Event, outage: Callable[[bool], None]
) -> bool:
    """Make a check until it passes; return False when we are told to stop before.

    Work waits meanwhile as it does in an outage, and Kafka's retention runs: `outage` hears of both ends.
    """

    def wait(seconds: float) -> None:
        # In slices, so that the probe sees a loop that turns.
        until = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < until:
            health.beat()
            stop.wait(0.5)

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        health.set_ready(name, False, str(error))
        outage(True)
        if isinstance(error, SetupError):
            _log.error("not ready", check=name, why=str(error))
        else:
            _log.warning("waiting", check=name, why=str(error))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_come_right),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_START_WAIT_SECONDS),
        stop=tenacity.stop_when_event_set(stop),
        sleep=wait,
        before_sleep=say,
        reraise=True,
    )
    health.beat()
    try:
        detail = retrying(check)
    except VaultMLError:
        if stop.is_set():
            return False
        raise
    health.set_ready(name, True, detail)
    outage(False)
    _log.info("checked", check=name, found=detail)
    return not stop.is_set()


def _may_come_right(error: BaseException) -> bool:
    lasting = isinstance(error, TransactionsRefused | ProducerEnded)  # the latter takes a new producer
    return isinstance(error, Outage | SetupError) and not lasting


def _check_contract(endpoint: TritonEndpoint, metrics: Metrics, diffs: DiffTopic) -> str:
    # A server that takes no notice of us must not hold up the beat of the loop.
    with TritonDetector(replace(endpoint, timeout_seconds=min(endpoint.timeout_seconds, 10.0))) as detector:
        contract = detector.read_contract()
    rollout = contract.rollout
    live, trial = contract.versions[str(rollout.live)], rollout.candidate
    metrics.model_answered(contract.model, live.version, live.digest)
    diffs.follow(rollout)
    beside = "" if trial is None else f", {trial.mode} of version {trial.version} at {trial.percent:g} %"
    return f"model {contract.model}, live version {live.version}{beside}, {contract.width}x{contract.height}"


def _check_vault(vault_settings: VaultSettings | None) -> str:
    if vault_settings is not None:
        with VaultClient(vault_settings) as vault:
            vault.ping()
    return "answered"


def _check_delivery(producer: TransactionalProducer | None) -> str:
    if producer is None:
        return "at-least-once: a crash repeats results"
    producer.begin()
    return f"exactly-once, as {producer.transactional_id}"


def _check_topics(source: EventSource, connection: KafkaConnection, settings: Settings) -> str:
    partitions = source.check_topic(settings.queue_name)
    ensure_topic(connection, settings.queue_target, like=partitions)
    try:
        ensure_topic(connection, settings.queue_dead_letter, like=partitions)
    except StreamSetupError as error:
        # Results can flow without it; the first event that needs it is held until it is there.
        _log.warning("dead letters have nowhere to go", why=str(error))
    try:
        ensure_topic(connection, settings.queue_comparison, like=1)
    except (StreamSetupError, BrokerAway) as error:
        _log.info("comparisons have nowhere to go", why=str(error))  # which matters only in a rollout
    return f"topic {settings.queue_name} with {partitions} partitions"
