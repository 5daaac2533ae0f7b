"""Recordings like those of a camera: 1080p, ten seconds, fragmented, out of the sample clip."""

from pathlib import Path

import av
import cv2
import numpy as np

from consumer.sample_clip import sample_clip
from tests import clips
from tests.clips import Clip, Image

FRAMES, FPS, KEYFRAME_EVERY = 250, 25, 50
SECONDS = FRAMES / FPS
WIDTH, HEIGHT = 1920, 1080
_NOISE = 4.0
"""Standard deviation of the sensor noise; without it, a scaled-up picture would be too easy to decode."""


def write_recordings(directory: Path, count: int, *, width: int = WIDTH, height: int = HEIGHT) -> list[Path]:
    """Write different recordings: the sample clip from different moments on, every other one mirrored."""
    scene = _scene(sample_clip())
    return [
        clips.write_kerberos_like(
            directory / f"camera-{number}.mp4", _clip(scene, number, count, width, height)
        )
        for number in range(count)
    ]


def _clip(scene: list[Image], variant: int, variants: int, width: int, height: int) -> Clip:
    noise = np.random.default_rng(variant).normal(0.0, _NOISE, (height + 64, width + 64, 1))
    grain = np.repeat(np.rint(noise).astype(np.int16), 3, axis=2)
    shift = len(scene) * variant // variants

    def draw(number: int, _width: int, _height: int) -> Image:
        image = scene[(number + shift) % len(scene)]
        image = image[:, ::-1] if variant % 2 else image
        large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        down, right = number * 37 % 64, number * 23 % 64  # new noise for every picture, cheaply
        grown = grain[down : down + height, right : right + width]
        return np.asarray(cv2.add(large, grown, dtype=cv2.CV_8U), np.uint8)

    return Clip(frames=FRAMES, fps=FPS, width=width, height=height, keyframe_every=KEYFRAME_EVERY, draw=draw)


def _scene(path: Path) -> list[Image]:
    """Give the clip's pictures, cut to 16:9."""
    with av.open(str(path)) as container:
        pictures = [clips.as_bgr(picture) for picture in container.decode(video=0)]
    height = pictures[0].shape[0]
    width = height * 16 // 9
    left = (pictures[0].shape[1] - width) // 2
    return [picture[:, left : left + width] for picture in pictures]
