"""Plans: a version's model as TensorRT runs it on one kind of GPU, tried before it gets its name.

A plan works on one GPU architecture, with one version of TensorRT and one operating system, so it is built
where it will be served. A version may have a plan for each kind of GPU of a fleet: configs/tensorrt.pbtxt
names one for each compute capability (`cc_model_filenames`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consumer.cache import cache_directory, make_in_cache
from consumer.errors import SetupError
from modelops import gate
from modelops.builder_process import BuilderProcess
from modelops.config_pbtxt import TENSORRT_CONFIG_FILE, plan_file
from modelops.golden import GoldenSet
from modelops.gpu import Gpu, first_gpu
from modelops.plan_gate import judge
from modelops.plan_trial import Trial, running
from modelops.provenance import File, Plan, Provenance
from modelops.repository import MODEL_FILE, PROVENANCE_FILE, Repository
from modelops.runtime import TritonRuntime, installed
from modelops.tensorrt_builder import (
    DEFAULT_PREFERRED_BATCH,
    BuildRequest,
    BuiltPlan,
    Refusal,
    build_module,
)


@dataclass(frozen=True)
class Workshop:
    """Where plans are built and tried.

    module: the builder's Python module.
    runtime: the Triton that tries a plan; None for the embedded one.
    from_afar: there is no GPU here: the plan is built for `gpu` all the same, and the trial runs model.onnx
        on the CPU. Such a plan serves nowhere; all around it is as on a GPU, which is what tests need.
    """

    gpu: Gpu
    module: str
    runtime: TritonRuntime | None = None
    from_afar: bool = False


def this_workshop() -> Workshop:
    """Return this machine as a workshop.

    Raises:
        SetupError: it has no GPU, no Triton or no TensorRT; says where to build instead.
    """
    gpu = first_gpu()
    if gpu is None:
        raise SetupError(
            "There is no GPU here: build on the GPU that will serve the plan, in the Triton image that will "
            "serve it (docs/tensorrt.md), or add --check to ask NVIDIA's builder without one."
        )
    runtime = installed()
    if runtime is None:
        raise SetupError(
            "tritonserver is not on the PATH, and a plan is tried with it before it is taken: build in the "
            "Triton image that will serve it (docs/tensorrt.md)."
        )
    return Workshop(gpu, build_module(), runtime)


def build_plan(
    repository: Repository,
    name: str,
    version: int,
    golden: GoldenSet,
    workshop: Workshop,
    *,
    preferred_batch: int = DEFAULT_PREFERRED_BATCH,
    needed_boxes: int = gate.NEEDED_BOXES,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Build the plan of a version, replay it as it will be served, and put it beside the model.

    Args:
        repository: where the version is.
        name: of the model.
        version: its number; on the shelf, unless forced.
        golden: pictures for the trial.
        workshop: where it is built.
        preferred_batch: frames in the run that the plan is tuned for.
        needed_boxes: fewer of them in the golden set prove nothing.
        force: also into a version that is served.
        say: takes a line about how far it is.

    Returns:
        What its provenance.json now says about the plan.

    Raises:
        SetupError: TensorRT refuses the model, the plan fails its trial, or the version is served; nothing
            was written then.
    """
    _check_shelved(repository, name, version, force)
    config_text = tensorrt_config(repository, name)
    config = text_format.Parse(config_text, model_config_pb2.ModelConfig())
    file = _plan_file(config, workshop.gpu)
    model = repository.read(name, version, MODEL_FILE)
    provenance = _provenance(repository, name, version)
    known = repository.companion(name).versions
    if version not in known:
        raise SetupError(f"Nothing says the labels of version {version} of {name!r}: export it again.")

    say(f"TensorRT builds for {workshop.gpu.name}; this takes minutes")
    built, tensorrt = _build(model, config.max_batch_size, preferred_batch, workshop)
    files = {MODEL_FILE: model, file: built.content}
    with running(
        Trial(name, version, config_text, files), runtime=workshop.runtime, on_gpu=not workshop.from_afar
    ) as ask:
        report = judge(
            golden,
            model,
            ask,
            served=replace(repository.config(name), max_batch_size=config.max_batch_size),
            labels=known[version].labels,
            threshold=gate.THRESHOLDS[provenance.precision],
            needed_boxes=needed_boxes,
            say=say,
        )
    if not report.passed:
        raise SetupError(
            "The plan does not answer what ONNX Runtime answers with the same model: "
            f"{gate.figures(report)}; {report.threshold:.2f} of both is needed over {report.needed_boxes} "
            "boxes. Nothing was written: export with --precision fp32, or give more pictures with --golden."
        )
    plan = Plan(
        file=File.of(file, built.content),
        gpu=workshop.gpu.name,
        compute_capability=workshop.gpu.compute_capability,
        tensorrt=tensorrt,
        driver=workshop.gpu.driver,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        gate=report,
        max_batch_size=config.max_batch_size,
    )
    with repository.lock():
        _check_shelved(repository, name, version, force)  # it may have been promoted meanwhile
        repository.add_file(name, version, file, built.content)
        others = [each for each in _provenance(repository, name, version).plans if each.file.name != file]
        written = replace(provenance, plans=(*others, plan))
        repository.add_file(name, version, PROVENANCE_FILE, written.to_json().encode())
    return plan


