"""How a file is to be read: its layout, and the pixels that it expects. Known, or a list to choose from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import cast, get_args

from consumer.contract import Resize
from modelops import darknet
from modelops.catalogue import known
from modelops.graph import Colour, PixelFacts, Scale
from modelops.head import Answers, Head
from modelops.heads import RT_DETR
from modelops.heads_darknet import DARKNET_METADATA


@dataclass(frozen=True)
class Reading:
    """One way to read a file."""

    layout: str
    pixels: PixelFacts
    certain: bool = False
    """Nothing in it is a guess: the file, the catalogue or the user said it."""
    whose: str = ""
    """The detectors whose own code trains like this; empty for all other ways."""

    def __str__(self) -> str:
        return f"--layout {self.layout} {self.pixels}" + (f" ({self.whose})" if self.whose else "")


@dataclass(frozen=True)
class Said:
    """What is known of a network's pixels; None where nobody has said."""

    colour: Colour | None = None
    scale: Scale | None = None
    resize: Resize | None = None

    def over(self, other: "Said") -> "Said":
        """Take what the other says where this says nothing."""
        return Said(self.colour or other.colour, self.scale or other.scale, self.resize or other.resize)

    def allows(self, pixels: PixelFacts) -> bool:
        """Whether nothing that is said speaks against them."""
        pairs = ((self.colour, pixels.colour), (self.scale, pixels.scale), (self.resize, pixels.resize))
        return all(said in (None, there) for said, there in pairs)


_RGB_1 = PixelFacts(colour="rgb", scale="1", resize="letterbox")
_STRETCHED = PixelFacts(colour="rgb", scale="1", resize="stretch")
_BGR_255 = PixelFacts(colour="bgr", scale="255", resize="letterbox")
_RGB_255 = PixelFacts(colour="rgb", scale="255", resize="letterbox")
_USUAL: dict[str, tuple[tuple[PixelFacts, str], ...]] = {
    "yolox": ((_BGR_255, "YOLOX since 0.1.1"),),
    "yolox-decoded": ((_BGR_255, "YOLOX since 0.1.1"),),
    "yolov5": ((_RGB_1, "YOLOv5, YOLOv7"),),
    "ultralytics": ((_RGB_1, "Ultralytics, YOLOv9"),),
    "end-to-end": ((_RGB_1, "YOLOv10, YOLO26, Ultralytics"),),
    "yolo-nas": ((_RGB_1, "YOLO-NAS"), (_RGB_255, "YOLO-NAS with its preprocessing inside")),
    RT_DETR: ((_STRETCHED, "RT-DETR, D-FINE"),),
}
"""What each layout's own code trains with; others who train with it may have used something else."""


def readings_of(
    head: Head, digest: str, answers: Answers, options: Said, *, takes_bytes: bool
) -> tuple[Reading, ...]:
    """Every way to read a file of one layout: one that is certain, or the usual ones before all others.

    Args:
        head: the layout.
        digest: SHA-256 of the file.
        answers: what the file answers, and its metadata.
        options: what the user says.
        takes_bytes: its picture is uint8, whose white is 255.
    """
    bytes_say = Said(scale="255" if takes_bytes else None)
    said = options.over(bytes_say).over(_file_says(head.layout, digest, answers.metadata))
    if said.colour and said.scale and said.resize:
        return (Reading(head.layout, PixelFacts(said.colour, said.scale, said.resize), certain=True),)
    everything = {
        PixelFacts(cast("Colour", colour), cast("Scale", scale), cast("Resize", resize)): ""
        for colour, scale, resize in product(get_args(Colour), get_args(Scale), get_args(Resize))
    }
    usual = dict(_USUAL.get(head.layout, ()))
    return tuple(
        Reading(head.layout, pixels, whose=whose)
        for pixels, whose in {**usual, **everything, **usual}.items()
        if said.allows(pixels)
    )


def choice(readings: tuple[Reading, ...]) -> str:
    """Write down the readings to choose from: those of somebody's own code, else all."""
    usual = [reading for reading in readings if reading.whose or reading.certain]
    return ", or ".join(map(str, usual or readings))


def _file_says(layout: str, digest: str, metadata: Mapping[str, str]) -> Said:
    entry = known(digest)
    facts = None
    if entry is not None:
        facts = entry.pixels
    elif DARKNET_METADATA in metadata:
        facts = darknet.PIXELS
    elif _is_ultralytics(metadata):
        # Their engine/predictor.py, preprocess: RGB divided by 255; models/rtdetr/predict.py: stretched.
        facts = replace(_RGB_1, resize="stretch" if layout == RT_DETR else "letterbox")
    elif layout in ("yolov5", "ultralytics") and {"stride", "names"} <= metadata.keys():
        facts = (
            _RGB_1  # export.py of ultralytics/yolov5 and of WongKinYiu/yolov9 write these two and no others
        )
    return Said() if facts is None else Said(facts.colour, facts.scale, facts.resize)


def _is_ultralytics(metadata: Mapping[str, str]) -> bool:
    return metadata.get("author") == "Ultralytics" or {"names", "stride", "task"} <= metadata.keys()
