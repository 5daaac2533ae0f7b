"""Golden sets for tests: crowds out of the shared clips, and small ones that are made."""

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

Image = npt.NDArray[np.uint8]


def write_crowds(directory: Path) -> Path:
    """Write photos of nine people each, out of a shared clip, and the shared photo: some 350 boxes."""
    directory.mkdir()
    with av.open(str(SHARED / "clips" / "one-by-one-person-detection.mp4")) as clip:
        people = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)][::3]
    for number, first in enumerate(range(0, len(people) - 8, 9)):
        rows = [np.hstack(people[start : start + 3]) for start in (first, first + 3, first + 6)]
        write_photo(directory / f"crowd-{number:03d}.jpg", np.vstack(rows).astype(np.uint8))
    (directory / "dog.jpg").write_bytes((SHARED / "photos" / "dog.jpg").read_bytes())
    return directory


def write_photo(path: Path, image: Image) -> Path:
    """Write uint8 [h, w, 3] in BGR as the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_clip(path: Path, images: Iterable[Image]) -> Path:
    """Write uint8 [h, w, 3] pictures in BGR as a clip of keyframes, ten a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12", "g": "1"})
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(seed: int = 0, height: int = 96, width: int = 128) -> Image:
    """Return a picture in which there is nothing to see."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
