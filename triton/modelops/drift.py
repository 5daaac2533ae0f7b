"""Drift: how far a candidate is from the live version, over many recordings; by this `promote` decides."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from consumer.agreement import Agreement
from consumer.comparison import Comparison, Side

MAX_FAILED_SHARE = 0.1
"""Of the comparisons: where more failed, those that are left are not a fair sample."""


@dataclass(frozen=True)
class Pair:
    """Two versions that were compared; a digest says which model a number stood for."""

    model: str
    live: int
    live_digest: str
    candidate: int
    candidate_digest: str


@dataclass(frozen=True)
class Drift:
    """What was compared of one pair; two of them add up.

    recordings: that were compared. failed: those that were not, by reason.
    agreement: over their frames; the live version is the reference.
    live_seconds, candidate_seconds: that their requests took at Triton, in all.
    """

    recordings: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    agreement: Agreement = field(default_factory=Agreement)
    live_seconds: float = 0.0
    candidate_seconds: float = 0.0

    def __add__(self, more: "Drift") -> "Drift":
        return Drift(
            self.recordings + more.recordings,
            self.failed + more.failed,
            self.agreement + more.agreement,
            self.live_seconds + more.live_seconds,
            self.candidate_seconds + more.candidate_seconds,
        )

    @classmethod
    def of_failure(cls, reason: str) -> "Drift":
        """Return what a recording says that could not be compared."""
        return cls(failed=Counter([reason]))

    @property
    def boxes(self) -> int:
        """Boxes that the agreement rests on: of the version that found more."""
        return max(self.agreement.reference_boxes, self.agreement.other_boxes)

    @property
    def failed_share(self) -> float:
        """Share of the comparisons that failed."""
        failed = self.failed.total()
        return failed / (failed + self.recordings) if failed else 0.0

    @property
    def live_seconds_per_frame(self) -> float | None:
        """Mean time of the live version at Triton; None without frames."""
        return self.live_seconds / self.agreement.frames if self.agreement.frames else None

    @property
    def candidate_seconds_per_frame(self) -> float | None:
        """Mean time of the candidate at Triton; None without frames."""
        return self.candidate_seconds / self.agreement.frames if self.agreement.frames else None

    def labels(self) -> dict[str, tuple[int, int]]:
        """Boxes of each label: of the live version and of the candidate, most first."""
        ours, theirs = self.agreement.reference_labels, self.agreement.other_labels
        return {label: (ours[label], theirs[label]) for label, _ in (ours + theirs).most_common()}

    def to_dict(self) -> dict[str, object]:
        """Return the figures under names that say their units."""
        return {
            "recordings": self.recordings,
            "failed": dict(self.failed),
            "frames": self.agreement.frames,
            "live_boxes": self.agreement.reference_boxes,
            "candidate_boxes": self.agreement.other_boxes,
            "matched": self.agreement.matched,
            "agreement": self.agreement.agreement,
            "recall": self.agreement.recall,
            "precision": self.agreement.precision,
            "mean_iou": self.agreement.mean_iou,
            "score_drift": self.agreement.score_drift,
            "labels": {label: list(counts) for label, counts in self.labels().items()},
            "live_seconds_per_frame": self.live_seconds_per_frame,
            "candidate_seconds_per_frame": self.candidate_seconds_per_frame,
        }


def of_comparison(comparison: Comparison) -> Drift:
    """Return what one recording says."""
    if comparison.failed is not None:
        return Drift.of_failure(comparison.failed)
    return Drift(1, Counter(), comparison.agreement, comparison.live.seconds, comparison.candidate.seconds)


def aggregate(comparisons: Iterable[Comparison]) -> dict[Pair, Drift]:
    """Add up comparisons by pair of versions; of those with one id the last counts, the rest are replays."""
    last = {comparison.id: comparison for comparison in comparisons}
    drifts: dict[Pair, Drift] = {}
    for comparison in last.values():
        pair = _pair(comparison.model, comparison.live, comparison.candidate)
        drifts[pair] = drifts.get(pair, Drift()) + of_comparison(comparison)
    return drifts


def verdict(drift: Drift, least_agreement: float, least_boxes: int) -> tuple[bool, str]:
    """Say whether two versions agree well enough, and the figures for it in one sentence."""
    agreement = drift.agreement.agreement
    figures = (
        f"{'no agreement yet' if agreement is None else f'an agreement of {agreement:.3f}'} "
        f"over {drift.boxes} boxes in {drift.recordings} recordings"
    )
    if drift.failed_share > MAX_FAILED_SHARE:
        reasons = ", ".join(f"{count} {reason}" for reason, count in drift.failed.most_common())
        return False, f"{figures}, but {drift.failed_share:.0%} of the comparisons failed ({reasons})"
    if drift.boxes < least_boxes:
        return False, f"{figures}, and it takes {least_boxes} boxes to tell"
    if agreement is None or not agreement >= least_agreement:  # which NaN is not
        return False, f"{figures}, and {least_agreement:g} is asked for"
    return True, figures


def _pair(model: str, live: Side, candidate: Side) -> Pair:
    return Pair(model, live.version, live.digest, candidate.version, candidate.digest)
