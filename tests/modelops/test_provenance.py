"""provenance.json: everything that is known about a version survives the way through the file."""

import json
from dataclasses import replace

import pytest

from modelops.provenance import Figures, File, GateReport, Plan, Provenance

GATE = GateReport(
    frames=500,
    boxes=362,
    needed_boxes=300,
    score=0.35,
    partner_score=0.3,
    threshold=0.98,
    fair=Figures(1.0, 0.99, 0.98, 0.005),
    strict=Figures(0.97, 0.96, 0.98, 0.005),
)
PROVENANCE = Provenance(
    source=File("best.onnx", "sha256:1", 10),
    graph=File("model.onnx", "sha256:2", 20),
    layout="yolox",
    classes=3,
    labels=3,
    height=384,
    width=640,
    max_detections=1000,
    precision="int8",
    options={"colour": "bgr"},
    golden=(File("dog.jpg", "sha256:3", 30),),
    calibration=(File("clip.mp4", "sha256:4", 40),),
    gate=GATE,
    forced=True,
    checked_by="TensorRT-RTX 1.7",
    kept_fp32=("Conv_1",),
    tools={"onnx": "1.23.2"},
    created="2026-11-23T22:02:25+00:00",
    plans=(Plan(File("model_cc89.plan", "sha256:5", 50), "NVIDIA L4", "8.9", "11.0", "600.1", gate=GATE),),
)


def test_what_was_written_is_read() -> None:
    assert Provenance.from_json(PROVENANCE.to_json()) == PROVENANCE
    skipped = replace(PROVENANCE, gate=None, gate_skipped="a model of the catalogue", plans=(), forced=False)
    assert Provenance.from_json(skipped.to_json()) == skipped


def test_what_a_later_version_adds_does_no_harm() -> None:
    written = json.loads(PROVENANCE.to_json())
    for part in (written, written["source"], written["gate"], written["gate"]["fair"], written["plans"][0]):
        part["tomorrow"] = {"more": 1}

    assert Provenance.from_json(json.dumps(written)) == PROVENANCE


@pytest.mark.parametrize("text", ["{}", "[]", "null", "1", "torn", '{"source": 1, "graph": 2}'])
def test_what_is_no_provenance_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Provenance.from_json(text)


@pytest.mark.parametrize(
    ("fair", "boxes", "passed"),
    [
        pytest.param(Figures(0.98, 0.98, 1.0, 0.0), 300, True, id="just enough"),
        pytest.param(Figures(0.979, 1.0, 1.0, 0.0), 300, False, id="recall"),
        pytest.param(Figures(1.0, 0.979, 1.0, 0.0), 300, False, id="precision"),
        pytest.param(Figures(1.0, 1.0, 1.0, 0.0), 299, False, id="boxes"),
        pytest.param(Figures(1.0, None, None, None), 300, False, id="nothing found"),
    ],
)
def test_recall_precision_and_the_number_of_boxes_decide(fair: Figures, boxes: int, passed: bool) -> None:
    assert replace(GATE, fair=fair, boxes=boxes).passed is passed
