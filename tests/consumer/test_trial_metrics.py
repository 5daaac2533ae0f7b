"""What /metrics promises of a rollout: its state, its share, and how far its versions agree."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.analysis import Analysis
from consumer.comparison import Comparison, Side
from consumer.metrics import Metrics
from consumer.rollout import Candidate, Rollout
from consumer.trial_metrics import MODES, MOST_LABELS, ROLES

COMPARISON = Comparison(
    id="5e1f",
    source="storj",
    key="a.mp4",
    mode="canary",
    generation=4,
    model="yolo",
    live=Side(1, "sha256:a", boxes=4, labels={"car": 3, "traffic light": 1}, seconds=0.25),
    candidate=Side(2, "sha256:b", boxes=3, labels={"car": 3}, seconds=0.125),
    frames=5,
    matched=3,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def samples(metrics: Metrics, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return every sample of a name by its sorted labels."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return samples(metrics, name)[tuple(sorted(labels.items()))]


def test_a_comparison_is_counted_under_the_names_that_the_documents_use(metrics: Metrics) -> None:
    metrics.trials.compared(COMPARISON)
    assert value(metrics, "vault_ml_comparisons_total", mode="canary") == 1
    for what, boxes in (("matched", 3), ("live", 4), ("candidate", 3)):
        assert value(metrics, "vault_ml_comparison_boxes_total", what=what) == boxes
    assert value(metrics, "vault_ml_comparison_labels_total", role="live", label="car") == 3
    assert value(metrics, "vault_ml_comparison_labels_total", role="live", label="traffic light") == 1
    assert value(metrics, "vault_ml_comparison_seconds_sum", role="candidate") == 0.125


def test_a_comparison_that_failed_counts_as_that_alone(metrics: Metrics) -> None:
    metrics.trials.compared(replace(COMPARISON, failed="timeout"))
    assert value(metrics, "vault_ml_comparisons_failed_total", reason="timeout") == 1
    assert value(metrics, "vault_ml_comparisons_total", mode="canary") == 0
    assert value(metrics, "vault_ml_comparison_boxes_total", what="live") == 0


def test_the_rollout_is_shown_as_it_is_and_only_so(metrics: Metrics) -> None:
    metrics.trials.rollout(Rollout(4, 1, previous=7, candidate=Candidate(2, "canary", 12.5)))
    metrics.trials.rollout(Rollout(5, 2, previous=1))
    assert value(metrics, "vault_ml_rollout_generation") == 5
    nothing = {"candidate": "", "mode": "", "percent": ""}
    assert samples(metrics, "vault_ml_rollout_info") == {
        tuple(sorted({"live": "2", "previous": "1", **nothing}.items())): 1
    }


def test_recordings_are_counted_by_the_version_that_answered(metrics: Metrics) -> None:
    answered = Analysis("done", model_name="yolo", model_version="2", model_digest="sha256:b")
    metrics.looked_at(answered)
    metrics.looked_at(answered)
    metrics.looked_at(replace(answered, model_version="1"))
    assert value(metrics, "vault_ml_model_recordings_total", version="2") == 2
    assert value(metrics, "vault_ml_model_recordings_total", version="1") == 1


def test_the_usual_series_exist_before_the_first_comparison(metrics: Metrics) -> None:
    assert [value(metrics, "vault_ml_comparisons_total", mode=mode) for mode in MODES] == [0, 0]
    assert [value(metrics, "vault_ml_comparison_seconds_count", role=role) for role in ROLES] == [0, 0]


def test_however_many_labels_a_model_has_the_series_stay_few(metrics: Metrics) -> None:
    labels = {f"class {number}": 1 for number in range(10 * MOST_LABELS)}
    metrics.trials.compared(replace(COMPARISON, live=replace(COMPARISON.live, labels=labels)))
    series = samples(metrics, "vault_ml_comparison_labels_total")
    assert len(series) <= len(ROLES) * (MOST_LABELS + 1)
    assert sum(series.values()) == len(labels) + 3, "what has no series of its own counts as `other`"
