"""The accuracy gate: an exported model must find on the golden set what its source finds.

The rule, and why. A box that scores 0.349 in one model and 0.351 in the other is the same find, but one of
them is left out by a threshold of 0.35. Counted as an error it would say more about how many objects happen
to lie near the threshold than about the model. So the questions are all boxes with a score of at least
SCORE, of the source for recall and of the answer for precision; a partner may score down to PARTNER_SCORE.
The figures without that margin are reported beside (`strict`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from consumer.agreement import Agreement, compare_frame
from consumer.analysis import Detection
from consumer.contract import Resize
from consumer.detections import Detections, from_rows
from consumer.errors import SetupError
from consumer.frames import NetworkFrame, UInt8Array
from modelops.golden import GoldenPicture, GoldenSet
from modelops.provenance import Figures, GateReport, Precision

SCORE = 0.35
PARTNER_SCORE = 0.30
NMS_IOU = 0.45
NEEDED_BOXES = 300
THRESHOLDS: Mapping[Precision, float] = {"fp32": 0.98, "fp16": 0.98, "int8": 0.95}
"""Recall and precision that a version needs."""

Answer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""Asks a model: uint8 [1, H*3/2, W] of the contract to float32 [1, K, 6]."""


class Source(Protocol):
    """The source model, run the plain way: modelops.reference.Reference."""

    def detect(self, picture_bgr: UInt8Array, *, score_threshold: float, nms_iou: float | None) -> Detections:
        """Return what it finds in a picture, in the picture's own pixels."""


@dataclass(frozen=True)
class Tally:
    """What was counted so far; tallies add up.

    forward: boxes of the source from SCORE on, looked for among those of the answer from PARTNER_SCORE on.
    backward: the same the other way round. strict: both from SCORE on.
    """

    forward: Agreement = field(default_factory=Agreement)
    backward: Agreement = field(default_factory=Agreement)
    strict: Agreement = field(default_factory=Agreement)

    def __add__(self, more: "Tally") -> "Tally":
        return Tally(self.forward + more.forward, self.backward + more.backward, self.strict + more.strict)

    def report(self, threshold: float, *, needed_boxes: int = NEEDED_BOXES) -> GateReport:
        """Return the figures, and what they are judged by."""
        return GateReport(
            frames=self.forward.frames,
            boxes=self.forward.reference_boxes,
            needed_boxes=needed_boxes,
            score=SCORE,
            partner_score=PARTNER_SCORE,
            threshold=threshold,
            fair=Figures(
                self.forward.recall,
                self.backward.recall,
                self.forward.mean_iou,
                self.forward.score_drift,
            ),
            strict=Figures(
                self.strict.recall, self.strict.precision, self.strict.mean_iou, self.strict.score_drift
            ),
        )


@dataclass(frozen=True)
class Shown:
    """A picture to show, as the network gets it, and what the source found in it."""

    picture: GoldenPicture
    frame: NetworkFrame
    found: tuple[Detection, ...]


@dataclass(frozen=True)
class Replay:
    """What a replay came to: a tally per answer, and the picture that shows most."""

    tallies: Mapping[str, Tally]
    best: Shown


