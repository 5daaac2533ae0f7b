"""Standing: what metrics, probes and log are told of how the pod stands, at each turn of its loop."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from consumer.backlog import Backlog
from consumer.endpoints import Health
from consumer.errors import ContractError, Part, VaultMLError
from consumer.metrics import PARTS, Metrics
from consumer.offsets import PartitionProgress
from consumer.pace import Pace

_log = structlog.get_logger("vault-ml")

HOLDING_SECONDS = 60.0
"""How long the first recording of a partition may be in hand before it is named, and how often it is."""


@dataclass(frozen=True)
class Snapshot:
    """How the pod stands at one moment.

    Attributes:
        in_hand: recordings that have no delivered outcome yet.
        assigned: the partitions that are ours.
        joined: whether we are a member of the group.
        outage: why the gate is closed; None while it is open.
        kafka_away: whether Kafka keeps us waiting.
        largest_worker_bytes: resident memory.
    """

    in_hand: int
    assigned: Sequence[PartitionProgress]
    joined: bool
    outage: VaultMLError | None
    kafka_away: bool
    largest_worker_bytes: int


class Standing:
    """Tells metrics and probes how the pod stands, and the log when an outage begins and ends.

    Args:
        metrics: for Prometheus.
        health: for the probes.
    """

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics, self._health = metrics, health
        self._outage_since: float | None = None
        self._outage_part: Part | None = None
        self._holders_named_at = 0.0

    def tell(self, now: Snapshot, pace: Pace) -> None:
        """Tell all three."""
        self._health.beat()
        self._metrics.in_flight(now.in_hand)
        self._metrics.held(sum(p.held for p in now.assigned), sum(p.held_bytes for p in now.assigned))
        self._metrics.triton_pace(pace.window, pace.latency_ratio)
        self._metrics.worker_memory(now.largest_worker_bytes)
        away = None if now.outage is None else now.outage.part
        for part in PARTS:
            self._metrics.outage(part, away=part == away)
        self._metrics.outage("kafka", away=now.kafka_away)
        broken = isinstance(now.outage, ContractError)
        self._health.set_ready("contract", not broken, str(now.outage) if broken else "checked")
        numbers = sorted(progress.partition for progress in now.assigned)
        self._health.set_ready("group", now.joined, f"partitions {numbers}")
        self._log_outage(now.outage)

    def name_holders(self, backlog: Backlog, now: float) -> None:
        """Log, once a minute, which recordings keep their partition's offset where it is; not in an outage.

        Args:
            backlog: the recordings in hand.
            now: on the service's clock.
        """
        if now - self._holders_named_at < HOLDING_SECONDS or self._outage_since is not None:
            return
        self._holders_named_at = now
        for recording in backlog.first_of_each():
            if now - recording.fetched_at >= HOLDING_SECONDS:
                _log.warning(
                    "a recording holds its partition",
                    key=recording.event.key,
                    source=str(recording.position),
                    attempts=recording.attempts,
                    seconds=round(now - recording.fetched_at),
                    behind_it=recording.progress.held - 1,
                )

    def _log_outage(self, outage: VaultMLError | None) -> None:
        if outage is not None and self._outage_since is None:
            self._outage_since, self._outage_part = time.monotonic(), outage.part
            _log.warning("outage begins; the place is kept", why=str(outage))
        elif outage is not None and outage.part != self._outage_part:
            self._outage_part = outage.part
            _log.warning("outage goes on, for another reason", why=str(outage))
        elif outage is None and self._outage_since is not None:
            seconds = time.monotonic() - self._outage_since
            self._outage_since = None
            _log.warning("outage over", seconds=round(seconds, 1))
