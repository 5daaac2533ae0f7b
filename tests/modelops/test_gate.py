"""The accuracy gate: what passes, what does not, and by which rule."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from consumer.analysis import Detection
from consumer.detections import Detections
from consumer.errors import SetupError
from modelops import gate
from modelops.coco import COCO_LABELS
from modelops.golden import GoldenSet, pictures_in
from modelops.provenance import GateReport, Precision
from tests.modelops.golden_material import noise, write_photo

LABELS = ("person", "car")


class Finds:
    """A source model that finds the same in every picture."""

    def __init__(self, *scores: float) -> None:
        self._scores = np.array(scores, np.float32)
        self.asked = 0

    def detect(
        self, picture_bgr: npt.NDArray[np.uint8], *, score_threshold: float, nms_iou: float | None
    ) -> Detections:
        """Return one box per score, side by side."""
        self.asked += 1
        scores = self._scores[self._scores >= score_threshold]
        left = np.arange(len(scores), dtype=np.float32) * 10
        boxes = np.stack([left, np.zeros_like(left), left + 8, np.full_like(left, 8)], axis=1)
        return Detections(boxes, scores, np.zeros(len(scores), np.int64))


def person(score: float, *, left: float = 0.0, label: str = "person") -> Detection:
    return Detection(label, score, (left, 0.0, left + 10.0, 20.0))


def replay(golden: GoldenSet, source: gate.Source, needed_boxes: int = 300) -> gate.Replay:
    """Replay against a model that answers nothing."""
    return gate.replay(
        golden,
        source,
        {"nothing": lambda frames: np.zeros((len(frames), 4, 6), np.float32)},
        height=64,
        width=96,
        resize="letterbox",
        nms_in_graph=False,
        labels=LABELS,
        needed_boxes=needed_boxes,
    )


def photos(directory: Path, count: int) -> GoldenSet:
    for n in range(count):
        write_photo(directory / f"{n:03d}.png", noise(n))
    return pictures_in(directory)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_finds_what_the_source_finds(
    crowd_reports: dict[str, GateReport], precision: Precision
) -> None:
    report = crowd_reports[precision]
    print(precision, gate.figures(report))  # noqa: T201 - the figures of docs/models.md
    assert report.boxes >= gate.NEEDED_BOXES
    assert report.passed, gate.complaint(report)
    assert report.fair.mean_iou is not None
    assert report.fair.mean_iou > 0.9


def test_fp16_costs_next_to_nothing(crowd_reports: dict[str, GateReport]) -> None:
    drifts = [crowd_reports[precision].fair.score_drift for precision in ("fp32", "fp16")]
    assert drifts[0] is not None
    assert drifts[1] is not None
    assert drifts[1] - drifts[0] < 0.002


def test_a_model_with_other_colours_than_its_source_does_not_pass(
    crowd_reports: dict[str, GateReport],
) -> None:
    report = crowd_reports["colours swapped"]
    assert not report.passed
    assert "does not pass the accuracy gate: recall 0." in gate.complaint(report)


def test_a_score_that_slips_below_the_threshold_is_no_lost_box() -> None:
    found = gate.compare([person(0.351)], [person(0.349)], LABELS).report(0.98, needed_boxes=1)
    assert (found.fair.recall, found.boxes) == (1.0, 1)
    assert found.strict.recall == 0.0

    found = gate.compare([person(0.349)], [person(0.351)], LABELS).report(0.98, needed_boxes=1)
    assert found.fair.precision == 1.0
    assert found.strict.precision == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([], id="nothing"),
        pytest.param([person(0.9, left=6.0)], id="elsewhere"),
        pytest.param([person(0.9, label="car")], id="another label"),
    ],
)
def test_a_box_that_is_not_found_is_lost_however_it_scored(answer: list[Detection]) -> None:
    found = gate.compare([person(0.351)], answer, LABELS).report(0.98, needed_boxes=1)

    assert found.fair.recall == 0.0
    assert not found.passed


def test_an_invented_box_costs_precision_and_one_below_the_threshold_does_not() -> None:
    for score, precision in ((0.36, 0.5), (0.34, 1.0)):
        tally = gate.compare([person(0.9)], [person(0.9), person(score, left=50.0)], LABELS)
        found = tally.report(0.98, needed_boxes=1)
        assert (found.fair.recall, found.fair.precision) == (1.0, precision)


def test_one_box_is_the_partner_of_one_box_only() -> None:
    tally = gate.compare([person(0.9), person(0.8, left=1.0)], [person(0.9)], LABELS)

    assert tally.report(0.98).fair.recall == 0.5


def test_a_replay_ends_with_the_round_that_has_boxes_enough(tmp_path: Path) -> None:
    source = Finds(0.9, 0.8, 0.31)  # two questions, and one that may only be a partner
    golden = photos(tmp_path, 250)

    report = replay(golden, source, needed_boxes=201).tallies["nothing"].report(0.98, needed_boxes=201)
    assert (report.frames, report.boxes) == (200, 400)
    assert (report.fair.recall, report.fair.precision) == (0.0, None)
    assert source.asked == 200


def test_too_few_boxes_prove_nothing_and_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    replayed = replay(photos(tmp_path, 5), Finds(0.9))
    report = replayed.tallies["nothing"].report(0.98)

    assert (report.frames, report.boxes, report.passed) == (5, 5, False)
    assert gate.complaint(report) == (
        "The exported model does not pass the accuracy gate: 300 boxes are needed, and what the source "
        "model finds in the golden set is 5 (pictures: 5). Nothing was published; give more pictures of what "
        "it knows with --golden DIR, or publish it all the same with --force."
    )


def test_a_source_that_finds_nothing_ends_the_replay_after_one_round(tmp_path: Path) -> None:
    source = Finds()
    report = replay(photos(tmp_path, 120), source).tallies["nothing"].report(0.98)

    assert source.asked == 100
    assert "the source model finds nothing in the 100 pictures of the golden set" in gate.complaint(report)
    assert "look at --colour, --scale and --resize" in gate.complaint(report)


def test_an_empty_golden_set_is_answered_in_one_sentence() -> None:
    with pytest.raises(SetupError, match="The golden set holds no picture"):
        replay(GoldenSet(), Finds(0.9))


def test_the_picture_to_show_is_the_one_with_most_labels(tmp_path: Path) -> None:
    class Dog(Finds):
        """Finds a second label in one picture."""

        def detect(self, picture_bgr: npt.NDArray[np.uint8], **given: object) -> Detections:
            found = super().detect(picture_bgr, score_threshold=0.3, nms_iou=None)
            classes = np.arange(2) if self.asked == 3 else np.zeros(2)
            return Detections(found.boxes_xyxy, found.scores, classes.astype(np.int64))

    assert replay(photos(tmp_path, 5), Dog(0.9, 0.8)).best.picture.name == "002.png"


def test_the_thresholds_are_those_of_the_documents() -> None:
    assert gate.THRESHOLDS == {"fp32": 0.98, "fp16": 0.98, "int8": 0.95}
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for number in (
        "0.98",
        "0.95",
        f"{gate.NEEDED_BOXES} boxes",
        f"{gate.SCORE}",
        f"{gate.PARTNER_SCORE:.2f}",
    ):
        assert number in text


def test_labels_are_those_of_the_model() -> None:
    found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([2]))
    (named,) = gate.named(found, COCO_LABELS)
    assert named.label == "car"
