"""The contract between consumer and model: the one thing that both halves agree on.

Both sides import this module: `modelops` writes it into config.pbtxt, `detector` checks it at start.
Why frames travel as I420 and detections as rows: docs/adr/0001-i420-contract.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CONTRACT_VERSION = "1"

INPUT_NAME = "FRAMES"
"""UINT8 [N, H*3/2, W]: letterboxed frames as I420 (OpenCV's COLOR_BGR2YUV_I420), limited-range BT.601."""

OUTPUT_NAME = "DETECTIONS"
"""FP32 [N, K, 6]: x1, y1, x2, y2 in network pixels, score, class index; best first, padded with score 0."""

PIXEL_FORMAT = "i420_bt601_limited"
SIZE_MULTIPLE = 32
DEFAULT_HEIGHT = 384
DEFAULT_WIDTH = 640
DEFAULT_MAX_DETECTIONS = 1000
PAD_RGB = 114
"""Grey of the letterbox border, in RGB 0-255."""
PAD_YUV = (114, 128, 128)
"""The same grey in limited-range BT.601: Y = 16 + 114 * 219 / 255 = 113.9."""

Resize = Literal["letterbox", "stretch"]


class Parameter:
    """Keys of `parameters` in config.pbtxt; values are strings."""

    CONTRACT = "vaultml_contract"
    PIXEL_FORMAT = "vaultml_pixel_format"
    RESIZE = "vaultml_resize"
    NMS = "vaultml_nms"
    """`consumer` (rows are candidates, the consumer suppresses) or `graph` (rows are final)."""

    @staticmethod
    def labels(version: str) -> str:
        """Key of the labels of one version: a JSON list of strings, index = class index."""
        return f"vaultml_labels_{version}"

    @staticmethod
    def digest(version: str) -> str:
        """Key of the source model's digest of one version: `sha256:<hex>`."""
        return f"vaultml_digest_{version}"


@dataclass(frozen=True)
class ModelVersion:
    """What differs from one version of a model to the next."""

    version: str
    labels: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Contract:
    """What the served model promised, as read from Triton's metadata and configuration; sizes in pixels."""

    model: str
    height: int
    width: int
    max_detections: int
    max_batch_size: int
    resize: Resize
    nms_in_graph: bool
    versions: Mapping[str, ModelVersion]
