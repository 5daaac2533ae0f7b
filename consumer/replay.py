"""`vault-ml replay`: past events again, looked at by one version of the model, results to another topic.

A pod of its own beside the others: the same workers, delivery and outcomes, but another source and another
target, and the lower of Triton's priorities (docs/adr/0016-replays.md).
"""

import hashlib
import json
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from threading import Event

import structlog
from prometheus_client import CollectorRegistry

from consumer.assembly import delivery_by, outbox_settings, transactional_producer, worker_pool
from consumer.contract import REPLAY_PRIORITY
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.diff_topic import DiffTopic
from consumer.endpoints import Health
from consumer.errors import ProducerFenced, SettingsError, SetupError
from consumer.metrics import Metrics
from consumer.moments import in_words
from consumer.outbox import Outbox
from consumer.parts import kafka_connection, worker_settings
from consumer.past import Past, Stretch
from consumer.past_source import PastSource, Window
from consumer.provision import ensure_topic
from consumer.replay_mark import ReplayMark
from consumer.resend import topics_written
from consumer.service import Service, ServiceLimits
from consumer.settings import Settings
from consumer.sink import ResultSink
from consumer.triton_client import TritonClient
from consumer.vault import VaultClient
from consumer.worker import WorkerSettings

_log = structlog.get_logger("vault-ml")

_CHECK_SECONDS = 10.0


@dataclass(frozen=True)
class Order:
    """What is to be replayed.

    Attributes:
        window: which past events.
        topic_to: where results go.
        version: of the model; None for the one that is live when the replay begins.
    """

    window: Window
    topic_to: str
    version: int | None = None

    @property
    def letters_topic(self) -> str:
        """Where its dead letters go."""
        return letters_topic_of(self.topic_to)


@dataclass(frozen=True)
class Replay:
    """What can be said of a replay before it runs.

    Attributes:
        name: of this window, version and target; the same again means the same replay.
        version: of the model.
        stretches: what the topic holds of the window.
        gone_until: events before that are wanted and no longer kept; None where all are there.
    """

    name: str
    version: int
    stretches: tuple[Stretch, ...]
    gone_until: datetime | None


@dataclass(frozen=True)
class Summary:
    """What became of a replay.

    Attributes:
        events: messages that were looked at in this run.
        outcomes: how many recordings ended as what; dead letters with their reason.
        complete: whether the window, or as much of it as was asked for, is done.
        seconds: that it took.
        limited: whether the limit ended it; more of the window may be left.
    """

    events: int
    outcomes: Counter[str]
    complete: bool
    seconds: float
    limited: bool = False


def letters_topic_of(topic_to: str) -> str:
    """Return where the dead letters of a replay go: apart from those that somebody has to look after."""
    return f"{topic_to}.dead-letter"


def check_target(settings: Settings, topic_to: str) -> None:
    """Refuse a target that others read as something else, or whose dead letters would be.

    Raises:
        SettingsError: it is a topic of the pods.
    """
    taken = {settings.queue_name: "QUEUE_NAME"} | topics_written(settings)
    letters_topic = letters_topic_of(topic_to)
    for topic, said in (
        (topic_to, topic_to),
        (letters_topic, f"{topic_to} has dead letters in {letters_topic}, which"),
    ):
        if topic in taken:
            raise SettingsError(
                [
                    f"--topic-to {said} is {taken[topic]}: give another topic, or replays are taken for what "
                    "the pods write."
                ]
            )


def prepare(settings: Settings, order: Order) -> Replay:
    """Find out what there is to replay, and that all it needs is there.

    Raises:
        SetupError: the version is not served, the topic is missing or not for us.
        Outage: Triton, Vault or Kafka does not answer.
    """
    workers = worker_settings(settings)
    version = _served(replace(workers.triton, timeout_seconds=_CHECK_SECONDS), order.version)
    if workers.vault is not None:
        with VaultClient(workers.vault) as vault:
            vault.ping()
    connection = kafka_connection(settings)
    with Past(connection, settings.queue_name) as past:
        stretches = past.stretches(order.window.since)
        if not stretches:
            raise SetupError(
                f"Topic {settings.queue_name!r} does not exist: set QUEUE_NAME to that of the pods."
            )
        gone_until = _gone_until(past, stretches, order.window.since)
    for topic in (order.topic_to, order.letters_topic):
        ensure_topic(connection, topic, like=len(stretches))
    return Replay(_name(settings, order, version), version, tuple(stretches), gone_until)