def replay(
    golden: GoldenSet,
    source: Source,
    answers: Mapping[str, Answer],
    *,
    height: int,
    width: int,
    resize: Resize,
    nms_in_graph: bool,
    labels: Sequence[str],
    needed_boxes: int = NEEDED_BOXES,
    say: Callable[[str], None] = lambda _: None,
) -> Replay:
    """Ask the source model and the exported ones about the golden set, until there are boxes enough.

    Args:
        golden: the pictures.
        source: the source model.
        answers: exported models by name; all see the same frames.
        height: of the network's picture in pixels, as width.
        width: in pixels.
        resize: how pictures reach the network.
        nms_in_graph: whether rows are final.
        labels: of the classes.
        needed_boxes: of the source from SCORE on; the round in which they are reached is the last one.
        say: takes a line about how far it is.

    Raises:
        SetupError: a golden file cannot be read, or the set holds no picture.
    """
    tallies = {name: Tally() for name in answers}
    best: Shown | None = None
    boxes = frames = 0
    nms_iou = None if nms_in_graph else NMS_IOU
    for pictures in golden.rounds():
        before = frames
        for picture in pictures:
            frame = picture.network_frame(height=height, width=width, resize=resize)
            expected = named(
                source.detect(picture.bgr, score_threshold=PARTNER_SCORE, nms_iou=nms_iou), labels
            )
            for name, answer in answers.items():
                rows = answer(frame.i420[np.newaxis])[0]
                tallies[name] += compare(expected, found_in(rows, frame, labels, nms_in_graph), labels)
            frames += 1
            boxes += len(_from(expected, SCORE))
            shown = Shown(picture, frame, tuple(expected))
            if best is None or _shows(shown) > _shows(best):
                best = shown
            if frames % 10 == 0:
                say(f"{boxes} of {needed_boxes} boxes in {frames} pictures")
        if boxes >= needed_boxes or boxes == 0 or frames == before:
            break  # enough; or a whole round without a box, which is the wrong model or the wrong pictures
    if best is None:
        raise SetupError("The golden set holds no picture: give a folder with photos or clips, --golden DIR.")
    return Replay(tallies, best)


def compare(expected: Sequence[Detection], found: Sequence[Detection], labels: Collection[str]) -> Tally:
    """Compare what both found in one frame; both from PARTNER_SCORE on."""
    return Tally(
        forward=compare_frame(_from(expected, SCORE), found, labels),
        backward=compare_frame(_from(found, SCORE), expected, labels),
        strict=compare_frame(_from(expected, SCORE), _from(found, SCORE), labels),
    )


def found_in(
    rows: npt.NDArray[np.float32], frame: NetworkFrame, labels: Sequence[str], nms_in_graph: bool
) -> list[Detection]:
    """Read float32 [K, 6] rows as the consumer does, from PARTNER_SCORE on."""
    nms_iou = None if nms_in_graph else NMS_IOU
    return named(from_rows(rows, frame.placement, score_threshold=PARTNER_SCORE, nms_iou=nms_iou), labels)


def named(detections: Detections, labels: Sequence[str]) -> list[Detection]:
    """Give detections their labels."""
    found = zip(detections.boxes_xyxy, detections.scores, detections.class_indices, strict=True)
    return [
        Detection(labels[index], float(score), tuple(float(side) for side in box))  # type: ignore[arg-type]  # four sides
        for box, score, index in found
    ]


def complaint(report: GateReport) -> str:
    """Say in one sentence why a model does not pass, and what to do."""
    if not report.boxes:
        why = f"the source model finds nothing in the {report.frames} pictures of the golden set"
        todo = "give pictures of what it knows with --golden DIR, and look at --colour, --scale and --resize"
    elif not report.enough_boxes:
        why = (
            f"{report.needed_boxes} boxes are needed, and what the source model finds in the golden set is "
            f"{report.boxes} (pictures: {report.frames})"
        )
        todo = "give more pictures of what it knows with --golden DIR"
    else:
        why = f"{figures(report)}, and {report.threshold:.2f} of recall and of precision is needed"
        todo = "try another --precision"
    return (
        f"The exported model does not pass the accuracy gate: {why}. Nothing was "
        f"published; {todo}, or publish it all the same with --force."
    )


def figures(report: GateReport) -> str:
    """Say the figures that decide."""
    fair = report.fair
    if fair.recall is None and fair.precision is None:
        return f"not measured: no boxes (pictures: {report.frames})"
    return (
        f"recall {_said(fair.recall)}, precision {_said(fair.precision)}, mean IoU {_said(fair.mean_iou)}, "
        f"score drift {_said(fair.score_drift)} over {report.boxes} boxes in {report.frames} pictures"
    )


def _said(figure: float | None) -> str:
    return "none" if figure is None else f"{figure:.3f}"


def _from(found: Iterable[Detection], score: float) -> list[Detection]:
    return [each for each in found if each.score >= score]


def _shows(shown: Shown) -> tuple[int, float]:
    """How much there is to see: different labels first, then how sure."""
    sure = _from(shown.found, SCORE)
    return len({each.label for each in sure}), sum(each.score for each in sure)
