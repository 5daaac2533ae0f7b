"""Annotate: draws what was found onto the pictures, as JPEG files for people."""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from consumer.analysis import Detection
from consumer.frames import UInt8Array, to_bgr
from consumer.media import Media
from consumer.video import open_recording

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_JPEG_QUALITY = 90


def draw(image: UInt8Array, boxes: Sequence[Detection]) -> UInt8Array:
    """Give a copy of a BGR picture (uint8 [h, w, 3]) with labelled boxes; strokes grow with the picture."""
    drawn = image.copy()
    best_last = sorted(boxes, key=lambda box: box.score)
    for box in best_last:
        _draw_box(drawn, box)
    for box in best_last:  # after all the boxes, so that no line runs through a label
        _draw_tag(drawn, box)
    return drawn


def write_jpeg(path: Path, image: UInt8Array) -> Path:
    """Write a BGR picture (uint8 [h, w, 3]) as JPEG."""
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not encoded:
        raise ValueError(f"A picture of shape {image.shape} cannot be written as JPEG.")
    path.write_bytes(data.tobytes())
    return path


def write_annotated_frames(
    media: Media, found: Mapping[float, Sequence[Detection]], directory: Path
) -> list[Path]:
    """Write one JPEG per looked-at frame of a recording into a directory, which is made where missing.

    Args:
        found: what was found, by `SampledFrame.time_seconds`.

    Raises:
        RecordingError: as `consumer.video.open_recording` and `Recording.frames_at`.
    """
    if not found:
        return []
    directory.mkdir(parents=True, exist_ok=True)
    return list(_annotated(media, found, directory))


def _annotated(media: Media, found: Mapping[float, Sequence[Detection]], directory: Path) -> Iterator[Path]:
    # The whole path where the name is one: two clips of the same name must not share their pictures.
    stem = re.sub(r"[/\\]+", "-", str(Path(media.name).with_suffix("")).lstrip("/."))
    with open_recording(media) as recording:
        for frame in recording.frames_at(list(found)):
            boxes = found[min(found, key=lambda time: abs(time - frame.time_seconds))]
            image = draw(to_bgr(frame.picture, frame.rotation_degrees), boxes)
            name = f"{stem}-frame-{frame.index:06d}-{frame.time_seconds:.2f}s.jpg"
            yield write_jpeg(directory / name, image)


def _draw_box(image: UInt8Array, box: Detection) -> None:
    x1, y1, x2, y2 = (round(value) for value in box.box_xyxy)
    cv2.rectangle(image, (x1, y1), (x2, y2), _colour(box.label), _stroke(image), cv2.LINE_AA)


def _draw_tag(image: UInt8Array, box: Detection) -> None:
    height, width = image.shape[:2]
    colour = _colour(box.label)
    text = f"{box.label} {box.score:.2f}"
    scale = max(0.4, min(height, width) / 900)
    weight = max(1, round(scale * 1.5))
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, scale, weight)
    margin = max(2, round(scale * 5))
    tag_width, tag_height = text_width + 2 * margin, text_height + below + 2 * margin
    # Above the box where there is room, inside it otherwise; never beyond the picture's edges.
    x1, y1 = round(box.box_xyxy[0]), round(box.box_xyxy[1])
    top = max(0, min(y1 - tag_height if y1 >= tag_height else y1, height - tag_height))
    left = max(0, min(x1 - _stroke(image) // 2, width - tag_width))
    cv2.rectangle(image, (left, top), (left + tag_width, top + tag_height), colour, cv2.FILLED)
    ink = (0, 0, 0) if _luma(colour) > 140 else (255, 255, 255)
    start = (left + margin, top + margin + text_height)
    cv2.putText(image, text, start, _FONT, scale, ink, weight, cv2.LINE_AA)


def _stroke(image: UInt8Array) -> int:
    shorter_side: int = min(image.shape[:2])
    return max(1, round(shorter_side / 240))


def _colour(label: str) -> tuple[int, int, int]:
    """Give a label its own strong colour (BGR), the same in every picture and every run."""
    # The golden ratio spreads any sequence of hues evenly; the checksum makes it depend on the label alone.
    hue = int(zlib.crc32(label.encode()) * 0.618033988749895 % 1 * 180)
    blue, green, red = cv2.cvtColor(np.array([[[hue, 210, 245]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return int(blue), int(green), int(red)


def _luma(colour: tuple[int, int, int]) -> float:
    blue, green, red = colour
    return 0.114 * blue + 0.587 * green + 0.299 * red
