"""Verify: whether what lies in a repository keeps its promises; every problem as one sentence."""

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto, load_model_from_string

from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from modelops import config_pbtxt
from modelops.candidate import GOLDEN_FILE, MODEL_FILE, PROVENANCE_FILE
from modelops.companion import Companion
from modelops.config_check import check_configs
from modelops.config_pbtxt import CONFIG_FILE, TENSORRT_CONFIG_FILE, Served
from modelops.contents import Contents
from modelops.provenance import File, Plan, Provenance
from modelops.selftest import read_golden

_PLAN_SUFFIX = ".plan"


def verify(contents: Contents, names: Iterable[str] | None = None) -> list[str]:
    """Say everything that is wrong in a repository; nothing is changed, and no server is asked.

    Args:
        contents: of the repository.
        names: the models to look at; None for all.

    Raises:
        SetupError: the repository cannot be read, or has no such model.
    """
    models = contents.models()
    unknown = sorted(set(names or ()) - set(models))
    if unknown:
        there = ", ".join(models) or "none"
        raise SetupError(f"There is no model {unknown[0]!r} in {contents.location}; there are: {there}.")
    problems = [
        f"{where} is left of a publisher that died; it harms nobody: run any export or rollout again, and it "
        "is removed."
        for where in contents.leftovers()
    ]
    if names is None:
        problems += [
            f"{companion} has no model beside it: run the export again, or remove it."
            for companion in contents.lone_companions()
        ]
    for name in models if names is None else names:
        problems += _model(contents, name)
    return problems


def _model(contents: Contents, name: str) -> Iterator[str]:
    yield from check_configs(name, contents.config_texts(name))
    for where in contents.torn(name):
        yield f"{where} is not whole, or lies in both places: run the last command again, or remove it."
    if contents.journal(name).strip():
        yield f"A change of the rollout of {name!r} was interrupted: run it again, or any other change of it."
    served, shelved = contents.served(name), contents.shelved(name)
    if not served:
        yield f"{name!r} has no version in service: Triton does not load it."
    companion = None
    try:
        companion = contents.companion(name)
    except SetupError as error:
        yield str(error)
    for version in [*served, *shelved]:
        yield from _version(contents, name, version, companion)
    if companion is not None:
        yield from _rollout(name, companion.rollout, served, shelved)
        for version in sorted(set(companion.versions) - {*served, *shelved} - companion.rollout.in_use):
            yield (
                f"{companion_name(name)} knows version {version} of {name!r}, which is nowhere, since a "
                "command died; it harms nobody: run any export again, and it is forgotten."
            )


def _rollout(name: str, rollout: Rollout, served: list[int], shelved: list[int]) -> Iterator[str]:
    for version in sorted(rollout.in_use - set(served)):
        yield f"The rollout of {name!r} needs version {version}, which is " + (
            f"on the shelf: run `vault-ml model load {name}`."
            if version in shelved
            else "nowhere: bring its directory back, or promote another version."
        )


def _version(contents: Contents, name: str, version: int, companion: Companion | None) -> Iterator[str]:
    where, files = contents.where(name, version), contents.files(name, version)
    known = companion.versions.get(version) if companion else None
    if companion and known is None:
        yield (
            f"{where} has no labels in {companion_name(name)}, so consumers cannot use it: "
            "export it, rather than copy it there."
        )
    if MODEL_FILE not in files:
        yield f"{where} has no {MODEL_FILE}: no server without a plan for its GPU can load it."
    if GOLDEN_FILE in files:
        try:
            read_golden(contents.read(name, version, GOLDEN_FILE), f"{where}/{GOLDEN_FILE}")
        except SetupError as error:
            yield str(error)
    else:
        yield f"{where} has no {GOLDEN_FILE}, so a rollout cannot test it: export it again."
    if PROVENANCE_FILE not in files:
        yield f"{where} has no {PROVENANCE_FILE}, so nobody knows where it comes from: export it again."
        return
    try:
        provenance = Provenance.from_json(contents.read(name, version, PROVENANCE_FILE))
    except ValueError as error:
        yield f"{where}/{PROVENANCE_FILE} cannot be read ({error}): export the version again."
        return
    if known is not None:
        if len(known.labels) != provenance.classes:
            yield (
                f"{where} has {provenance.classes} classes and {len(known.labels)} labels in "
                f"{companion_name(name)}: export it again with the right labels."
            )
        if known.digest != provenance.source.digest:
            yield (
                f"{companion_name(name)} says {known.digest} of version {version}, and its "
                f"{PROVENANCE_FILE} {provenance.source.digest}: one of them is of another version."
            )
    if MODEL_FILE in files:
        yield from _graph(contents, name, version, provenance)
    yield from _plans(contents, name, version, files, provenance.plans)


