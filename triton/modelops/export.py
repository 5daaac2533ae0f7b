"""From a detector's ONNX file to a published model: what `vault-ml model export` does."""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, ValueInfoProto

from consumer.cache import cache_directory, make_in_cache
from consumer.contract import DEFAULT_HEIGHT, DEFAULT_MAX_DETECTIONS, DEFAULT_WIDTH, INPUT_NAME
from consumer.errors import SetupError
from modelops import darknet
from modelops.catalogue import CATALOGUE, fetch, fetch_default
from modelops.config_pbtxt import Served
from modelops.download import digest_of
from modelops.graph import ContractGraph, build
from modelops.repository import Candidate, Published, Repository
from modelops.source import Options, Source, read_source

DEFAULT_NAME = "yolo"
DEFAULT_MAX_BATCH_SIZE = 32


def export(
    path: Path,
    repository: Path,
    *,
    name: str = DEFAULT_NAME,
    first_only: bool = False,
    height: int = DEFAULT_HEIGHT,
    width: int = DEFAULT_WIDTH,
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
    max_detections: int = DEFAULT_MAX_DETECTIONS,
    options: Options | None = None,
) -> Published:
    """Wrap a detector into the contract graph, prove it, and publish it as the next version of a name.

    Args:
        path: the detector's ONNX file.
        repository: directory of the model repository; made if missing.
        name: what Triton will call the model.
        first_only: refuse where the name is there already, instead of publishing its next version.
        height: of the network's picture in pixels, as width a multiple of 32.
        width: of the network's picture in pixels.
        max_batch_size: frames in one run of the model.
        max_detections: rows of the answer, fewer where the network has fewer candidates.
        options: what the file does not say.

    Raises:
        SetupError: anything in the way, each as one sentence.
    """
    source = read_source(path, options or Options())
    graph = build(source.model, source.pixels, height=height, width=width, max_detections=max_detections)
    _check_labels(source, graph)
    check_batches(graph)
    served = Served(name, height, width, graph.max_detections, max_batch_size)
    return Repository.open(repository).publish(
        Candidate(served, graph.model, source.labels, source.digest), first_only=first_only
    )


def ready_repository(repository: Path | None = None, *, name: str = DEFAULT_NAME) -> Path:
    """Return a repository that serves the default model; fetched and exported only if it is not there yet.

    Args:
        repository: where; None for one in the cache that is made anew when this program's exporter changes.
        name: of the model.

    Raises:
        SetupError: no model can be had, or it cannot be exported.
    """
    if repository is None:
        repository = cache_directory() / "repositories" / _exporter_digest()
    if not (repository / name / "config.pbtxt").is_file():
        try:
            export(fetch_default().path, repository, name=name, first_only=True)
        except SetupError:
            # Two processes may begin together; the one that comes second finds the work done.
            if not (repository / name / "config.pbtxt").is_file():
                raise
    return repository


def resolve(model: str) -> Path:
    """Turn what a user names into an ONNX file: a path, darknet's weights with a cfg, or a catalogue name.

    Raises:
        SetupError: neither a file nor in the catalogue, or it cannot be fetched or converted.
    """
    path = Path(model)
    if path.suffix == ".weights":
        content = f"{digest_of(path) if path.is_file() else ''}-{darknet.CONVERTER_VERSION}"
        target = cache_directory() / "models" / "darknet" / content / f"{path.stem}.onnx"
        make_in_cache(target.parent)
        return darknet.convert(path.with_suffix(".cfg"), path, target)
    if path.is_file():
        return path
    if model in CATALOGUE:
        return fetch(model).path
    raise SetupError(f"{model} is neither a file nor in the catalogue, which has {', '.join(CATALOGUE)}.")


def check_batches(graph: ContractGraph) -> None:
    """Prove that a batch answers what its frames answer one by one.

    A static batch that hides in a constant makes a network answer nonsense silently; nobody would notice
    before the first busy minute.

    Raises:
        SetupError: the answers differ.
    """
    model = ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in graph.raw_outputs)
    session = _session(model)
    frames = np.random.default_rng(0).integers(0, 256, (3, graph.height * 3 // 2, graph.width), np.uint8)
    together = session.run(None, {INPUT_NAME: frames})
    singles = [session.run(None, {INPUT_NAME: frame[np.newaxis]}) for frame in frames]
    for batch, *parts in zip(together, *singles, strict=True):
        expected = np.concatenate(parts)
        if batch.shape == expected.shape and np.allclose(batch, expected, rtol=1e-2, atol=1e-3):
            continue
        raise SetupError(
            "The network does not keep the frames of a batch apart: its file has a batch size of its own "
            "baked in; let its framework export it with a dynamic batch."
        )


def _check_labels(source: Source, graph: ContractGraph) -> None:
    if len(source.labels) != graph.classes:
        raise SetupError(
            f"The network knows {graph.classes} classes, but there are {len(source.labels)} labels: "
            "give --labels FILE with one name a line, in class order."
        )


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises classes of its own without a common root below Exception.
        raise SetupError(f"ONNX Runtime does not load the exported graph: {error}") from error


def _exporter_digest() -> str:
    digest = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()[:16]
