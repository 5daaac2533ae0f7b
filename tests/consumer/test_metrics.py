"""What /metrics promises to dashboards and alerts."""

import re
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.analysis import Analysis
from consumer.label_values import MOST_VALUES_PER_LABEL
from consumer.metrics import FRAME_FATES, PARTS, STAGES, Metrics

LAG, EXPIRES = "vault_ml_lag", "vault_ml_oldest_event_expires_seconds"
ANALYSIS = Analysis(
    outcome="done",
    model_name="yolo",
    model_version="3",
    model_digest="sha256:abc",
    ledger={
        "packets": 300,
        "decoded": 8,
        "not_needed": 291,
        "undecodable": 1,
        "inferred": 5,
        "not_sampled": 2,
        "dropped": {"too_small": 1},
    },
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample as a scraper reads it: by name and sorted labels."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def everything_happened(metrics: Metrics) -> None:
    metrics.recording_finished("done", "", dict.fromkeys(STAGES, 0.5))
    metrics.recording_finished("skipped", "ondemand")
    metrics.recording_finished("dead-letter", "undecodable", {"download": 2.0})
    metrics.looked_at(ANALYSIS)
    metrics.downloaded(1_000)
    metrics.retried("unavailable")
    metrics.worker_replaced("worker_died")
    metrics.given_back(2)
    metrics.in_flight(3)
    metrics.lag({("recordings", 0): 7})
    metrics.outage("triton", True)


def test_every_event_is_counted_under_the_name_that_the_documents_use(metrics: Metrics) -> None:
    everything_happened(metrics)
    assert value(metrics, "vault_ml_recordings_total", outcome="done", reason="") == 1
    assert value(metrics, "vault_ml_recordings_total", outcome="skipped", reason="ondemand") == 1
    assert value(metrics, "vault_ml_recordings_total", outcome="dead-letter", reason="undecodable") == 1
    assert value(metrics, "vault_ml_dead_letters_total", reason="undecodable") == 1
    assert value(metrics, "vault_ml_stage_seconds_count", stage="download") == 2
    assert value(metrics, "vault_ml_stage_seconds_sum", stage="download") == 2.5
    assert value(metrics, "vault_ml_stage_seconds_count", stage="deliver") == 1
    assert value(metrics, "vault_ml_frames_total", what="inferred") == 5
    assert value(metrics, "vault_ml_frames_total", what="dropped") == 1
    assert value(metrics, "vault_ml_frames_total", what="not_needed") == 291
    assert value(metrics, "vault_ml_bytes_total") == 1_000
    assert value(metrics, "vault_ml_retries_total", reason="unavailable") == 1
    assert value(metrics, "vault_ml_worker_restarts_total", reason="worker_died") == 1
    assert value(metrics, "vault_ml_given_back_total") == 2
    assert value(metrics, "vault_ml_in_flight") == 3
    assert value(metrics, "vault_ml_lag", topic="recordings", partition="0") == 7
    assert value(metrics, "vault_ml_outage", part="triton") == 1
    assert value(metrics, "vault_ml_model_info", name="yolo", version="3", digest="sha256:abc") == 1


def test_the_process_itself_is_measured(metrics: Metrics) -> None:
    assert value(metrics, "process_resident_memory_bytes") > 0
    assert value(metrics, "process_cpu_seconds_total") > 0


def test_series_of_the_usual_events_exist_before_the_first_one(metrics: Metrics) -> None:
    assert value(metrics, "vault_ml_recordings_total", outcome="done", reason="") == 0
    assert [value(metrics, "vault_ml_outage", part=part) for part in PARTS] == [0] * len(PARTS)
    assert [value(metrics, "vault_ml_frames_total", what=fate) for fate in FRAME_FATES] == [0] * len(
        FRAME_FATES
    )
    assert [value(metrics, "vault_ml_stage_seconds_count", stage=stage) for stage in STAGES] == [0] * len(
        STAGES
    )


def test_every_reason_of_a_dead_letter_or_a_retry_exists_before_the_first_one(metrics: Metrics) -> None:
    for reason in ("malformed", "undecodable", "wrong_key", "message_too_large", "retry_exhausted"):
        assert value(metrics, "vault_ml_dead_letters_total", reason=reason) == 0
    for reason in ("unavailable", "worker_died", "model_changed", "triton_full", "unforeseen"):
        assert value(metrics, "vault_ml_retries_total", reason=reason) == 0
    before = set(samples(metrics))
    metrics.retried("pod_died")
    metrics.recording_finished("done")
    assert set(samples(metrics)) == before


def test_a_pod_that_begins_anew_shows_nothing_of_what_it_held(metrics: Metrics) -> None:
    everything_happened(metrics)
    metrics.held(5, 1_000)
    metrics.oldest_event_expires({"recordings": 60.0})
    metrics.holds_nothing()
    assert not [name for name, _ in samples(metrics) if name in (LAG, EXPIRES)]
    assert [value(metrics, "vault_ml_outage", part=part) for part in PARTS] == [0] * len(PARTS)
    assert value(metrics, "vault_ml_in_flight") == 0
    assert value(metrics, "vault_ml_held") == value(metrics, "vault_ml_held_bytes") == 0
    metrics.lag({("recordings", 1): 2})
    assert value(metrics, LAG, topic="recordings", partition="1") == 2


def test_names_keep_the_rules_of_prometheus(metrics: Metrics) -> None:
    everything_happened(metrics)
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    own = [family for family in families if not family.name.endswith("_created")]
    for family in own:
        assert re.fullmatch(r"(vault_ml|process)_[a-z_]+", family.name)
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", family.name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}
        else:
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
    assert len({family.name for family in own}) == len(own)


def test_the_model_that_answered_last_is_the_one_in_use(metrics: Metrics) -> None:
    metrics.looked_at(ANALYSIS)
    metrics.looked_at(replace(ANALYSIS, model_version="4", model_digest="sha256:def"))
    series = [labels for name, labels in samples(metrics) if name == "vault_ml_model_info"]
    assert series == [(("digest", "sha256:def"), ("name", "yolo"), ("version", "4"))]


def test_a_recording_that_nobody_looked_at_counts_no_frames(metrics: Metrics) -> None:
    before = samples(metrics)
    metrics.looked_at(Analysis.skipped("ondemand"))
    after = samples(metrics)
    assert {key: each for key, each in after.items() if key[0].startswith("vault_ml")} == {
        key: each for key, each in before.items() if key[0].startswith("vault_ml")
    }


def test_a_partition_that_went_to_another_pod_has_no_lag_here(metrics: Metrics) -> None:
    metrics.lag({("recordings", 0): 7, ("recordings", 1): 1})
    metrics.lag({("recordings", 1): 0})
    assert [labels for name, labels in samples(metrics) if name == "vault_ml_lag"] == [
        (("partition", "1"), ("topic", "recordings"))
    ]


def test_an_outage_ends(metrics: Metrics) -> None:
    metrics.outage("vault", True)
    metrics.outage("vault", False)
    assert value(metrics, "vault_ml_outage", part="vault") == 0


def test_however_many_reasons_there_are_the_series_stay_few(metrics: Metrics) -> None:
    for number in range(10 * MOST_VALUES_PER_LABEL):
        metrics.recording_finished("dead-letter", f"reason_{number}")
        metrics.retried(f"reason_{number}")
    metrics.recording_finished("dead-letter", "A sentence with the key of a recording: x.mp4")
    for name in ("vault_ml_recordings_total", "vault_ml_dead_letters_total", "vault_ml_retries_total"):
        series = {
            labels: each for (series_name, labels), each in samples(metrics).items() if series_name == name
        }
        assert len(series) <= MOST_VALUES_PER_LABEL + 4
        assert sum(each for labels, each in series.items() if ("reason", "other") in labels) > 0
        assert not any("sentence" in str(labels) for labels in series)


def test_an_unknown_stage_or_fate_makes_no_new_series(metrics: Metrics) -> None:
    before = set(samples(metrics))
    metrics.recording_finished("done", "", {"lunch": 1.0})
    metrics.looked_at(replace(ANALYSIS, model_version="", ledger={"invented": 1}))
    assert set(samples(metrics)) == before


def test_two_pods_in_one_process_do_not_share_series(metrics: Metrics) -> None:
    other = Metrics(CollectorRegistry())
    other.worker_replaced("worker_died")
    assert value(metrics, "vault_ml_worker_restarts_total", reason="worker_died") == 0
