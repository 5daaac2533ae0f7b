"""A sighting: what an exported model sees in one golden picture, for people and for the self-test."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consumer.analysis import Detection
from consumer.annotate import draw, write_jpeg
from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.errors import SetupError
from modelops.answers import open_session
from modelops.gate import SCORE, Answer, found_in
from modelops.golden import GoldenAnswer, GoldenPicture
from modelops.graph import ContractGraph

_MOST_NAMED = 8


@dataclass(frozen=True)
class Sighting:
    """What was asked and answered.

    picture: None where none was at hand; the frame is then noise, in which there is nothing to see.
    found: boxes with a score of gate.SCORE or more, in pixels of the picture.
    """

    picture: GoldenPicture | None
    found: tuple[Detection, ...]
    answer: GoldenAnswer

    def __str__(self) -> str:
        if self.picture is None:
            return "no golden picture at hand"
        seen = [f"{each.label} {each.score:.2f}" for each in self.found[:_MOST_NAMED]]
        if len(self.found) > _MOST_NAMED:
            seen.append(f"{len(self.found) - _MOST_NAMED} more")
        return f"{self.picture.name}: {', '.join(seen) or 'nothing'}"

    def draw(self, file: Path) -> Path:
        """Write the picture as JPEG with the boxes in it.

        Raises:
            SetupError: there is no picture, or the file cannot be written.
        """
        if self.picture is None:
            raise SetupError("There is no golden picture to draw: give one with --golden DIR.")
        try:
            return write_jpeg(file, draw(self.picture.bgr, self.found))
        except OSError as error:
            raise SetupError(f"The picture cannot be written to {file}: {error.strerror}.") from error


def answer_of(graph: ContractGraph) -> Answer:
    """Load an exported model into ONNX Runtime on the CPU, and return how to ask it.

    Raises:
        SetupError: ONNX Runtime does not take it.
    """
    session = open_session(graph.model)

    def answer(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: frames})[0], np.float32)

    return answer


def look(
    graph: ContractGraph, answer: Answer, picture: GoldenPicture | None, labels: Sequence[str]
) -> Sighting:
    """Ask an exported model about one picture; about noise where there is none."""
    if picture is None:
        random = np.random.default_rng(0)
        frames = random.integers(0, 256, (1, graph.height * 3 // 2, graph.width), np.uint8)
        return Sighting(None, (), GoldenAnswer(frames, answer(frames)))
    frame = picture.network_frame(height=graph.height, width=graph.width, resize=graph.resize)
    rows = answer(frame.i420[np.newaxis])
    found = found_in(rows[0], frame, labels, graph.nms_in_graph)
    sure = tuple(each for each in found if each.score >= SCORE)
    return Sighting(picture, sure, GoldenAnswer(frame.i420[np.newaxis], rows))


def best(sightings: Iterable[Sighting]) -> Sighting:
    """Return the one that shows most: different labels first, then how sure."""
    return max(
        sightings, key=lambda each: (len({it.label for it in each.found}), sum(it.score for it in each.found))
    )