def run(settings: Settings, order: Order, prepared: Replay, *, anew: bool = False) -> Summary:
    """Replay until all is done, or SIGTERM or SIGINT; started again, it goes on where it was.

    Args:
        settings: of the pods.
        order: what to replay.
        prepared: for this order.
        anew: from the beginning, whatever has been done.

    Raises:
        SetupError: Kafka refuses us, or the same replay runs somewhere else.
        BrokerAway: Kafka does not answer at the start.
    """
    stop = Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda number, _frame: stop.set())
    started = time.monotonic()
    registry = CollectorRegistry()
    connection, group = kafka_connection(settings), f"{settings.kafka_group}.{prepared.name}"
    source = PastSource(
        connection,
        group=group,
        topic=settings.queue_name,
        stretches=prepared.stretches,
        window=order.window,
        mark=ReplayMark("source", prepared.name, 1, in_words(datetime.now(UTC))),
        stop=stop,
    )
    places = source.places(anew=anew)
    if not places:
        return Summary(0, Counter(), complete=True, seconds=0.0)
    source.begin(places)
    metrics = Metrics(registry)
    open_sink = partial(ResultSink, connection, max_message_bytes=settings.max_message_bytes)
    with ExitStack() as ending:
        producer = transactional_producer(settings, prepared.name)
        if producer is not None:
            producer.begin()
        delivery = delivery_by(producer, open_sink, source, metrics)
        ending.callback(delivery.close)
        pool = ending.enter_context(worker_pool(settings, _workers(settings, prepared.version)))
        service = Service(
            source=source,
            outbox=Outbox(
                delivery,
                outbox_settings(settings, order.topic_to, order.letters_topic),
                metrics,
                DiffTopic(settings.queue_comparison, open_sink, metrics.trials),
            ),
            pool=pool,
            limits=ServiceLimits(
                workers=settings.workers,
                requests_in_flight=settings.triton_in_flight,
                recording_deadline_seconds=settings.recording_deadline,
                shutdown_grace_seconds=settings.shutdown_grace,
            ),
            metrics=metrics,
            health=Health(("contract", "group")),
            stop=stop,
        )
        try:
            service.run()
        except ProducerFenced as error:
            raise SetupError("The same replay was started somewhere else, and goes on there.") from error
    seconds = time.monotonic() - started
    return Summary(source.taken, _outcomes(registry), source.complete, seconds, source.limited)


def _workers(settings: Settings, version: int) -> WorkerSettings:
    live = worker_settings(settings)
    return replace(
        live,
        look=replace(live.look, version=version),
        triton=replace(live.triton, priority=REPLAY_PRIORITY),
    )


def _served(endpoint: TritonEndpoint, version: int | None) -> int:
    """Return the version to ask: the one that was said, if it is served, or the live one."""
    with TritonDetector(endpoint) as detector:
        contract = detector.read_contract()
    client = TritonClient(endpoint)
    try:
        served = sorted(int(name) for name in client.metadata().get("versions", []))
    finally:
        client.close()
    asked = contract.rollout.live if version is None else version
    if asked not in served or str(asked) not in contract.versions:
        there = ", ".join(str(number) for number in served if str(number) in contract.versions)
        raise SetupError(
            f"Version {asked} of model {contract.model!r} is not served: give one of {there}, or load it "
            "with 'vault-ml model load'."
        )
    return asked


def _gone_until(past: Past, stretches: Sequence[Stretch], since: datetime) -> datetime | None:
    """Return from when on all events are kept, where some of the window may be gone."""
    firsts = [
        replace(each, end=each.begin + 1)
        for each in stretches
        if each.begin == each.oldest and 0 < each.oldest < each.end
    ]
    kept_from = [record.at for record in past.read(firsts) if record.at > since]
    if any(0 < each.oldest == each.end for each in stretches):
        kept_from.append(datetime.now(UTC))
    return max(kept_from, default=None)


def _name(settings: Settings, order: Order, version: int) -> str:
    window = order.window
    identity = [
        settings.queue_name,
        order.topic_to,
        settings.triton_model,
        version,
        in_words(window.since),
        in_words(window.until),
        sorted(window.cameras),
    ]
    return f"replay-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"


def _outcomes(registry: CollectorRegistry) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "vault_ml_recordings_total":
                outcome, reason = sample.labels["outcome"], sample.labels["reason"]
                outcomes[f"{outcome} ({reason})" if reason else outcome] += int(sample.value)
    return outcomes
