"""A source model and what must be known of it: from the catalogue, its metadata or an option; no guess."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from consumer.errors import SetupError
from modelops import darknet
from modelops.catalogue import known
from modelops.download import digest_of
from modelops.graph import Colour, PixelFacts, Scale
from modelops.heads import DARKNET_METADATA
from modelops.network import load

_ULTRALYTICS_PIXELS = PixelFacts(colour="rgb", scale="1")
"""ultralytics/engine/predictor.py, preprocess: BGR to RGB, divided by 255."""


@dataclass(frozen=True)
class Options:
    """What a user may say about a model; None where the file must know."""

    colour: Colour | None = None
    scale: Scale | None = None
    labels: Path | None = None


@dataclass(frozen=True)
class Source:
    """An ONNX file together with the facts that an export needs."""

    model: ModelProto
    pixels: PixelFacts
    labels: tuple[str, ...]
    digest: str
    """`sha256:<hex>` of the file."""


def read_source(path: Path, options: Options) -> Source:
    """Read an ONNX file and settle colour order, scale and labels.

    Raises:
        SetupError: not an ONNX file, or one of the facts is known from nowhere; names the option to give.
    """
    model = load(path)
    digest = digest_of(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Source(
        model=model,
        pixels=_pixels(path, digest, metadata, options),
        labels=_labels(path, digest, metadata, options),
        digest=f"sha256:{digest}",
    )


def _pixels(path: Path, digest: str, metadata: dict[str, str], options: Options) -> PixelFacts:
    entry = known(digest)
    facts = None
    if entry is not None:
        facts = entry.pixels
    elif DARKNET_METADATA in metadata:
        facts = darknet.PIXELS
    elif _is_ultralytics(metadata):
        facts = _ULTRALYTICS_PIXELS
    colour = options.colour or (facts.colour if facts else None)
    scale = options.scale or (facts.scale if facts else None)
    if colour is None or scale is None:
        raise SetupError(
            f"{path.name} does not say what pixels it expects, and a wrong guess would only make it a bad "
            "detector: give --colour bgr --scale 255 (YOLOX since 0.1.1), --colour rgb --scale 1 "
            "(Ultralytics, darknet), or what its training used."
        )
    return PixelFacts(colour, scale)


def _labels(path: Path, digest: str, metadata: dict[str, str], options: Options) -> tuple[str, ...]:
    if options.labels is not None:
        return _labels_from_file(options.labels)
    entry = known(digest)
    if entry is not None:
        return entry.labels
    in_darknet = _labels_from_darknet(path, metadata.get(DARKNET_METADATA, "{}"))
    if in_darknet:
        return in_darknet
    if "names" in metadata:
        return _labels_from_names(path, metadata["names"])
    raise SetupError(
        f"{path.name} carries no class names: give --labels FILE with one name a line, in class order."
    )


def _labels_from_darknet(path: Path, text: str) -> tuple[str, ...]:
    try:
        labels = json.loads(text).get("labels") or []
        return tuple(str(label) for label in labels)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SetupError(
            f"The metadata {DARKNET_METADATA} in {path.name} is damaged: convert its .weights again."
        ) from error


def _labels_from_file(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"The labels in {file} cannot be read: {error}.") from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise SetupError(f"{file} holds no labels: write one class name a line, in class order.")
    return labels


def _labels_from_names(path: Path, text: str) -> tuple[str, ...]:
    """Read Ultralytics' `names`, the text of a Python dict {0: 'person', ...}; parsed, never evaluated."""
    try:
        names = ast.literal_eval(text)
        items = names.items() if isinstance(names, dict) else enumerate(names)
        by_index = {int(index): str(name) for index, name in items}
        return tuple(by_index[index] for index in range(len(by_index)))
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise SetupError(
            f"The class names in the metadata of {path.name} cannot be read: give --labels FILE."
        ) from error


def _is_ultralytics(metadata: dict[str, str]) -> bool:
    return metadata.get("author") == "Ultralytics" or {"names", "stride", "task"} <= metadata.keys()
