"""Comparisons cross processes and Kafka as JSON, and add up to what an offline comparison would say."""

import json
from dataclasses import replace

import pytest

from consumer.agreement import compare_frame, total
from consumer.analysis import Analysis, Detection
from consumer.comparison import Comparison, Side, Trial, comparison_id
from consumer.contract import ModelVersion
from consumer.report import Costs, Report
from consumer.rollout import Candidate, Rollout

COMPARISON = Comparison(
    id="5e1f",
    source="storj",
    key="youruser/Zürich.mp4",
    mode="canary",
    generation=4,
    model="yolo",
    live=Side(1, "sha256:a", boxes=4, labels={"car": 3, "person": 1, "bench": 2}, seconds=0.25),
    candidate=Side(2, "sha256:b", boxes=3, labels={"car": 3}, seconds=0.125),
    frames=5,
    matched=3,
    iou_sum=2.75,
    score_drift_sum=0.125,
)


def box(label: str, score: float, *corners: float) -> Detection:
    x1, y1, x2, y2 = corners
    return Detection(label, score, (x1, y1, x2, y2))


def test_a_comparison_comes_back_as_it_was() -> None:
    assert Comparison.from_json(COMPARISON.to_json()) == COMPARISON
    failed = replace(COMPARISON, failed="timeout")
    assert Comparison.from_json(failed.to_message().value) == failed


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        "{}",
        COMPARISON.to_json().replace("canary", "mirror"),
        COMPARISON.to_json().replace('"matched":3', '"matched":Infinity'),
        '{"id": 1, "live": 3}',
    ],
)
def test_what_is_no_comparison_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Comparison.from_json(broken)


def test_a_report_carries_the_trial() -> None:
    rollout = Rollout(4, 1, candidate=Candidate(2, "canary", 20.0))
    for trial in (Trial(rollout, COMPARISON), Trial(rollout)):
        sent = Report(Analysis("done"), Costs(), trial)
        assert Report.from_json(sent.to_json()) == sent


def test_its_counts_add_up_as_those_of_an_offline_comparison() -> None:
    looks = [
        ([box("car", 0.9, 0, 0, 10, 10), box("dog", 0.5, 0, 0, 5, 5)], [box("car", 0.8, 0, 0, 10, 10)]),
        ([box("car", 0.9, 0, 0, 10, 10)], [box("car", 0.7, 0, 0, 10, 5), box("cat", 0.9, 0, 0, 9, 9)]),
    ]
    offline = total(compare_frame(live, other, {"car"}) for live, other in looks)
    assert (offline.reference_boxes, offline.other_boxes, offline.matched) == (2, 2, 2)
    assert offline.iou_sum == pytest.approx(1.5)
    online = replace(
        COMPARISON,
        live=Side(1, "a", offline.reference_boxes, offline.reference_labels),
        candidate=Side(2, "b", offline.other_boxes, offline.other_labels),
        frames=offline.frames,
        matched=offline.matched,
        iou_sum=offline.iou_sum,
        score_drift_sum=offline.score_drift_sum,
    )
    back = Comparison.from_json(online.to_json())
    assert back.agreement == offline
    assert total([back.agreement, back.agreement]).matched == 4


def test_a_replay_has_the_same_id_and_another_trial_another_one() -> None:
    one, two, three = (ModelVersion(str(n), ("car",), f"sha256:{n}") for n in (1, 2, 3))
    first = comparison_id("storj", "a.mp4", 4, one, two)
    assert first == comparison_id("storj", "a.mp4", 4, one, two)
    others = {
        comparison_id("minio", "a.mp4", 4, one, two),
        comparison_id("storj", "b.mp4", 4, one, two),
        comparison_id("storj", "a.mp4", 5, one, two),
        comparison_id("storj", "a.mp4", 4, one, three),
    }
    assert len(others | {first}) == 5


def test_the_message_is_keyed_by_the_id() -> None:
    message = COMPARISON.to_message()
    assert message.key == b"5e1f"
    assert json.loads(message.value)["key"] == "youruser/Zürich.mp4"
