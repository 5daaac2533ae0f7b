"""The yardstick: plain ONNX Runtime on the source weights, sharing no code with the contract graph's ends.

Letterbox or stretch in colour, float32, no I420; decoding in numpy. Where the file takes the wanted size it
is run untouched. Tests and gates compare `detect` with it.
"""

from copy import copy
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consumer.contract import PAD_RGB, Resize
from consumer.detections import Detections, Placement, from_rows
from modelops.answers import ask, feed, open_session, run
from modelops.graph import PixelFacts
from modelops.heads import identify
from modelops.network import at_size, load, network_inputs
from modelops.plain_decoding import DECODINGS
from modelops.suppression import without_suppression

FloatArray = npt.NDArray[np.float32]


class Reference:
    """A detector run the plain way.

    Args:
        source: its ONNX file.
        pixels: what it expects in its picture.
        height: of the network's picture in pixels, as width.
        width: of the network's picture in pixels.
        layout: of its answer, as in `--layout`; None where only one fits.

    Raises:
        SetupError: as `modelops.graph.build`.
    """

    def __init__(
        self, source: Path, pixels: PixelFacts, *, height: int, width: int, layout: str | None = None
    ) -> None:
        model = without_suppression(load(source))
        answers = ask(model, height, width)
        head = identify(answers, height, width, layout)
        if network_inputs(model).own_size not in (None, (height, width)):
            model = at_size(model, height, width)
        self._inputs = network_inputs(model)
        self._session = open_session(model)
        self._outputs = list(head.outputs)
        self._decode = DECODINGS[head.layout]
        self._metadata = answers.metadata
        self._pixels = pixels
        self._height, self._width = height, width
        self.nms_in_graph = head.nms_in_graph

    def reading(self, pixels: PixelFacts) -> "Reference":
        """Give the same network for pictures with other pixels."""
        other = copy(self)
        other._pixels = pixels
        return other

    def rows(self, picture_bgr: npt.NDArray[np.uint8]) -> tuple[FloatArray, Placement]:
        """Every candidate of one picture.

        Args:
            picture_bgr: uint8 [h, w, 3] as OpenCV reads it.

        Returns:
            float32 [A, 6] of x1, y1, x2, y2 (network pixels), score, class index, best first; and where the
            picture lies in the network's input.
        """
        placed, placement = place(picture_bgr, self._height, self._width, self._pixels.resize)
        ordered = placed[:, :, ::-1] if self._pixels.colour == "rgb" else placed
        divisor = 255.0 if self._pixels.scale == "1" else 1.0
        planes = np.ascontiguousarray((ordered.astype(np.float32) / divisor).transpose(2, 0, 1))
        pictures = np.repeat(planes[np.newaxis], self._inputs.batch or 1, axis=0)
        answers = run(self._session, self._outputs, feed(self._inputs, pictures))
        boxes, scores, classes = self._decode(
            [answer[0] for answer in answers], self._height, self._width, self._metadata
        )
        rows = np.column_stack([boxes, scores, classes]).astype(np.float32)
        return rows[np.argsort(-rows[:, 4], kind="stable")], placement

    def detect(
        self, picture_bgr: npt.NDArray[np.uint8], *, score_threshold: float, nms_iou: float | None
    ) -> Detections:
        """Rows above the threshold, boxes in the picture's own pixels; nms_iou None suppresses nothing."""
        rows, placement = self.rows(picture_bgr)
        return from_rows(rows, placement, score_threshold=score_threshold, nms_iou=nms_iou)


def place(
    picture_bgr: npt.NDArray[np.uint8], height: int, width: int, resize: Resize
) -> tuple[npt.NDArray[np.uint8], Placement]:
    """Fit a picture into the network's input: letterboxed or stretched."""
    return (stretch if resize == "stretch" else letterbox)(picture_bgr, height, width)


def letterbox(
    picture_bgr: npt.NDArray[np.uint8], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], Placement]:
    """Fit a picture into the middle of a grey one, sides kept in proportion; averaged where it shrinks."""
    source_height, source_width = picture_bgr.shape[:2]
    scale = min(width / source_width, height / source_height)
    inner_width, inner_height = round(source_width * scale), round(source_height * scale)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    framed = np.full((height, width, 3), PAD_RGB, dtype=np.uint8)
    framed[top : top + inner_height, left : left + inner_width] = _resized(
        picture_bgr, inner_height, inner_width
    )
    return framed, Placement(
        source_width, source_height, inner_width / source_width, inner_height / source_height, left, top
    )


def stretch(
    picture_bgr: npt.NDArray[np.uint8], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], Placement]:
    """Fill the input with the picture, whatever that does to its sides."""
    source_height, source_width = picture_bgr.shape[:2]
    placement = Placement(source_width, source_height, width / source_width, height / source_height, 0, 0)
    return _resized(picture_bgr, height, width), placement


def _resized(picture_bgr: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    smaller = height <= picture_bgr.shape[0] and width <= picture_bgr.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture_bgr, (width, height), interpolation=interpolation), np.uint8)
