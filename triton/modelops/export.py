"""From a detector's file to a published version: what `vault-ml model export` does."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from consumer.cache import cache_directory, make_in_cache
from consumer.errors import SetupError
from modelops import checkpoint, darknet, gate, precision, sighting, tensorrt_check
from modelops.catalogue import CATALOGUE, fetch, fetch_default
from modelops.config_pbtxt import Served
from modelops.download import digest_of
from modelops.golden import GoldenSet, at_hand, golden_set
from modelops.graph import ContractGraph
from modelops.preparation import converted, plain_graph, settled, split
from modelops.provenance import File, GateReport, Precision, Provenance
from modelops.reference import Reference
from modelops.repository import MODEL_FILE, Candidate, Published, Repository
from modelops.request import Request
from modelops.sighting import Sighting
from modelops.source import Source, read_source

DEFAULT_NAME = "yolo"

_TOOLS = ("vault-ml", "onnx", "onnxruntime", "onnxslim", "numpy")
_GLIMPSES = 4
"""Pictures to choose one from that shows something, where there is no replay."""

_ANOTHER_SECONDS = 3.0
"""Longer than it takes to write a model of the catalogue."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    published: Published
    provenance: Provenance
    sighting: Sighting


def export(
    path: Path,
    repository: str | Path,
    *,
    name: str = DEFAULT_NAME,
    request: Request | None = None,
    force: bool = False,
    check: bool = False,
    say: Say = lambda _: None,
) -> Exported:
    """Wrap a detector into the contract graph, prove it against its source, and publish it.

    Args:
        path: the detector's ONNX file.
        repository: path or URL of the model repository; made if missing.
        name: what Triton will call the model.
        request: everything else that may be asked for.
        force: publish also what does not pass the accuracy gate; the provenance then says so.
        check: ask NVIDIA's parser and builder too, which needs no GPU (modelops/tensorrt_check.py).
        say: takes a line about what happens now.

    Raises:
        SetupError: anything in the way, each as one sentence; nothing was published then.
    """
    request = request or Request()
    golden = golden_set(request.golden)
    say("Reading the file")
    source = settled(path, request, golden)
    place = Repository.open(repository)
    plain = plain_graph(source, request)
    served = _served(name, plain, request)
    candidate = Candidate(served, plain.model, source.labels, source.digest)
    place.check(candidate)
    calibration, judged = split(golden, request)
    graph = converted(plain, request.precision, calibration, say)
    checked_by = _checked(graph, request, say) if check else None
    say("Replaying the golden set")
    report, sight = _proven(path, source, graph, judged, request.precision, say=say)
    if not (report.passed or force):
        raise SetupError(gate.complaint(report))
    provenance = replace(
        _provenance(path, source, graph, request),
        golden=judged.files,
        calibration=calibration.files if request.precision == "int8" else (),
        gate=report,
        forced=not report.passed,
        checked_by=checked_by,
    )
    return _published(place, replace(candidate, model=graph.model), provenance, sight)


def export_unproven(path: Path, repository: str | Path, *, name: str = DEFAULT_NAME) -> Exported:
    """Publish a model of the catalogue in FP32 without a replay, unless its name is there already.

    That saves half a minute before the first picture of a demonstration. These exports are proven by the
    tests of this project, file by file.

    Raises:
        SetupError: the name is there, or anything else is in the way.
    """
    request = Request()
    source = read_source(path, request.options)
    graph = plain_graph(source, request)
    answer = sighting.answer_of(graph)
    glimpses = [*at_hand().some_pictures(_GLIMPSES)]
    sightings = [sighting.look(graph, answer, picture, source.labels) for picture in glimpses]
    sight = sighting.best(sightings) if sightings else sighting.look(graph, answer, None, source.labels)
    provenance = replace(
        _provenance(path, source, graph, request),
        gate_skipped="a model of the catalogue in FP32: proven by the tests of vault-ml",
    )
    candidate = Candidate(_served(name, graph, request), graph.model, source.labels, source.digest)
    return _published(Repository.open(repository), candidate, provenance, sight, first_only=True)


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
            export_unproven(fetch_default().path, repository, name=name)
        except SetupError:
            if not _published_by_another(repository, name):
                raise
    return repository


