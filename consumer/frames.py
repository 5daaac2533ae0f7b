"""Frames: from a decoded picture to the network's input, a letterboxed I420 frame.

Planes are resized first and their colours corrected afterwards, on the few pixels that are left: no
full-size RGB picture is ever made.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from consumer.contract import PAD_YUV, Resize
from consumer.detections import Placement
from consumer.errors import RecordingUndecodable
from consumer.limits import blame_memory

UInt8Array = npt.NDArray[np.uint8]
Planes = tuple[UInt8Array, UInt8Array, UInt8Array]

_PLANAR_8_BIT = frozenset(
    f"yuv{j}{sampling}p" for j in ("", "j") for sampling in ("420", "422", "444", "440", "411")
)
_KR_KB = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Luma weights by AVColorSpace (ITU-T H.273 table 4): BT.709, FCC, SMPTE 240M, BT.2020."""
_BT601 = (0.299, 0.114)
"""Also taken where nothing is flagged, as FFmpeg and OpenCV do."""

_CLOCKWISE = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class NetworkFrame:
    """One frame as the model takes it.

    i420: uint8 [H*3/2, W], limited-range BT.601 (consumer.contract.INPUT_NAME).
    placement: where the upright source picture lies in it.
    """

    i420: UInt8Array
    placement: Placement


