"""What the comparisons of many recordings say together, and whether that is enough to promote."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from consumer.comparison import Comparison, Side
from consumer.connection import KafkaConnection
from consumer.errors import SetupError
from consumer.topics import produce
from modelops import comparisons
from modelops.drift import Drift, Pair, aggregate, verdict
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic

PAIR = Pair("yolo", 1, "sha256:1", 2, "sha256:2")
ONE = Comparison(
    id="a", source="cam", key="a.mp4", mode="shadow", generation=3, model="yolo",
    live=Side(1, "sha256:1", boxes=10, labels={"person": 6, "dog": 6}, seconds=0.4),
    candidate=Side(2, "sha256:2", boxes=8, labels={"person": 8}, seconds=0.2),
    frames=2, matched=8, iou_sum=7.2, score_drift_sum=0.4,
)  # fmt: skip


def test_recordings_add_up_by_the_pair_that_was_compared() -> None:
    other = replace(ONE, id="c", candidate=replace(ONE.candidate, digest="sha256:another"))
    drifts = aggregate([ONE, replace(ONE, id="b", generation=4), other])
    drift = drifts[PAIR]
    assert (drift.recordings, drift.agreement.matched, drift.boxes) == (2, 16, 20)
    assert drift.agreement.agreement == pytest.approx(2 * 16 / 36)
    assert drift.labels() == {"person": (12, 16), "dog": (12, 0)}
    assert drift.live_seconds_per_frame == pytest.approx(0.2)
    assert drift.candidate_seconds_per_frame == pytest.approx(0.1)
    assert [each.candidate_digest for each in drifts] == ["sha256:2", "sha256:another"]


def test_a_recording_that_was_replayed_counts_once() -> None:
    failed = replace(ONE, failed="timeout", matched=0)
    assert aggregate([failed, ONE, ONE])[PAIR].recordings == 1


def drift(boxes: int, matched: int, failed: int = 0) -> Drift:
    compared = replace(
        ONE,
        matched=matched,
        live=replace(ONE.live, boxes=boxes),
        candidate=replace(ONE.candidate, boxes=boxes),
    )
    return aggregate([compared])[PAIR] + Drift(9, Counter({"behind": failed}))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (drift(300, 286), ""),
        (drift(300, 284), "an agreement of 0.947 over 300 boxes in 10 recordings, and 0.95 is asked for"),
        (drift(299, 299), "an agreement of 1.000 over 299 boxes in 10 recordings, and it takes 300 boxes"),
        (Drift(), "no agreement yet over 0 boxes in 0 recordings, and it takes 300 boxes to tell"),
        (drift(300, 300, failed=1), ""),
        (drift(300, 300, failed=2), "but 17% of the comparisons failed (2 behind)"),
    ],
)
def test_only_enough_boxes_that_agree_promote(found: Drift, sentence: str) -> None:
    enough, said = verdict(found, 0.95, 300)
    assert enough == (sentence == "")
    assert sentence in said


def test_an_agreement_that_is_no_number_promotes_nothing() -> None:
    assert not verdict(drift(300, 300), float("nan"), 300)[0]


def test_the_diff_topic_is_read_to_its_end_from_all_partitions(kafka: KafkaBroker) -> None:
    topic = create_topic(kafka.bootstrap, "comparisons", 3)
    values: list[bytes | None] = [replace(ONE, id=str(n)).to_json().encode() for n in range(50)]
    for partition in range(2):  # the third stays empty
        produce(kafka.bootstrap, topic, [*values[partition::2], b"no comparison", None], partition=partition)
    connection = KafkaConnection(kafka.bootstrap)
    read = list(comparisons.read(connection, topic))
    assert sorted(int(each.id) for each in read) == list(range(50))


def test_only_the_time_that_is_asked_for_is_read(kafka: KafkaBroker) -> None:
    topic = create_topic(kafka.bootstrap, "comparisons")
    produce(kafka.bootstrap, topic, [ONE.to_json().encode()])
    connection, now = KafkaConnection(kafka.bootstrap), datetime.now(UTC)
    assert len(list(comparisons.read(connection, topic, since=now - timedelta(hours=1)))) == 1
    assert list(comparisons.read(connection, topic, since=now + timedelta(hours=1))) == []


def test_a_diff_topic_that_nobody_wrote_is_said(kafka: KafkaBroker) -> None:
    with pytest.raises(SetupError, match="There is no topic never-written: a consumer writes it once"):
        list(comparisons.read(KafkaConnection(kafka.bootstrap), "never-written"))
