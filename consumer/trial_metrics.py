"""Trial metrics: the rollout as this pod knows it, and the comparisons of its versions."""

from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from consumer.comparison import Comparison
from consumer.label_values import NAME, FewValues
from consumer.rollout import Mode, Rollout

MOST_LABELS = 200
"""Names of classes: COCO has 80, and people have their own."""

Role = Literal["live", "candidate"]
ROLES: tuple[Role, ...] = get_args(Role)
MODES: tuple[Mode, ...] = get_args(Mode)

_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class TrialMetrics:
    """The series of a rollout, part of `Metrics`.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reasons, self._labels = FewValues(), FewValues(NAME, MOST_LABELS)
        self._generation = Gauge(
            "vault_ml_rollout_generation",
            "The newest generation of the rollout that a recording was looked at in.",
            registry=registry,
        )
        self._rollout = Info("vault_ml_rollout", "The rollout in that generation.", registry=registry)
        self._comparisons = Counter(
            "vault_ml_comparisons",
            "Recordings in whose frames two model versions were compared.",
            ["mode"],
            registry=registry,
        )
        self._failed = Counter(
            "vault_ml_comparisons_failed",
            "Recordings in which one of the two versions failed or was too slow, by reason.",
            ["reason"],
            registry=registry,
        )
        self._boxes = Counter(
            "vault_ml_comparison_boxes",
            "Boxes under labels that both versions know, and pairs of them that match.",
            ["what"],
            registry=registry,
        )
        self._boxes_by_label = Counter(
            "vault_ml_comparison_labels",
            "Boxes of each label that each of the two versions found.",
            ["role", "label"],
            registry=registry,
        )
        self._seconds = Histogram(
            "vault_ml_comparison_seconds",
            "Seconds that the requests of one recording took, for each of the two versions.",
            ["role"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        # rate() and increase() miss the first event of a new series.
        for mode in MODES:
            self._comparisons.labels(mode)
        for what in ("matched", *ROLES):
            self._boxes.labels(what)
        for role in ROLES:
            self._seconds.labels(role)

    def rollout(self, rollout: Rollout) -> None:
        """Say the newest rollout that a recording was looked at in."""
        candidate = rollout.candidate
        self._generation.set(rollout.generation)
        self._rollout.info(
            {
                "live": str(rollout.live),
                "previous": "" if rollout.previous is None else str(rollout.previous),
                "candidate": "" if candidate is None else str(candidate.version),
                "mode": "" if candidate is None else candidate.mode,
                "percent": "" if candidate is None else f"{candidate.percent:g}",
            }
        )

    def compared(self, comparison: Comparison) -> None:
        """Count the comparison of one recording, or that it failed."""
        if comparison.failed is not None:
            self._failed.labels(self._reasons(comparison.failed)).inc()
            return
        self._comparisons.labels(comparison.mode).inc()
        self._boxes.labels("matched").inc(comparison.matched)
        for role, side in zip(ROLES, (comparison.live, comparison.candidate), strict=True):
            self._boxes.labels(role).inc(side.boxes)
            self._seconds.labels(role).observe(side.seconds)
            for label, boxes in side.labels.items():
                self._boxes_by_label.labels(role, self._labels(label)).inc(boxes)
