"""`vault-ml run`: puts the pod together, and starts it once all that it needs is there."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event

import structlog
import tenacity
from prometheus_client import CollectorRegistry

from consumer.detector import TritonDetector, TritonEndpoint
from consumer.diff_topic import DiffTopic
from consumer.endpoints import Endpoints, Health
from consumer.errors import BrokerAway, Outage, SetupError, StreamSetupError, VaultMLError
from consumer.metrics import Metrics
from consumer.outbox import Outbox, OutboxSettings
from consumer.parts import BACKSTOP_SECONDS, attempt_seconds, kafka_connection, worker_settings
from consumer.pool import WorkerPool
from consumer.service import Service, ServiceLimits
from consumer.settings import Settings, secret_values
from consumer.sink import ResultSink
from consumer.stream import EventSource
from consumer.vault import VaultClient, VaultSettings
from consumer.worker import WorkerSettings, work

_log = structlog.get_logger("vault-ml")

LONGEST_START_WAIT_SECONDS = 15.0
FLUSH_SECONDS = 1.0
"""For the last comparisons, once the results are out and the group is left."""


def run(settings: Settings) -> None:
    """Consume events until SIGTERM or SIGINT.

    Waits for what is away, and says what it waits for; joins the consumer group only after the model's
    contract was checked, Vault has answered once and both topics are there.

    Raises:
        SetupError: HTTP_PORT is taken, or Kafka takes our rights away while running.
    """
    stop = Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda number, _frame: stop.set())
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    health = Health(("contract", "vault", "kafka", "group"), secrets=secret_values(settings))
    with Endpoints(health, registry, settings.http_port) as endpoints:
        _log.info(
            "starting", http_port=endpoints.port, source=settings.queue_name, target=settings.queue_target
        )
        workers = worker_settings(settings)
        pool = WorkerPool(
            partial(work, workers),
            workers=settings.workers,
            time_limit_seconds=attempt_seconds(settings) + BACKSTOP_SECONDS,
        )
        with pool:
            _serve(settings, workers=workers, pool=pool, metrics=metrics, health=health, stop=stop)
    _log.info("stopped")


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
    outbox_settings = OutboxSettings(
        target_topic=settings.queue_target,
        dead_letter_topic=settings.queue_dead_letter,
        max_message_bytes=settings.max_message_bytes,
        secrets=secret_values(settings),
    )
    open_sink = partial(ResultSink, connection, max_message_bytes=settings.max_message_bytes)
    sink, diffs = open_sink(), DiffTopic(settings.queue_comparison, open_sink, metrics.trials)
    source = EventSource(connection, group=settings.kafka_group, topic=settings.queue_name)
    service = Service(
        source=source,
        outbox=Outbox(sink, outbox_settings, metrics, diffs),
        pool=pool,
        limits=ServiceLimits(
            workers=settings.workers,
            recording_deadline_seconds=settings.recording_deadline,
            shutdown_grace_seconds=settings.shutdown_grace,
        ),
        metrics=metrics,
        health=health,
        stop=stop,
    )
    checks: list[tuple[str, Callable[[], str]]] = [
        ("contract", lambda: _check_contract(workers.triton, metrics, diffs)),
        ("vault", lambda: _check_vault(workers.vault)),
        ("kafka", lambda: _check_topics(source, sink, settings)),
    ]
    for name, check in checks:
        if not _wait_for(name, check, health, stop):
            return
    try:
        service.run()
    finally:
        diffs.flush(FLUSH_SECONDS)


def _wait_for(name: str, check: Callable[[], str], health: Health, stop: Event) -> bool:
    """Make a check until it passes; return False when we are told to stop before."""

    def wait(seconds: float) -> None:
        # In slices, so that the probe sees a loop that turns.
        until = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < until:
            health.beat()
            stop.wait(0.5)

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        health.set_ready(name, False, str(error))
        if isinstance(error, SetupError):
            _log.error("not ready", check=name, why=str(error))
        else:
            _log.warning("waiting", check=name, why=str(error))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((Outage, SetupError)),
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
    _log.info("checked", check=name, found=detail)
    return not stop.is_set()


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


def _check_topics(source: EventSource, sink: ResultSink, settings: Settings) -> str:
    partitions = source.check_topic(settings.queue_name)
    sink.ensure_topic(settings.queue_target, like=partitions)
    try:
        sink.ensure_topic(settings.queue_dead_letter, like=partitions)
    except StreamSetupError as error:
        # Results can flow without it; the first event that needs it is held until it is there.
        _log.warning("dead letters have nowhere to go", why=str(error))
    try:
        sink.ensure_topic(settings.queue_comparison, like=1)
    except (StreamSetupError, BrokerAway) as error:
        _log.info("comparisons have nowhere to go", why=str(error))  # which matters only in a rollout
    return f"topic {settings.queue_name} with {partitions} partitions"
