"""The gate of a plan: it must find what ONNX Runtime finds with the same model on the same frames.

The model itself was judged against its source when it was exported (modelops/gate.py), by the same rule.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnxruntime

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError
from consumer.frames import NetworkFrame
from modelops.config_pbtxt import Served
from modelops.gate import NEEDED_BOXES, Tally, compare, figures, found_in
from modelops.golden import GoldenSet
from modelops.plan_trial import Ask
from modelops.provenance import GateReport

_SANE = 0.8
"""Recall and precision that batches of one size need; they hold few boxes, so a single miss is let pass."""


def judge(
    golden: GoldenSet,
    model: bytes,
    ask: Ask,
    *,
    served: Served,
    labels: Sequence[str],
    threshold: float,
    needed_boxes: int = NEEDED_BOXES,
    say: Callable[[str], None] = lambda _: None,
) -> GateReport:
    """Replay the golden set through a trial and through plain ONNX Runtime, until there are boxes enough.

    Args:
        golden: the pictures.
        model: the ONNX file that the plan was made of.
        ask: the trial, in batches of 1, 2, 4 ... frames up to the most.
        served: size of the frames, how pictures are brought to it, and the largest batch.
        labels: of the classes.
        threshold: recall and precision that are needed.
        needed_boxes: of ONNX Runtime; the round in which they are reached is the last one.
        say: takes a line about how far it is.

    Raises:
        SetupError: a golden file cannot be read, or the trial does not answer, or answers nonsense for
            batches of one size.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    tallies: defaultdict[int, Tally] = defaultdict(Tally)
    shuffle, before = random.Random(0), -1  # noqa: S311 - no secret
    for pictures in golden.rounds():
        frames = [
            picture.network_frame(height=served.height, width=served.width, resize=served.resize)
            for picture in pictures
        ]
        shuffle.shuffle(frames)  # neighbours in a clip look alike: mixed up, they would not show
        for batch in _batches(frames, max(1, served.max_batch_size)):
            answers = ask(np.stack([frame.i420 for frame in batch]))
            for frame, rows in zip(batch, answers, strict=True):
                expected = session.run(None, {INPUT_NAME: frame.i420[np.newaxis]})[0][0]
                tallies[len(batch)] += compare(
                    found_in(expected, frame, labels, served.nms_in_graph),
                    found_in(rows, frame, labels, served.nms_in_graph),
                    labels,
                )
        report = _total(tallies).report(threshold, needed_boxes=needed_boxes)
        say(f"{report.boxes} of {needed_boxes} boxes in {report.frames} pictures")
        if report.enough_boxes or report.frames == before:
            break
        before = report.frames
    _check_sizes(tallies)
    return _total(tallies).report(threshold, needed_boxes=needed_boxes)


def _batches(frames: Sequence[NetworkFrame], most: int) -> Iterator[Sequence[NetworkFrame]]:
    """Cut into batches of 1, 2, 4 ... and the most, again and again: a plan may err at one size alone."""
    first, size = 0, 1
    while first < len(frames):
        yield frames[first : first + size]
        first, size = first + size, 1 if size == most else min(2 * size, most)


def _check_sizes(tallies: Mapping[int, Tally]) -> None:
    for size, tally in sorted(tallies.items()):
        for found in (tally.forward, tally.backward):
            missed = found.reference_boxes - found.matched
            if missed > 1 and missed > (1 - _SANE) * found.reference_boxes:
                raise SetupError(
                    f"The plan answers batches of {size} wrongly: {figures(tally.report(_SANE))}. Nothing is "
                    "written: the network does not keep a batch's frames apart, or TensorRT has a fault."
                )


def _total(tallies: Mapping[int, Tally]) -> Tally:
    return sum(tallies.values(), Tally())
