"""Measure what the BT.709 flag does to boxes (docs/adr/0005-bt709.md); start it with scripts/measure-bt709.

The same HD pictures are encoded twice, as BT.601 and as flagged BT.709 with truly converted colours. The
boxes found in the first are the reference; those in the second are compared, with the flag honoured and
ignored.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consumer.contract import DEFAULT_HEIGHT, DEFAULT_WIDTH
from consumer.detections import Detections
from consumer.frames import to_bgr, to_network
from consumer.media import FileMedia
from consumer.video import open_recording
from modelops.graph import PixelFacts
from modelops.reference import Reference
from tests.clips import Clip, write

DATA = Path("../shared/data")
HD_WIDTH, HD_HEIGHT = 1920, 1080
SURE, CANDIDATE = 0.35, 0.25
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED: taken as BT.601

Image = npt.NDArray[np.uint8]


@dataclass
class Comparison:
    """How far the boxes of one way are from the reference's."""

    boxes: int = 0
    found: int = 0
    sure: int = 0
    confirmed: int = 0
    ious: list[float] = field(default_factory=list)
    score_changes: list[float] = field(default_factory=list)
    picture_changes: list[float] = field(default_factory=list)

    def add(self, reference: Detections, compared: Detections) -> None:
        """Count one frame; a box is found when one of its class overlaps it by half or more."""
        for one, other in ((reference, compared), (compared, reference)):
            for index in np.flatnonzero(one.scores >= SURE):
                partner, iou = _partner(one, int(index), other)
                if one is reference:
                    self.boxes += 1
                    self.found += iou >= 0.5
                    self.ious.append(iou)
                    if iou >= 0.5:
                        self.score_changes.append(abs(float(one.scores[index] - other.scores[partner])))
                else:
                    self.sure += 1
                    self.confirmed += iou >= 0.5

    def __str__(self) -> str:
        changes = np.array(self.score_changes)
        return (
            f"{self.boxes} boxes, recall {self.found / self.boxes:.3f}, "
            f"precision {self.confirmed / self.sure:.3f}, median IoU {np.median(self.ious):.3f}, "
            f"score change median {np.median(changes):.3f}, 95 % {np.quantile(changes, 0.95):.3f}, "
            f"most {changes.max():.3f}, pictures differ by {np.mean(self.picture_changes):.2f} of 255"
        )


def main() -> None:
    """Print one line per way of reading the flagged clip."""
    model = Reference(
        DATA / "models/yolox_nano.onnx",
        PixelFacts(colour="bgr", scale="255"),
        height=DEFAULT_HEIGHT,
        width=DEFAULT_WIDTH,
    )
    pictures = list(_pictures())
    with tempfile.TemporaryDirectory() as directory:
        clips = {
            bt709: write(Path(directory) / f"{bt709}.mp4", _clip(pictures, bt709)) for bt709 in (False, True)
        }
        reference = [_look(model, image) for image in _network_pictures(clips[False], honoured=True)]
        expected = list(_network_pictures(clips[False], honoured=True))
        for name, honoured in (("flag honoured", True), ("flag ignored", False)):
            comparison = Comparison()
            for boxes, wanted, image in zip(
                reference, expected, _network_pictures(clips[True], honoured=honoured), strict=True
            ):
                comparison.add(boxes, _look(model, image))
                comparison.picture_changes.append(float(np.abs(wanted.astype(int) - image).mean()))
            sys.stdout.write(f"{name}: {comparison}\n")


def _clip(pictures: list[Image], bt709: bool) -> Clip:
    return Clip(
        frames=len(pictures),
        width=HD_WIDTH,
        height=HD_HEIGHT,
        keyframe_every=1,
        bt709=bt709,
        encoder_options={"crf": "18"},
        draw=lambda number, width, height: np.asarray(
            cv2.resize(pictures[number], (width, height)), np.uint8
        ),
    )


def _pictures() -> Iterator[Image]:
    """Yield people from the clip, the photo, and crowds tiled from both; plain and with livelier colours."""
    with open_recording(FileMedia(DATA / "clips/one-by-one-person-detection.mp4")) as recording:
        people = [to_bgr(frame.picture, frame.rotation_degrees) for frame in recording.sample(60)]
    photo = np.asarray(cv2.imread(str(DATA / "photos/dog.jpg")), np.uint8)
    singles = [*people[::4], *[np.asarray(cv2.resize(photo, (768, 432)), np.uint8)] * 4]
    choose = np.random.default_rng(0)
    crowds = []
    for _ in range(40):
        tiles = [singles[index] for index in choose.integers(0, len(singles), 4)]
        crowds.append(np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])]))
    for picture in [*people, photo, *crowds]:
        yield picture
        hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = np.clip(hsv[..., 1].astype(int) * 2, 0, 255)
        yield np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def _network_pictures(path: Path, *, honoured: bool) -> Iterator[Image]:
    with open_recording(FileMedia(path)) as recording:
        for frame in recording.sample(10_000):
            if not honoured:
                frame.picture.colorspace = UNSPECIFIED
            network = to_network(
                frame.picture, 0, height=DEFAULT_HEIGHT, width=DEFAULT_WIDTH, resize="letterbox"
            )
            yield np.asarray(cv2.cvtColor(network.i420, cv2.COLOR_YUV2BGR_I420), np.uint8)


def _look(model: Reference, network_picture: Image) -> Detections:
    return model.detect(network_picture, score_threshold=CANDIDATE, nms_iou=0.45)


def _partner(one: Detections, index: int, other: Detections) -> tuple[int, float]:
    """Give the box of the same class that overlaps most, and by how much (0 where there is none)."""
    if len(other) == 0:
        return -1, 0.0
    box = one.boxes_xyxy[index]
    corner = np.maximum(other.boxes_xyxy[:, :2], box[:2])
    opposite = np.minimum(other.boxes_xyxy[:, 2:], box[2:])
    overlap = np.clip(opposite - corner, 0, None).prod(axis=1)
    areas = (other.boxes_xyxy[:, 2:] - other.boxes_xyxy[:, :2]).prod(axis=1)
    ious = overlap / (areas + (box[2:] - box[:2]).prod() - overlap)
    ious = np.where(other.class_indices == one.class_indices[index], ious, 0.0)
    best = int(np.argmax(ious))
    return best, float(ious[best])


if __name__ == "__main__":
    main()