def _graph(contents: Contents, name: str, version: int, provenance: Provenance) -> Iterator[str]:
    file = f"{contents.where(name, version)}/{MODEL_FILE}"
    content = contents.read(name, version, MODEL_FILE)
    if File.of(MODEL_FILE, content).digest != provenance.graph.digest:
        yield f"{file} is not the one that its {PROVENANCE_FILE} speaks of: export the version again."
    try:
        model = load_model_from_string(content)
    except DecodeError as error:
        yield f"{file} cannot be read ({error}): export the version again."
        return
    try:
        promised = contents.config(name)
    except SetupError:
        return  # said of the configuration already
    expected, found = _tensors(promised), _tensors_of(model)
    if found != expected:
        yield f"{file} has {found}, and {CONFIG_FILE} promises {expected}: export it under another --name."


def _tensors(served: Served) -> str:
    return (
        f"{INPUT_NAME} UINT8 [N, {served.height * 3 // 2}, {served.width}] -> "
        f"{OUTPUT_NAME} FLOAT [N, {served.max_detections}, 6]"
    )


def _tensors_of(model: ModelProto) -> str:
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    return " -> ".join(
        ", ".join(_tensor(each) for each in tensors) for tensors in (inputs, model.graph.output)
    )


def _tensor(value: ValueInfoProto) -> str:
    dims = list(value.type.tensor_type.shape.dim)[1:]
    sizes = ", ".join(["N", *(str(dim.dim_value or dim.dim_param or "?") for dim in dims)])
    return f"{value.name} {TensorProto.DataType.Name(value.type.tensor_type.elem_type)} [{sizes}]"


def _plans(
    contents: Contents, name: str, version: int, files: list[str], plans: tuple[Plan, ...]
) -> Iterator[str]:
    where, most = contents.where(name, version), _plan_batch(contents, name)
    for file in sorted(set(files) - {plan.file.name for plan in plans}):
        if file.endswith(_PLAN_SUFFIX):
            yield f"{where}/{file} is not in its {PROVENANCE_FILE}: build it with `vault-ml model build`."
    for plan in plans:
        file = f"{where}/{plan.file.name}"
        if plan.file.name not in files:
            yield f"{file} is missing, and its {PROVENANCE_FILE} speaks of it: build it again."
        elif _of(contents, name, version, plan.file.name).digest != plan.file.digest:
            yield f"{file} is not the one that its {PROVENANCE_FILE} speaks of: build it again."
        if most is not None and 0 < plan.max_batch_size < most:
            yield (
                f"{file} takes batches of {plan.max_batch_size} frames at most, and {TENSORRT_CONFIG_FILE} "
                f"promises {most}: build it again, or lower max_batch_size there."
            )


def _plan_batch(contents: Contents, name: str) -> int | None:
    """Most frames in one run that TensorRT's configuration promises; None where there is none to read."""
    for where, text in contents.config_texts(name).items():
        if where.endswith(f"/{TENSORRT_CONFIG_FILE}"):
            try:
                return config_pbtxt.read(text, where).max_batch_size
            except SetupError:
                return None  # said of the configuration already
    return None


def _of(contents: Contents, name: str, version: int, file: str) -> File:
    return File.of(file, contents.read(name, version, file))
