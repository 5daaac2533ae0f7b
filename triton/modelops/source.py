"""A source model and what must be known of it: from the catalogue, its metadata or an option; no guess."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from consumer.contract import DEFAULT_HEIGHT, DEFAULT_WIDTH, Resize
from consumer.errors import SetupError
from modelops.answers import ask
from modelops.download import digest_of
from modelops.graph import Colour, PixelFacts, Scale, check_own_size
from modelops.heads import RT_DETR, fitting
from modelops.labels import read_labels
from modelops.network import load, network_inputs
from modelops.onnx_graph import metadata_of
from modelops.reading import Reading, Said, choice, readings_of
from modelops.reference import Reference
from modelops.suppression import without_suppression

EVIDENCE_SCORE = 0.35
EVIDENCE_NMS_IOU = 0.45


@dataclass(frozen=True)
class Options:
    """What a user may say about a model; None where the file must know."""

    layout: str | None = None
    colour: Colour | None = None
    scale: Scale | None = None
    resize: Resize | None = None
    labels: Path | None = None


@dataclass(frozen=True)
class Source:
    """An ONNX file together with the facts that an export needs."""

    model: ModelProto
    layout: str
    """Of its answer; as in `--layout`."""
    pixels: PixelFacts
    labels: tuple[str, ...]
    digest: str
    """`sha256:<hex>` of the file."""
    own_size: tuple[int, int] | None
    """Height and width that it must keep; None where it can be written anew for another size."""

    def size(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        """Height and width to export at: the wanted ones, else its own, else the contract's default.

        Raises:
            SetupError: it must keep its own size, and another is wanted; names its own.
        """
        if self.own_size is None:
            return wanted or (DEFAULT_HEIGHT, DEFAULT_WIDTH)
        check_own_size(self.own_size, wanted or self.own_size)
        return self.own_size


@dataclass(frozen=True)
class Evidence:
    """What one reading of a file finds on a picture: for a person to judge by, nothing here decides."""

    reading: Reading
    boxes: int
    """With a score of EVIDENCE_SCORE or more, after suppression."""
    mean_score: float | None
    """Of these; None without boxes."""

    def __str__(self) -> str:
        score = "" if self.mean_score is None else f", mean score {self.mean_score:.2f}"
        return f"{self.reading}: {self.boxes} boxes{score}"


def read_source(path: Path, options: Options) -> Source:
    """Read an ONNX file and settle layout, colour order, scale, resize and labels.

    Raises:
        SetupError: not a detector's ONNX file, or one of the facts is known from nowhere; lists the ways to
            read it, each as the options to give.
    """
    model = without_suppression(load(path))
    digest = digest_of(path)
    labels = _labels(path, model, digest, options)
    found = _readings(model, digest, labels, options)
    if not (len(found) == 1 and found[0].certain):
        raise SetupError(
            f"{path.name} does not say how it is to be read, and a wrong guess would only make it a bad "
            f"detector: give {choice(found)}, or what its training used."
        )
    if labels is None:
        raise SetupError(
            f"{path.name} carries no class names: give --labels FILE with one name a line, in class order."
        )
    reading = found[0]
    own_size = network_inputs(model).own_size if reading.layout == RT_DETR else None
    return Source(model, reading.layout, reading.pixels, labels, f"sha256:{digest}", own_size)


def readings(path: Path, options: Options) -> tuple[Reading, ...]:
    """List the ways to read a file: a single one that is certain, or all that the options leave open.

    Raises:
        SetupError: not a detector's ONNX file.
    """
    model = without_suppression(load(path))
    digest = digest_of(path)
    return _readings(model, digest, _labels(path, model, digest, options), options)


def weigh(
    path: Path,
    candidates: tuple[Reading, ...],
    picture_bgr: npt.NDArray[np.uint8],
    *,
    size: tuple[int, int] | None = None,
) -> tuple[Evidence, ...]:
    """Look at a picture in each way and say what it finds, most and surest boxes first.

    Args:
        path: the source's ONNX file.
        candidates: from `readings`.
        picture_bgr: uint8 [h, w, 3] as OpenCV reads it, of things that the detector knows.
        size: height and width of the network's picture; None for the file's own, else the default. What
            must keep its own keeps it.

    Raises:
        SetupError: ONNX Runtime cannot run it.
    """
    own = network_inputs(load(path)).own_size
    evidence = []
    references: dict[str, Reference] = {}
    for reading in candidates:
        reference = references.get(reading.layout)
        if reference is None:
            wanted = own if reading.layout == RT_DETR else size
            height, width = wanted or own or (DEFAULT_HEIGHT, DEFAULT_WIDTH)
            reference = Reference(path, reading.pixels, height=height, width=width, layout=reading.layout)
            references[reading.layout] = reference
        nms_iou = None if reference.nms_in_graph else EVIDENCE_NMS_IOU
        found = reference.reading(reading.pixels).detect(
            picture_bgr, score_threshold=EVIDENCE_SCORE, nms_iou=nms_iou
        )
        mean = float(found.scores.mean()) if len(found) else None
        evidence.append(Evidence(reading, len(found), mean))
    return tuple(sorted(evidence, key=lambda each: -each.boxes * (each.mean_score or 0)))


def _labels(path: Path, model: ModelProto, digest: str, options: Options) -> tuple[str, ...] | None:
    return read_labels(path, digest, metadata_of(model), options.labels)


def _readings(
    model: ModelProto, digest: str, labels: tuple[str, ...] | None, options: Options
) -> tuple[Reading, ...]:
    inputs = network_inputs(model)
    height, width = inputs.own_size or (DEFAULT_HEIGHT, DEFAULT_WIDTH)
    answers = ask(model, height, width, None if labels is None else len(labels))
    said = Said(options.colour, options.scale, options.resize)
    return tuple(
        reading
        for head in fitting(answers, height, width, options.layout)
        for reading in readings_of(head, digest, answers, said, takes_bytes=inputs.takes_bytes)
    )