def resolve(model: str) -> Path:
    """Turn what a user names into an ONNX file: one, darknet's weights, a checkpoint or a catalogue name.

    Raises:
        SetupError: neither a file nor in the catalogue, or it cannot be fetched or converted.
    """
    path = Path(model)
    if path.suffix == ".weights":
        content = f"{digest_of(path) if path.is_file() else ''}-{darknet.CONVERTER_VERSION}"
        target = cache_directory() / "models" / "darknet" / content / f"{path.stem}.onnx"
        make_in_cache(target.parent)
        return darknet.convert(path.with_suffix(".cfg"), path, target)
    if path.suffix == ".pt":
        return checkpoint.convert(path)
    if path.is_file():
        return path
    if model in CATALOGUE:
        return fetch(model).path
    raise SetupError(f"{model} is neither a file nor in the catalogue, which has {', '.join(CATALOGUE)}.")


def _checked(graph: ContractGraph, request: Request, say: Say) -> str:
    say("Asking NVIDIA's parser and builder")
    report = tensorrt_check.check(graph.model.SerializeToString(), max_batch=request.max_batch_size)
    if not report.accepted:
        raise SetupError(f"{' '.join(report.problems)} Nothing was published.")
    return report.builder


def _proven(
    path: Path, source: Source, graph: ContractGraph, golden: GoldenSet, to: Precision, *, say: Say
) -> tuple[GateReport, Sighting]:
    answer = sighting.answer_of(graph)
    replayed = gate.replay(
        golden,
        Reference(path, source.pixels, height=graph.height, width=graph.width, layout=source.layout),
        {to: answer},
        height=graph.height,
        width=graph.width,
        resize=graph.resize,
        nms_in_graph=graph.nms_in_graph,
        labels=source.labels,
        say=lambda how_far: say(f"Replaying the golden set: {how_far}"),
    )
    sight = sighting.look(graph, answer, replayed.best.picture, source.labels)
    return replayed.tallies[to].report(gate.THRESHOLDS[to]), sight


def _served(name: str, graph: ContractGraph, request: Request) -> Served:
    return Served(
        name,
        graph.height,
        graph.width,
        graph.max_detections,
        request.max_batch_size,
        resize=graph.resize,
        nms_in_graph=graph.nms_in_graph,
    )


def _provenance(path: Path, source: Source, graph: ContractGraph, request: Request) -> Provenance:
    return Provenance(
        source=File(path.name, source.digest, path.stat().st_size),
        graph=File.of(MODEL_FILE, graph.model.SerializeToString()),
        layout=source.layout,
        classes=graph.classes,
        labels=len(source.labels),
        height=graph.height,
        width=graph.width,
        max_detections=graph.max_detections,
        precision=request.precision,
        options=request.said(),
        kept_fp32=precision.kept_fp32(graph, request.precision),
        tools={tool: metadata.version(tool) for tool in _TOOLS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _published(
    place: Repository,
    candidate: Candidate,
    provenance: Provenance,
    sight: Sighting,
    *,
    first_only: bool = False,
) -> Exported:
    whole = replace(candidate, provenance=provenance.to_json().encode(), golden=sight.answer.to_npz())
    return Exported(place.publish(whole, first_only=first_only), provenance, sight)


def _published_by_another(repository: Path, name: str) -> bool:
    """Whether a process that began at the same time has done the work; waits while it holds the lock."""
    deadline = time.monotonic() + _ANOTHER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(SetupError), Repository.open(repository).lock():
            break
        time.sleep(0.05)
    return (repository / name / "config.pbtxt").is_file()


def _exporter_digest() -> str:
    digest = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()[:16]
