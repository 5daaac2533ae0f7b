"""The yardstick: plain ONNX Runtime on the source weights, sharing no code with the contract graph's ends.

Centred letterbox in colour, float32, no I420; decoding in numpy. Tests and gates compare `detect` with it.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from consumer.contract import PAD_RGB
from consumer.detections import Detections, Placement, from_rows
from modelops.graph import PixelFacts
from modelops.network import STRIDES, at_size, image_input, load

FloatArray = npt.NDArray[np.float32]


class Reference:
    """A YOLOX or Ultralytics detector run the plain way; sizes in pixels."""

    def __init__(self, source: Path, pixels: PixelFacts, *, height: int, width: int) -> None:
        network = at_size(load(source), height, width)
        self._input = image_input(network)[0]
        self._pixels = pixels
        self._height, self._width = height, width
        self._session = onnxruntime.InferenceSession(
            network.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def rows(self, picture_bgr: npt.NDArray[np.uint8]) -> tuple[FloatArray, Placement]:
        """Every candidate of one picture.

        Args:
            picture_bgr: uint8 [h, w, 3] as OpenCV reads it.

        Returns:
            float32 [A, 6] of x1, y1, x2, y2 (network pixels), score, class index, best first; and where the
            picture lies in the network's input.
        """
        letterboxed, placement = letterbox(picture_bgr, self._height, self._width)
        ordered = letterboxed[:, :, ::-1] if self._pixels.colour == "rgb" else letterboxed
        divisor = 255.0 if self._pixels.scale == "1" else 1.0
        network_input = (ordered.astype(np.float32) / divisor).transpose(2, 0, 1)[np.newaxis]
        raw = self._session.run(None, {self._input: np.ascontiguousarray(network_input)})[0][0]
        cells = sum((self._height // s) * (self._width // s) for s in STRIDES)
        boxes, scores = self._decode_yolox(raw) if len(raw) == cells else _decode_ultralytics(raw)
        best = scores.argmax(axis=1)
        rows = np.column_stack([boxes, scores.max(axis=1), best]).astype(np.float32)
        return rows[np.argsort(-rows[:, 4], kind="stable")], placement

    def detect(
        self, picture_bgr: npt.NDArray[np.uint8], *, score_threshold: float, nms_iou: float
    ) -> Detections:
        """Rows above the threshold after class-aware suppression, boxes in the picture's own pixels."""
        rows, placement = self.rows(picture_bgr)
        return from_rows(rows, placement, score_threshold=score_threshold, nms_iou=nms_iou)

    def _decode_yolox(self, raw: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Decode as `demo_postprocess` of YOLOX (yolox/utils/demo_utils.py)."""
        boxes = np.empty((len(raw), 4), dtype=np.float32)
        first = 0
        for stride in STRIDES:
            for row in range(self._height // stride):
                last = first + self._width // stride
                x = (raw[first:last, 0] + np.arange(last - first)) * stride
                y = (raw[first:last, 1] + row) * stride
                half_width, half_height = (np.exp(raw[first:last, 2:4]) * stride / 2).T
                boxes[first:last] = np.column_stack(
                    [x - half_width, y - half_height, x + half_width, y + half_height]
                )
                first = last
        return boxes, raw[:, 4:5] * raw[:, 5:]


def letterbox(
    picture_bgr: npt.NDArray[np.uint8], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], Placement]:
    """Fit a picture into the middle of a grey one, sides kept in proportion; averaged where it shrinks."""
    source_height, source_width = picture_bgr.shape[:2]
    scale = min(width / source_width, height / source_height)
    inner_width, inner_height = round(source_width * scale), round(source_height * scale)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    framed = np.full((height, width, 3), PAD_RGB, dtype=np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    framed[top : top + inner_height, left : left + inner_width] = cv2.resize(
        picture_bgr, (inner_width, inner_height), interpolation=interpolation
    )
    return framed, Placement(
        source_width, source_height, inner_width / source_width, inner_height / source_height, left, top
    )


def _decode_ultralytics(raw: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centre boxes in pixels, one column per candidate (ultralytics/utils/ops.py, xywh2xyxy)."""
    x, y, w, h = raw[:4]
    boxes = np.column_stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return boxes.astype(np.float32), np.ascontiguousarray(raw[4:].T)
