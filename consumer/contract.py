"""The contract between consumer and model: the one thing that both halves agree on.

Both sides import this module: `modelops` writes it into config.pbtxt, `detector` checks it at start.
What differs from version to version is said by the model's companion (consumer/rollout.py).
Why frames travel as I420 and detections as rows: docs/adr/0001-i420-contract.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from consumer.errors import ContractError
from consumer.rollout import Rollout, companion_name

CONTRACT_VERSION = "1"

INPUT_NAME = "FRAMES"
"""UINT8 [N, H*3/2, W]: letterboxed frames as I420 (OpenCV's COLOR_BGR2YUV_I420), limited-range BT.601."""

OUTPUT_NAME = "DETECTIONS"
"""FP32 [N, K, 6]: x1, y1, x2, y2 in network pixels, score, class index; best first, padded with score 0."""

PIXEL_FORMAT = "i420_bt601_limited"
SIZE_MULTIPLE = 32
DEFAULT_HEIGHT = 384
DEFAULT_WIDTH = 640
DEFAULT_MAX_DETECTIONS = 1000
PAD_RGB = 114
"""Grey of the letterbox border, in RGB 0-255."""
PAD_YUV = (114, 128, 128)
"""The same grey in limited-range BT.601: Y = 16 + 114 * 219 / 255 = 113.9."""

LIVE_PRIORITY = 1
"""Of a request whose recording waits for the answer; Triton's lower number goes first. The default."""
REPLAY_PRIORITY = 2
"""Of a request that nobody waits for: replays, and versions that are only compared."""

Resize = Literal["letterbox", "stretch"]


class Parameter:
    """Keys of `parameters` in config.pbtxt; values are strings."""

    CONTRACT = "vaultml_contract"
    PIXEL_FORMAT = "vaultml_pixel_format"
    RESIZE = "vaultml_resize"
    NMS = "vaultml_nms"
    """`consumer` (rows are candidates, the consumer suppresses) or `graph` (rows are final)."""
    ROLLOUT = "vaultml_rollout"
    """Of the companion model: where recordings go, as JSON (consumer/rollout.py)."""

    @staticmethod
    def labels(version: str) -> str:
        """Key of the labels of one version: a JSON list of strings, index = class index."""
        return f"vaultml_labels_{version}"

    @staticmethod
    def digest(version: str) -> str:
        """Key of the source model's digest of one version: `sha256:<hex>`."""
        return f"vaultml_digest_{version}"


@dataclass(frozen=True)
class ModelVersion:
    """What differs from one version of a model to the next."""

    version: str
    labels: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Contract:
    """What the served model promised, as read from Triton's metadata and configuration; sizes in pixels."""

    model: str
    height: int
    width: int
    max_detections: int
    max_batch_size: int
    resize: Resize
    nms_in_graph: bool
    versions: Mapping[str, ModelVersion]
    rollout: Rollout


def check_contract(
    model: str, metadata: dict[str, Any], config: dict[str, Any], companion_config: dict[str, Any] | None
) -> Contract:
    """Turn what Triton says of a model and its companion (as JSON) into a Contract.

    Args:
        model: its name.
        metadata, config: of the model.
        companion_config: of the model `companion_name(model)`; None where it is not served.

    Raises:
        ContractError: one sentence with everything that was expected and found.
    """
    parameters = _parameters(config)
    problems: list[str] = []
    input_shape = _shape(metadata.get("inputs", []), INPUT_NAME, "UINT8", 3, problems)
    output_shape = _shape(metadata.get("outputs", []), OUTPUT_NAME, "FP32", 3, problems)
    height, width = input_shape[1] * 2 // 3, input_shape[2]
    if input_shape[1] * 2 % 3 or min(height, width) <= 0 or height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
        problems.append(
            f"{INPUT_NAME} must be [N, H*3/2, W], H and W multiples of {SIZE_MULTIPLE}; found {input_shape}"
        )
    if output_shape[2] != 6 or output_shape[1] <= 0:
        problems.append(f"{OUTPUT_NAME} must be [N, K, 6], found {output_shape}")
    for key, expected in (
        (Parameter.CONTRACT, {CONTRACT_VERSION}),
        (Parameter.PIXEL_FORMAT, {PIXEL_FORMAT}),
        (Parameter.RESIZE, {"letterbox", "stretch"}),
        (Parameter.NMS, {"consumer", "graph"}),
    ):
        if parameters.get(key) not in expected:
            problems.append(
                f"parameter {key} must be {' or '.join(sorted(expected))}, found {parameters.get(key)!r}"
            )
    if problems:
        raise ContractError(
            f"Model {model!r} does not keep the contract: {'; '.join(problems)}. "
            "Export it with 'vault-ml model export', or set TRITON_MODEL to one that was."
        )
    rollout, versions = check_companion(model, companion_config)
    resize: Resize = "stretch" if parameters[Parameter.RESIZE] == "stretch" else "letterbox"
    return Contract(
        model=model,
        height=height,
        width=width,
        max_detections=output_shape[1],
        max_batch_size=max(1, int(config.get("max_batch_size", 0))),
        resize=resize,
        nms_in_graph=parameters[Parameter.NMS] == "graph",
        versions=versions,
        rollout=rollout,
    )


def check_companion(model: str, config: dict[str, Any] | None) -> tuple[Rollout, Mapping[str, ModelVersion]]:
    """Return where recordings go, and the versions by their number, as the companion of a model says.

    Args:
        model: the model, not its companion.
        config: the companion's configuration as JSON; None where Triton does not serve it.

    Raises:
        ContractError: it is not served, or something is missing in it; says what to do.
    """
    name = companion_name(model)
    if config is None:
        raise ContractError(
            f"Triton does not serve {name!r}, which says the labels and the rollout of {model!r}: "
            f"publish the model with 'vault-ml model export', and load {name!r} beside it."
        )
    parameters, problems = _parameters(config), list[str]()
    versions = _versions(parameters, problems)
    rollout = _rollout(parameters, problems)
    if rollout is not None:
        problems += [
            f"parameter {Parameter.labels(str(version))} is missing, and the rollout names that version"
            for version in sorted(rollout.in_use)
            if str(version) not in versions
        ]
    if rollout is None or problems:
        raise ContractError(
            f"Model {name!r} does not say the labels and the rollout of {model!r}: {'; '.join(problems)}. "
            f"Publish the model with 'vault-ml model export', and load {name!r} anew."
        )
    return rollout, versions


def newest(held: Contract, read: Contract) -> Contract:
    """Return the contract to go on with, after one that was held another one was read.

    While pods are changed one after another, the older state may be read after the newer one: the highest
    generation is kept. A version never changes; where one did, the repository is another one, and counts.
    """
    if any(held.versions.get(name, version) != version for name, version in read.versions.items()):
        return read
    older = read.rollout.generation < held.rollout.generation
    return replace(
        read,
        versions={**held.versions, **read.versions},
        rollout=held.rollout if older else read.rollout,
    )


def _parameters(config: dict[str, Any]) -> dict[str, str]:
    return {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}


def _rollout(parameters: dict[str, str], problems: list[str]) -> Rollout | None:
    text = parameters.get(Parameter.ROLLOUT)
    if text is None:
        problems.append(f"parameter {Parameter.ROLLOUT} is missing")
        return None
    try:
        return Rollout.from_json(text)
    except ValueError as error:
        problems.append(f"parameter {Parameter.ROLLOUT} cannot be read ({error})")
        return None


def _shape(
    tensors: list[dict[str, Any]], name: str, datatype: str, rank: int, problems: list[str]
) -> list[int]:
    found = {tensor["name"]: tensor for tensor in tensors}
    tensor = found.get(name)
    shape = [int(size) for size in tensor["shape"]] if tensor else []
    if tensor is None or tensor["datatype"] != datatype or len(shape) != rank:
        described = ", ".join(f"{t['name']} {t['datatype']} {t['shape']}" for t in tensors) or "nothing"
        problems.append(f"expected {name} {datatype} with {rank} dimensions, found {described}")
        return [-1] * rank
    return shape


def _versions(parameters: dict[str, str], problems: list[str]) -> dict[str, ModelVersion]:
    prefix = Parameter.labels("")
    versions = {}
    for key, text in parameters.items():
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix)
        try:
            labels = json.loads(text)
        except ValueError:
            labels = None
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            problems.append(f"parameter {key} must be a JSON list of strings")
            continue
        versions[name] = ModelVersion(name, tuple(labels), parameters.get(Parameter.digest(name), ""))
    if not versions:
        problems.append(f"parameter {Parameter.labels('<version>')} is missing: no version has labels")
    return versions
