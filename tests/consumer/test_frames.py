"""Promises of consumer/frames.py: any picture becomes the same upright, limited-range BT.601 letterbox."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.contract import PAD_RGB, PAD_YUV
from consumer.errors import RecordingUndecodable
from consumer.frames import NetworkFrame, from_bgr, to_bgr, to_network
from consumer.media import FileMedia
from consumer.video import open_recording
from tests import clips
from tests.clips import Clip

HEIGHT, WIDTH = 384, 640
FULL, LIMITED = 2, 1

Image = npt.NDArray[np.uint8]


def colourful(width: int = 768, height: int = 576) -> Image:
    """Soft colours all over the picture, so that every conversion mistake shows."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(30, 220, width)
    image[..., 1] = np.linspace(220, 40, height)[:, None]
    image[..., 2] = np.linspace(60, 200, width)[::-1] * 0.5 + np.linspace(30, 90, height)[:, None]
    return image


def seen_by_the_model(frame: NetworkFrame) -> Image:
    return np.asarray(cv2.cvtColor(frame.i420, cv2.COLOR_YUV2BGR_I420), np.uint8)


def plain_letterbox(image: Image) -> Image:
    """The reference: resize and pad in BGR."""
    height, width = image.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    inner = cv2.resize(image, (round(width * scale), round(height * scale)))
    framed = np.full((HEIGHT, WIDTH, 3), PAD_RGB, np.uint8)
    top, left = (HEIGHT - inner.shape[0]) // 2, (WIDTH - inner.shape[1]) // 2
    framed[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return framed


def assert_alike(image: Image, reference: Image, *, mean: float = 1.5) -> None:
    difference = np.abs(image.astype(int) - reference)
    assert difference.mean() < mean
    assert np.quantile(difference, 0.999) < 12


@pytest.mark.parametrize(
    ("pixel_format", "colour_range", "colour_space"),
    [
        ("yuv420p", LIMITED, "itu601"),
        ("yuv420p", FULL, "itu601"),
        ("yuvj420p", FULL, "itu601"),
        ("yuv422p", LIMITED, "itu601"),
        ("yuvj422p", FULL, "itu601"),
        ("yuv444p", LIMITED, "itu601"),
        ("yuv440p", LIMITED, "itu601"),
        ("yuv411p", LIMITED, "itu601"),
        ("yuv410p", LIMITED, "itu601"),
        ("yuv420p10le", LIMITED, "itu601"),
        ("yuv420p10le", FULL, "itu601"),
        ("yuv444p10le", LIMITED, "itu601"),
        ("yuv420p12le", LIMITED, "itu601"),
        ("p010le", LIMITED, "itu601"),
        ("nv12", LIMITED, "itu601"),
        ("nv12", FULL, "itu601"),
        ("yuyv422", LIMITED, "itu601"),
        ("yuv420p", LIMITED, "itu709"),
        ("yuvj420p", FULL, "itu709"),
        ("yuv420p10le", LIMITED, "bt2020"),
        ("rgb24", FULL, "itu601"),
        ("gbrp", FULL, "itu601"),
        ("bgra", FULL, "itu601"),
    ],
)
def test_every_pixel_format_range_and_colour_space_gives_the_same_colours(
    pixel_format: str, colour_range: int, colour_space: str
) -> None:
    image = colourful()
    picture = VideoFrame.from_ndarray(image, format="bgr24").reformat(
        format=pixel_format, dst_color_range=colour_range, dst_colorspace=colour_space
    )
    frame = to_network(picture, 0, height=HEIGHT, width=WIDTH, resize="letterbox")
    assert frame.i420.shape == (HEIGHT * 3 // 2, WIDTH)
    assert frame.i420.dtype == np.uint8
    assert_alike(seen_by_the_model(frame), plain_letterbox(image))


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
def test_black_and_white_become_16_and_235(full_range: bool) -> None:
    for grey, luma in ((0, 16), (255, 235)):
        picture = VideoFrame.from_ndarray(np.full((96, 96, 3), grey, np.uint8), format="bgr24").reformat(
            format="yuvj420p" if full_range else "yuv420p",
            dst_color_range=FULL if full_range else LIMITED,
        )
        frame = to_network(picture, 0, height=96, width=96, resize="stretch")
        assert np.abs(frame.i420[:96].astype(int) - luma).max() <= 1
        assert np.abs(frame.i420[96:].astype(int) - 128).max() <= 1


def test_a_grey_picture_is_grey() -> None:
    picture = VideoFrame.from_ndarray(np.full((96, 128), 100, np.uint8), format="gray")
    frame = to_network(picture, 0, height=96, width=128, resize="letterbox")
    assert set(np.unique(frame.i420[96:])) == {128}


def test_a_pixel_format_that_cannot_be_converted_is_undecodable() -> None:
    with pytest.raises(RecordingUndecodable, match="gbrap32le"):
        to_network(VideoFrame(64, 64, "gbrap32le"), 0, height=96, width=128, resize="letterbox")


def test_a_photo_gives_what_the_same_picture_gives_as_video() -> None:
    image = colourful()
    picture = VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
    photo = from_bgr(image, height=HEIGHT, width=WIDTH, resize="letterbox")
    video = to_network(picture, 0, height=HEIGHT, width=WIDTH, resize="letterbox")
    assert photo.placement == video.placement
    assert_alike(seen_by_the_model(photo), seen_by_the_model(video))


@settings(max_examples=150, deadline=None)
@given(
    source_width=st.integers(2, 700),
    source_height=st.integers(2, 700),
    height=st.sampled_from([32, 96, 384, 416]),
    width=st.sampled_from([32, 160, 416, 640]),
    rotation_degrees=st.sampled_from([0, 90, 180, 270]),
)
def test_the_placement_says_exactly_where_the_picture_lies(
    source_width: int, source_height: int, height: int, width: int, rotation_degrees: int
) -> None:
    white = np.full((source_height, source_width, 3), 255, np.uint8)
    picture = VideoFrame.from_ndarray(white, format="bgr24").reformat(format="yuv420p")
    frame = to_network(picture, rotation_degrees, height=height, width=width, resize="letterbox")
    placement = frame.placement
    upright = (
        (source_height, source_width) if rotation_degrees in (90, 270) else (source_width, source_height)
    )
    assert (placement.source_width, placement.source_height) == upright
    left, top = int(placement.pad_x), int(placement.pad_y)
    right = round(placement.pad_x + placement.source_width * placement.scale_x)
    bottom = round(placement.pad_y + placement.source_height * placement.scale_y)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    luma = frame.i420[:height]
    assert luma[top:bottom, left:right].min() > 230
    outside = luma.copy()
    outside[top:bottom, left:right] = PAD_YUV[0]
    assert set(np.unique(outside)) == {PAD_YUV[0]}
    # Centred as closely as even numbers allow.
    assert abs((width - right) - left) <= 2
    assert abs((height - bottom) - top) <= 2


@pytest.mark.parametrize("rotation_degrees", [0, 90, 180, 270])
def test_a_point_of_the_upright_picture_is_where_the_placement_says(rotation_degrees: int) -> None:
    upright = np.full((480, 640, 3), 40, np.uint8)
    upright[100:140, 500:540] = 230
    turns = {0: None, 90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
    turn = turns[rotation_degrees]
    stored = upright if turn is None else np.asarray(cv2.rotate(upright, turn), np.uint8)
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="bgr24").reformat(format="yuv420p")
    frame = to_network(picture, rotation_degrees, height=HEIGHT, width=WIDTH, resize="letterbox")
    place = frame.placement
    ys, xs = np.nonzero(frame.i420[:HEIGHT] > 170)
    found = [(xs.mean() + 0.5 - place.pad_x) / place.scale_x, (ys.mean() + 0.5 - place.pad_y) / place.scale_y]
    assert found == pytest.approx([520, 120], abs=1.0)
    assert_alike(to_bgr(picture, rotation_degrees), upright, mean=4)


def test_stretch_fills_the_whole_input() -> None:
    picture = VideoFrame.from_ndarray(np.full((100, 300, 3), 255, np.uint8), format="bgr24")
    frame = to_network(picture.reformat(format="yuv420p"), 0, height=96, width=160, resize="stretch")
    assert frame.i420[:96].min() > 230
    assert (frame.placement.pad_x, frame.placement.pad_y) == (0, 0)
    assert (frame.placement.scale_x, frame.placement.scale_y) == (160 / 300, 96 / 100)


@pytest.mark.parametrize(
    "clip",
    [
        Clip(),
        Clip(pixel_format="yuvj420p", full_range=True),
        Clip(pixel_format="yuv420p10le"),
        Clip(pixel_format="yuv444p"),
        Clip(bt709=True),
        Clip(codec="libx265"),
        Clip(codec="mjpeg", pixel_format="yuvj420p", full_range=True),
    ],
    ids=["plain", "full-range", "10-bit", "4:4:4", "bt709", "h265", "mjpeg"],
)
def test_recordings_keep_their_colours_on_the_way_to_the_model(tmp_path: Path, clip: Clip) -> None:
    path = tmp_path / ("a.avi" if clip.codec == "mjpeg" else "a.mp4")
    clip = Clip(
        **{**clip.__dict__, "frames": 3, "draw": lambda number, width, height: colourful(width, height)}
    )
    with open_recording(FileMedia(clips.write(path, clip))) as recording:
        for frame in recording.sample(3):
            network = to_network(frame.picture, 0, height=HEIGHT, width=WIDTH, resize="letterbox")
            assert_alike(
                seen_by_the_model(network), plain_letterbox(colourful(clip.width, clip.height)), mean=3
            )
