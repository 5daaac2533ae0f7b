"""`vault-ml run`: puts the pod together from its settings, and starts it once all that it needs is there."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event

import structlog
import tenacity
from prometheus_client import CollectorRegistry

from consumer.connection import KafkaConnection
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.endpoints import Endpoints, Health
from consumer.errors import Outage, SetupError, StreamSetupError, VaultMLError
from consumer.metrics import Metrics
from consumer.outbox import Outbox, OutboxSettings
from consumer.pool import WorkerPool
from consumer.service import Service, ServiceLimits
from consumer.settings import TRITON_SHARE, DetectSettings, Settings, secret_values
from consumer.sink import ResultSink
from consumer.stream import EventSource
from consumer.vault import VaultClient, VaultSettings
from consumer.worker import Look, WorkerSettings, work

_log = structlog.get_logger("vault-ml")

LONGEST_START_WAIT_SECONDS = 15.0

DOWNLOAD_SHARE = 0.6
"""Of the time for one attempt: a slow Vault must be found out by the client, which can say so."""

BACKSTOP_SECONDS = 30.0
"""After the time for one attempt, before its worker is ended: for a last /ping and the model's answer."""


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
    sink = ResultSink(connection, max_message_bytes=settings.max_message_bytes)
    source = EventSource(connection, group=settings.kafka_group, topic=settings.queue_name)
    service = Service(
        source=source,
        outbox=Outbox(sink, outbox_settings, metrics),
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
        ("contract", lambda: _check_contract(workers.triton, metrics)),
        ("vault", lambda: _check_vault(workers.vault)),
        ("kafka", lambda: _check_topics(source, sink, settings)),
    ]
    for name, check in checks:
        if not _wait_for(name, check, health, stop):
            return
    service.run()


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


def _check_contract(endpoint: TritonEndpoint, metrics: Metrics) -> str:
    # A server that takes no notice of us must not hold up the beat of the loop.
    with TritonDetector(replace(endpoint, timeout_seconds=min(endpoint.timeout_seconds, 10.0))) as detector:
        contract = detector.read_contract()
    for version in contract.versions.values():
        metrics.model_answered(contract.model, version.version, version.digest)
    versions = ", ".join(sorted(contract.versions))
    return f"model {contract.model}, versions {versions}, {contract.width}x{contract.height}"


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
    return f"topic {settings.queue_name} with {partitions} partitions"


def kafka_connection(settings: Settings) -> KafkaConnection:
    """Return how the settings say that Kafka is reached."""
    password = settings.kafka_password
    return KafkaConnection(
        brokers=settings.kafka_broker,
        security=settings.kafka_security,
        mechanism=settings.kafka_mechanism,
        username=settings.kafka_username,
        password=password.get_secret_value() if password else None,
        ca_file=str(settings.kafka_ca_file) if settings.kafka_ca_file else None,
    )


def detector_settings(settings: DetectSettings, triton_url: str) -> WorkerSettings:
    """Return what the settings say for worker processes that look at local files."""
    return WorkerSettings(
        look=Look(settings.number_of_predictions, settings.score_threshold, settings.nms_iou),
        triton=TritonEndpoint(
            triton_url,
            settings.triton_model,
            min(settings.triton_timeout, settings.recording_time_limit * TRITON_SHARE),
            settings.triton_in_flight,
        ),
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


def attempt_seconds(settings: Settings) -> float:
    """Return how long one attempt at a recording may take: never longer than all attempts together."""
    return min(settings.recording_time_limit, settings.recording_deadline)


def worker_settings(settings: Settings) -> WorkerSettings:
    """Return what the settings say for the worker processes."""
    return replace(
        detector_settings(settings, settings.triton_url),
        vault=VaultSettings(
            api_url=settings.vault_api_url,
            access_key=settings.vault_access_key.get_secret_value(),
            secret_key=settings.vault_secret_key.get_secret_value(),
            ca_file=settings.vault_ca_file,
            signed_url_hosts=settings.signed_url_hosts,
            connect_timeout_seconds=settings.vault_timeout,
            read_timeout_seconds=settings.vault_timeout,
            download_deadline_seconds=attempt_seconds(settings) * DOWNLOAD_SHARE,
            max_recording_bytes=settings.max_recording_bytes,
        ),
    )
