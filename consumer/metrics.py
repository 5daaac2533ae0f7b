"""Metrics: what happened, as Prometheus reads it. Every label has few values, so that the series stay few."""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from consumer.analysis import Analysis
from consumer.errors import MayHeal, NeverHeals, Part, TritonFull, VaultMLError, WorkerDied, WorkerTooLarge
from consumer.label_values import NUMBER, FewValues
from consumer.trial_metrics import TrialMetrics

_STAGE_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
Stage = Literal["download", "decode", "wait", "inference", "compare", "deliver"]
STAGES: tuple[Stage, ...] = get_args(Stage)
PARTS: tuple[Part, ...] = get_args(Part)
FRAME_FATES = ("decoded", "inferred", "not_sampled", "not_needed", "undecodable", "dropped")
"""The counts of a ledger that vault_ml_frames_total shows."""


class Metrics:
    """The series of one consumer pod, with a method for each thing that can happen.

    Args:
        registry: where the series are registered; one Metrics per registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._outcomes, self._reasons, self._retry_reasons = FewValues(), FewValues(), FewValues()
        self._letter_reasons, self._versions = FewValues(), FewValues(NUMBER)
        self.trials = TrialMetrics(registry)
        self._partitions: frozenset[tuple[str, int]] = frozenset()
        self._recordings = Counter(
            "vault_ml_recordings",
            "Recordings whose outcome is confirmed in Kafka, by outcome and reason.",
            ["outcome", "reason"],
            registry=registry,
        )
        self._dead_letters = Counter(
            "vault_ml_dead_letters",
            "Events that became dead letters, by reason.",
            ["reason"],
            registry=registry,
        )
        self._retries = Counter(
            "vault_ml_retries",
            "Tries at a recording that failed and are made again, by reason.",
            ["reason"],
            registry=registry,
        )
        self._stages = Histogram(
            "vault_ml_stage_seconds",
            "Seconds that a recording spent in a stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS_SECONDS,
            registry=registry,
        )
        self._frames = Counter(
            "vault_ml_frames",
            "Packets and frames of recordings, by what became of them.",
            ["what"],
            registry=registry,
        )
        self._bytes = Counter("vault_ml_bytes", "Bytes downloaded from Vault.", registry=registry)
        self._given_back = Counter(
            "vault_ml_given_back",
            "Events given back unfinished to the partition's next owner.",
            registry=registry,
        )
        self._in_flight = Gauge(
            "vault_ml_in_flight",
            "Recordings taken from Kafka whose outcome is not confirmed yet.",
            registry=registry,
        )
        self._lag = Gauge(
            "vault_ml_lag",
            "Messages of an assigned partition that are not finished yet.",
            ["topic", "partition"],
            registry=registry,
        )
        self._outage = Gauge(
            "vault_ml_outage", "1 while work waits because this part is away.", ["part"], registry=registry
        )
        self._worker_restarts = Counter(
            "vault_ml_worker_restarts",
            "Worker processes that died, hung or grew too large and were replaced, by reason.",
            ["reason"],
            registry=registry,
        )
        self._worker_memory = Gauge(
            "vault_ml_worker_memory_bytes", "Resident memory of the largest worker now.", registry=registry
        )
        self._held = Gauge(
            "vault_ml_held",
            "Messages in hand that no commit covers yet.",
            registry=registry,
        )
        self._held_bytes = Gauge(
            "vault_ml_held_bytes", "Outcomes that wait for the messages before them.", registry=registry
        )
        self._window = Gauge(
            "vault_ml_triton_window", "Requests that the pod may have at Triton at a time.", registry=registry
        )
        self._rejections = Counter(
            "vault_ml_triton_rejections",
            "Requests that Triton refused because its queue was full.",
            registry=registry,
        )
        self._latency_ratio = Gauge(
            "vault_ml_triton_latency_ratio",
            "Mean seconds of the last requests to Triton over the fewest that such requests take.",
            registry=registry,
        )
        self._expired = Counter(
            "vault_ml_events_expired",
            "Events that Kafka deleted before they were read.",
            registry=registry,
        )
        self._expires = Gauge(
            "vault_ml_oldest_event_expires_seconds",
            "Seconds until Kafka may delete the oldest event that is not finished.",
            ["topic"],
            registry=registry,
        )
        self._transactions = Counter(
            "vault_ml_transactions",
            "Transactions of results and offsets, by their end: committed or aborted.",
            ["end"],
            registry=registry,
        )
        self._delivery = Info("vault_ml_delivery", "The promise of delivery in force.", registry=registry)
        self._looks = Counter(
            "vault_ml_model_recordings",
            "Recordings looked at, by the model version that answered.",
            ["version"],
            registry=registry,
        )
        self._model = Info("vault_ml_model", "The model version that answered last.", registry=registry)
        ProcessCollector(registry=registry)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Make the expected series exist, as rate() and increase() miss the first event of a new one."""
        for outcome in ("done", "partial"):
            self._recordings.labels(self._outcomes(outcome), "")
        for stage in STAGES:
            self._stages.labels(stage)
        for what in FRAME_FATES:
            self._frames.labels(what)
        for part in PARTS:
            self._outage.labels(part)
        for end in ("committed", "aborted"):
            self._transactions.labels(end)
        for kind in (WorkerDied, WorkerTooLarge):
            self._worker_restarts.labels(kind.reason)
        for reason in ("retry_exhausted", *_reasons(NeverHeals)):
            self._dead_letters.labels(self._letter_reasons(reason))
        for reason in (TritonFull.reason, *_reasons(MayHeal)):
            self._retries.labels(self._retry_reasons(reason))

    def recording_finished(
        self, outcome: str, reason: str = "", seconds: Mapping[str, float] | None = None
    ) -> None:
        """Count a recording whose outcome is confirmed.

        Args:
            outcome: done, partial, skipped or dead-letter.
            reason: why, for the last two.
            seconds: by stage; a stage that was not reached is left out.
        """
        self._recordings.labels(self._outcomes(outcome), self._reasons(reason)).inc()
        for stage, spent in (seconds or {}).items():
            if stage in STAGES:
                self._stages.labels(stage).observe(max(0.0, spent))
        if outcome == "dead-letter":
            self._dead_letters.labels(self._letter_reasons(reason)).inc()

    def delivery(self, promise: str) -> None:
        """Say which promise is in force: exactly-once or at-least-once."""
        self._delivery.info({"promise": promise})

    def transaction(self, written: bool) -> None:
        """Count a transaction that was committed, or aborted."""
        self._transactions.labels("committed" if written else "aborted").inc()

    def triton_pace(self, window: float, latency_ratio: float) -> None:
        """Say how many requests the pod may have at Triton, and their latency over its minimum."""
        self._window.set(window)
        self._latency_ratio.set(latency_ratio)

    def triton_rejected(self, requests: int) -> None:
        """Count requests that Triton had no room for."""
        self._rejections.inc(requests)

    def events_expired(self, events: int) -> None:
        """Count events that Kafka deleted before they were read."""
        self._expired.inc(events)

    def holds_nothing(self) -> None:
        """Say that nothing is in hand and no partition is ours: what was said of them before is over."""
        self.in_flight(0)
        self.held(0, 0)
        self.lag({})
        self._expires.clear()
        for part in PARTS:
            self.outage(part, away=False)

    def oldest_event_expires(self, seconds: Mapping[str, float]) -> None:
        """Say, by topic, when the oldest unfinished event may be deleted."""
        for topic, left in seconds.items():
            self._expires.labels(topic).set(left)

    def looked_at(self, analysis: Analysis) -> None:
        """Count the packets and frames of a recording's ledger, and note the model version that answered."""
        for what, count in (analysis.ledger or {}).items():
            if what in FRAME_FATES:
                self._frames.labels(what).inc(sum(count.values()) if isinstance(count, Mapping) else count)
        if analysis.model_version:
            self._looks.labels(self._versions(analysis.model_version)).inc()
            self.model_answered(analysis.model_name, analysis.model_version, analysis.model_digest)

    def model_answered(self, name: str, version: str, digest: str) -> None:
        """Note the model version in use; it replaces the one before."""
        self._model.info({"name": name, "version": version, "digest": digest})

    def downloaded(self, size_bytes: int) -> None:
        """Count what was downloaded from Vault."""
        self._bytes.inc(size_bytes)

    def retried(self, reason: str) -> None:
        """Count a failed try that is made again."""
        self._retries.labels(self._retry_reasons(reason)).inc()

    def worker_replaced(self, reason: str) -> None:
        """Count a worker process that died, hung (`worker_died`) or grew too large (`worker_too_large`)."""
        self._worker_restarts.labels(reason).inc()

    def worker_memory(self, largest_bytes: int) -> None:
        """Say how much memory the largest worker has now."""
        self._worker_memory.set(largest_bytes)

    def given_back(self, events: int = 1) -> None:
        """Count events given back unfinished, on a rebalance or at the end."""
        self._given_back.inc(events)

    def in_flight(self, recordings: int) -> None:
        """Say how many recordings are taken and not confirmed."""
        self._in_flight.set(recordings)

    def held(self, messages: int, size_bytes: int) -> None:
        """Say how many messages lie behind unfinished ones, and how large the outcomes are that wait."""
        self._held.set(messages)
        self._held_bytes.set(size_bytes)

    def lag(self, messages: Mapping[tuple[str, int], int]) -> None:
        """Say how far behind each assigned partition is; one that is not named is not ours any more."""
        for (topic, partition), behind in messages.items():
            self._lag.labels(topic, str(partition)).set(max(0, behind))
        for topic, partition in self._partitions - messages.keys():
            self._lag.remove(topic, str(partition))
        self._partitions = frozenset(messages)

    def outage(self, part: Part, away: bool) -> None:
        """Say that work waits for a part, or that the part is back."""
        self._outage.labels(part).set(1 if away else 0)


def _reasons(kind: type[VaultMLError]) -> Iterator[str]:
    for each in kind.__subclasses__():
        yield each.reason
        yield from _reasons(each)