def to_network(
    picture: VideoFrame, rotation_degrees: int, *, height: int, width: int, resize: Resize
) -> NetworkFrame:
    """Resize, turn upright and letterbox (or stretch) a decoded picture.

    Args:
        picture: any pixel format, range and colour space that FFmpeg decodes to.
        rotation_degrees: clockwise turn that makes it upright: 0, 90, 180 or 270.
        height, width: the network's input in pixels, multiples of 32.
        resize: `letterbox` keeps the shape and centres; `stretch` fills the input.

    Raises:
        RecordingUndecodable: a pixel format that FFmpeg cannot convert.
    """
    if picture.format.name not in _PLANAR_8_BIT:
        picture = _to_planar_8_bit(picture)
    turned = rotation_degrees in (90, 270)
    upright = (picture.height, picture.width) if turned else (picture.width, picture.height)
    placement, (inner_width, inner_height) = _place(*upright, height=height, width=width, resize=resize)
    size = (inner_height, inner_width) if turned else (inner_width, inner_height)
    half = (size[0] // 2, size[1] // 2)
    y, u, v = (_shrink(_plane(picture, n), size if n == 0 else half) for n in range(3))
    transform = _to_bt601_limited(picture)
    if transform is not None:
        y, u, v = _recolour((y, u, v), *transform)
    y, u, v = (_turn(plane, rotation_degrees) for plane in (y, u, v))
    return NetworkFrame(_pack((y, u, v), placement, height, width), placement)


def from_bgr(image: UInt8Array, *, height: int, width: int, resize: Resize) -> NetworkFrame:
    """Do the same with a photo: uint8 [h, w, 3] in OpenCV's BGR order."""
    placement, size = _place(image.shape[1], image.shape[0], height=height, width=width, resize=resize)
    packed = np.asarray(cv2.cvtColor(_shrink(image, size), cv2.COLOR_BGR2YUV_I420), np.uint8).reshape(-1)
    area = size[0] * size[1]
    half = (size[1] // 2, size[0] // 2)
    y = packed[:area].reshape(size[1], size[0])
    u, v = packed[area : area * 5 // 4].reshape(half), packed[area * 5 // 4 :].reshape(half)
    return NetworkFrame(_pack((y, u, v), placement, height, width), placement)


def to_bgr(picture: VideoFrame, rotation_degrees: int) -> UInt8Array:
    """Give the whole picture upright, uint8 [h, w, 3] in OpenCV's BGR order, for people to look at."""
    return _turn(np.asarray(picture.to_ndarray(format="bgr24"), np.uint8), rotation_degrees)


def _place(
    source_width: int, source_height: int, *, height: int, width: int, resize: Resize
) -> tuple[Placement, tuple[int, int]]:
    """Give the placement and the (width, height) of the picture inside, even because chroma is halved."""
    if resize == "stretch":
        inner_width, inner_height = width, height
    else:
        scale = min(width / source_width, height / source_height)
        inner_width = min(width, max(2, 2 * round(source_width * scale / 2)))
        inner_height = min(height, max(2, 2 * round(source_height * scale / 2)))
    placement = Placement(
        source_width=source_width,
        source_height=source_height,
        scale_x=inner_width / source_width,
        scale_y=inner_height / source_height,
        pad_x=(width - inner_width) // 4 * 2,
        pad_y=(height - inner_height) // 4 * 2,
    )
    return placement, (inner_width, inner_height)


def _pack(planes: Planes, placement: Placement, height: int, width: int) -> UInt8Array:
    """Lay the planes into a frame of padding, one after the other: Y, U, V."""
    i420 = np.empty((height * 3 // 2, width), np.uint8)
    flat = i420.reshape(-1)
    area = height * width
    canvases = (
        flat[:area].reshape(height, width),
        flat[area : area * 5 // 4].reshape(height // 2, width // 2),
        flat[area * 5 // 4 :].reshape(height // 2, width // 2),
    )
    for canvas, plane, grey, step in zip(canvases, planes, PAD_YUV, (1, 2, 2), strict=True):
        top, left = int(placement.pad_y) // step, int(placement.pad_x) // step
        canvas[:] = grey
        canvas[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return i420


def _plane(picture: VideoFrame, number: int) -> UInt8Array:
    plane = picture.planes[number]
    rows: UInt8Array = np.asarray(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _shrink(plane: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    # Area averaging, as linear skips pixels when shrinking: of the boxes of a plain RGB letterbox it keeps
    # 98 % above the same threshold, linear 96 % (crowds of 3072x1728, YOLOX-nano); upwards it is no better.
    smaller = size[0] <= plane.shape[1] and size[1] <= plane.shape[0]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, size, interpolation=interpolation), np.uint8)


def _turn(image: UInt8Array, rotation_degrees: int) -> UInt8Array:
    if rotation_degrees == 0:
        return image
    return np.asarray(cv2.rotate(image, _CLOCKWISE[rotation_degrees]), np.uint8)


def _to_planar_8_bit(picture: VideoFrame) -> VideoFrame:
    """Bring 10-bit, semi-planar, grey, packed and RGB pictures to yuv420p; YUV keeps its range and space."""
    colour_range = ColorRange.JPEG if picture.color_range == ColorRange.JPEG else ColorRange.MPEG
    try:
        if picture.format.is_rgb:
            return picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG, threads=1
            )
        return picture.reformat(
            format="yuv420p", src_color_range=colour_range, dst_color_range=colour_range, threads=1
        )
    except FFmpegError as error:
        blame_memory(error, 2 * picture.width * picture.height)
        raise RecordingUndecodable(
            f"Pictures in the pixel format {picture.format.name} cannot be converted for the model."
        ) from error


def _to_bt601_limited(picture: VideoFrame) -> tuple[npt.NDArray[np.float32], float] | None:
    """Give the matrix and the offset of Y for `_recolour`; None for a picture in limited BT.601 already."""
    full_range = picture.format.name.startswith("yuvj") or picture.color_range == ColorRange.JPEG
    weights = _KR_KB.get(picture.colorspace)
    if not full_range and weights is None:
        return None
    from_scale = np.diag([255.0, 255.0, 255.0] if full_range else [219.0, 224.0, 224.0])
    to_rgb = np.linalg.inv(_rgb_to_ycbcr(*(weights or _BT601)))
    matrix = np.diag([219.0, 224.0, 224.0]) @ _rgb_to_ycbcr(*_BT601) @ to_rgb @ np.linalg.inv(from_scale)
    return matrix.astype(np.float32), 0.0 if full_range else 16.0


def _rgb_to_ycbcr(kr: float, kb: float) -> npt.NDArray[np.float64]:
    """Matrix from R, G, B in 0..1 to Y in 0..1 and Cb, Cr in -0.5..0.5 (ITU-T H.273 §8.3)."""
    luma = np.array([kr, 1 - kr - kb, kb])
    blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - kb))
    red = (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - kr))
    return np.stack([luma, blue, red])


def _recolour(planes: Planes, matrix: npt.NDArray[np.float32], luma_offset: float) -> Planes:
    """Convert 4:2:0 planes to BT.601 limited range; luma takes the chroma of its 2x2 block."""
    y, u, v = (plane.astype(np.float32) for plane in planes)
    y, u, v = y - luma_offset, u - 128, v - 128
    of_chroma = cv2.resize(matrix[0, 1] * u + matrix[0, 2] * v, (y.shape[1], y.shape[0]))
    converted = (
        matrix[0, 0] * y + of_chroma + 16,
        matrix[1, 1] * u + matrix[1, 2] * v + 128,
        matrix[2, 1] * u + matrix[2, 2] * v + 128,
    )
    y, u, v = (np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in converted)
    return y, u, v