def tensorrt_config(repository: Repository, name: str) -> str:
    """Text of the configuration that serves a model's plans.

    Raises:
        SetupError: there is no such model, or it has none.
    """
    for path, text in repository.config_texts(name).items():
        if path.endswith(f"/{TENSORRT_CONFIG_FILE}"):
            return text
    raise SetupError(
        f"{name!r} has no {TENSORRT_CONFIG_FILE}, so Triton would not serve a plan of it: take one from a "
        "model that `vault-ml model export` published, and change the name in it."
    )


def timing_cache_file(gpu: Gpu) -> Path:
    """Where TensorRT's timings of a GPU are kept: with them the next build takes a fraction of the time."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{gpu.name} {gpu.compute_capability}").strip("-").lower()
    return cache_directory() / "tensorrt" / f"{words}.timings"


def _build(model: bytes, max_batch: int, preferred_batch: int, workshop: Workshop) -> tuple[BuiltPlan, str]:
    """Return the plan and the version of TensorRT that made it."""
    cache = timing_cache_file(workshop.gpu)
    request = BuildRequest(
        max_batch,
        preferred_batch=preferred_batch,
        compute_capability=workshop.gpu.compute_capability if workshop.from_afar else None,
        timing_cache=cache.read_bytes() if cache.is_file() else b"",
    )
    with BuilderProcess(workshop.module) as process:
        built = process.build(model, request)
    if isinstance(built.result, Refusal):
        raise SetupError(" ".join(built.result.problems))
    if built.result.timing_cache:
        make_in_cache(cache.parent)
        temporary = cache.with_suffix(".new")
        temporary.write_bytes(built.result.timing_cache)
        temporary.replace(cache)
    return built.result, built.version


def _check_shelved(repository: Repository, name: str, version: int, force: bool) -> None:
    if version in repository.served(name) and not force:
        raise SetupError(
            f"Version {version} of {name!r} is served, and a new file in it makes a running Triton load all "
            "versions a second time at its next load: build while a version is on the shelf, or add --force."
        )


def _plan_file(config: model_config_pb2.ModelConfig, gpu: Gpu) -> str:
    named = config.cc_model_filenames.get(gpu.compute_capability)
    if named is None:
        line = (
            f'cc_model_filenames {{ key: "{gpu.compute_capability}" '
            f'value: "{plan_file(gpu.compute_capability)}" }}'
        )
        raise SetupError(
            f"{TENSORRT_CONFIG_FILE} names no plan for compute capability {gpu.compute_capability} "
            f"({gpu.name}): add `{line}` to it."
        )
    return str(named)


def _provenance(repository: Repository, name: str, version: int) -> Provenance:
    try:
        return Provenance.from_json(repository.read(name, version, PROVENANCE_FILE))
    except ValueError as error:
        raise SetupError(
            f"{PROVENANCE_FILE} of version {version} of {name!r} cannot be read ({error}): export it again."
        ) from error
