"""NVIDIA's builder behind one adapter: an ONNX file in, a plan out, or why TensorRT refuses it.

Python modules with the same API are `tensorrt`, which builds on the GPU that will run the plan, and
`tensorrt_rtx_bindings`, which parses and builds on a machine without one. Networks are strongly typed: the
precision is in the ONNX file. TensorRT 10 asks for that with a flag; for TensorRT 11 it is the only way, and
the flags for precisions are gone (docs.nvidia.com/deeplearning/tensorrt, "Python Migration Patterns for
TensorRT 11.x").
"""

import importlib.util
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError

BUILD_MODULES = ("tensorrt", "tensorrt_bindings")
"""Build plans that Triton serves, on a machine with a GPU: the whole package, or its bindings alone, which
use the libraries of the image that they are in."""

CHECK_MODULE = "tensorrt_rtx_bindings"
"""Parses and builds anywhere: TensorRT for RTX, whose plans Triton does not serve."""

OLDEST_MAJOR = 10
"""Of TensorRT: the first that builds every strongly typed network."""

DEFAULT_PREFERRED_BATCH = 8

_NO_GPU = "CUDA driver version is insufficient"
_INSIDE = re.compile(r"Error Code \d+: [^(]+\((.*?)(?: In \w+ at /|\)\s*$)", re.MULTILINE)
_PLACE = re.compile(r"\s*;?\s*In \S+(?:\(\))? at /\S+")
_NOT_THERE = "Plugin not found"


@dataclass(frozen=True)
class BuildRequest:
    """What a plan is built for.

    Args:
        max_batch: frames in the largest run; equal to max_batch_size of the configuration.
        preferred_batch: frames in the run that the plan is tuned for; never more than max_batch.
        compute_capability: of the GPU that the plan is for, like "8.9"; None for the one in this machine.
        level: how long the builder looks for a faster plan, 0 to 5; None for TensorRT's own choice.
        timing_cache: what an earlier build measured, to be reused; empty for none.
    """

    max_batch: int
    preferred_batch: int = DEFAULT_PREFERRED_BATCH
    compute_capability: str | None = None
    level: int | None = None
    timing_cache: bytes = b""

    @property
    def batches(self) -> tuple[int, int, int]:
        """Smallest, preferred and largest batch of the optimisation profile."""
        return 1, min(self.preferred_batch, self.max_batch), self.max_batch


@dataclass(frozen=True)
class BuiltPlan:
    """A plan, ready to be served.

    layers: of the network as parsed, before the builder fuses them.
    timing_cache: what this build measured on top of the cache it got; empty where the builder keeps none.
    """

    content: bytes
    layers: int
    seconds: float
    timing_cache: bytes


@dataclass(frozen=True)
class Refusal:
    """Why TensorRT makes no plan of a model; each problem is one sentence."""

    problems: tuple[str, ...]


class TensorRT:
    """One of the two modules, already imported."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - neither module has types
        self._trt = module

    @classmethod
    def load(cls, module: str) -> Self:
        """Import one of the modules.

        Raises:
            SetupError: it is not installed, does not load here, or is older than TensorRT 10.
        """
        try:
            # NVIDIA's bindings warn about themselves when they are imported.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trt = cls(importlib.import_module(module))
        except ModuleNotFoundError as error:
            raise SetupError(missing(module)) from error
        except (ImportError, OSError) as error:
            raise SetupError(f"TensorRT is installed, but {module} does not load here: {error}.") from error
        if module in BUILD_MODULES and int(trt.version.partition(".")[0]) < OLDEST_MAJOR:
            raise SetupError(
                f"TensorRT {trt.version} is too old: plans need TensorRT {OLDEST_MAJOR} or newer, "
                "so use a Triton image of 2024 or later."
            )
        return trt

    @property
    def version(self) -> str:
        """Of the builder, which Triton's TensorRT must equal to load its plans."""
        return str(self._trt.__version__)

    def build(self, model: bytes, request: BuildRequest) -> BuiltPlan | Refusal:
        """Parse a contract graph and build a plan of it.

        Args:
            model: the ONNX file.
            request: what the plan is for.

        Raises:
            SetupError: the request is not possible with this module or on this machine.
        """
        trt, began = self._trt, time.monotonic()
        logger = _logger(trt)
        try:
            builder = trt.Builder(logger)
        except TypeError as error:  # what the bindings make of a builder that could not be made
            why = "; ".join(dict.fromkeys(map(_sentence, logger.failures))) or str(error)
            raise SetupError(f"TensorRT {self.version} does not start on this machine: {why}.") from error
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model):
            return Refusal(tuple(dict.fromkeys(_problems(parser))))
        config = builder.create_builder_config()
        if request.level is not None:
            config.builder_optimization_level = request.level
        if request.compute_capability is not None:
            self._aim(config, request.compute_capability)
        config.add_optimization_profile(_profile(builder, network, request))
        with warnings.catch_warnings():
            # TensorRT for RTX has the calls, but no use for the timings, and says so at each of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            timings = _timings(config, request.timing_cache)
            content = builder.build_serialized_network(network, config)
            cache = bytes(timings.serialize())
        if content is None:
            return Refusal((_why(logger.failures),))
        return BuiltPlan(bytes(content), network.num_layers, time.monotonic() - began, cache)

    def _network_flags(self) -> int:
        flags = self._trt.NetworkDefinitionCreationFlag
        # No EXPLICIT_BATCH: since TensorRT 10 there is no other kind of batch.
        strongly_typed = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if strongly_typed is None else 1 << int(strongly_typed)

    def _aim(self, config: Any, compute_capability: str) -> None:  # noqa: ANN401 - TensorRT's own type
        name = f"SM{compute_capability.replace('.', '')}"
        target = getattr(getattr(self._trt, "ComputeCapability", None), name, None)
        if target is None:
            raise SetupError(
                f"TensorRT {self.version} does not build for compute capability {compute_capability} "
                "from another machine: build on that GPU."
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(target, 0)


def build_module() -> str:
    """Return the module that builds plans here.

    Raises:
        SetupError: there is none.
    """
    for module in BUILD_MODULES:
        if importlib.util.find_spec(module) is not None:
            return module
    raise SetupError(missing(BUILD_MODULES[0]))


def missing(module: str) -> str:
    """Say in one sentence how to get a module that is not there."""
    if module in BUILD_MODULES:
        return (
            "TensorRT is not here: build in the Triton image that will serve the plan, on its GPU, with the "
            "Python package of the image's TensorRT version (docs/tensorrt.md)."
        )
    return "NVIDIA's builder is not here: install vault-ml with its extra, `pip install '.[tensorrt]'`."


def _profile(builder: Any, network: Any, request: BuildRequest) -> Any:  # noqa: ANN401 - TensorRT's own types
    profile = builder.create_optimization_profile()
    frames = next(
        (tensor for tensor in map(network.get_input, range(network.num_inputs)) if tensor.name == INPUT_NAME),
        None,
    )
    if frames is None:
        raise SetupError(
            f"The model has no input {INPUT_NAME}: export it with `vault-ml model export` before it is built."
        )
    profile.set_shape(INPUT_NAME, *((batch, *tuple(frames.shape)[1:]) for batch in request.batches))
    return profile


def _timings(config: Any, known: bytes) -> Any:  # noqa: ANN401 - TensorRT's own types
    """Give the builder what earlier builds measured; from another GPU or version, it starts from nothing."""
    for content in dict.fromkeys((known, b"")):
        timings = config.create_timing_cache(content)
        if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
            return timings  # the caller holds on to it: it must live until the plan is built
    raise SetupError("TensorRT takes no timing cache, not even an empty one: its installation is broken.")


def _logger(trt: Any) -> Any:  # noqa: ANN401 - TensorRT's own type
    # TensorRT-RTX looks for a GPU before it builds for another, and complains that there is none.
    builds_from_afar = hasattr(trt, "ComputeCapability")

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base comes with the module
        """Keeps what TensorRT says is wrong, instead of printing it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.failures: list[str] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - TensorRT's own type
            if severity <= trt.ILogger.ERROR and not (builds_from_afar and _NO_GPU in message):
                self.failures.append(message)

    return Logger()


def _problems(parser: Any) -> Iterator[str]:  # noqa: ANN401 - TensorRT's own type
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        if error.node() < 0:
            yield "TensorRT's parser cannot read this: it is no ONNX file, or a damaged one."
            continue
        node = f"node {error.node_name() or error.node()!r}"
        if error.code().name == "UNSUPPORTED_NODE" or _NOT_THERE in error.desc():
            yield f"TensorRT does not support the operator {error.node_operator()} as {node} uses it."
        else:
            yield f"TensorRT refuses {node} ({error.node_operator()}): {_sentence(error.desc())}."


def _why(errors: list[str]) -> str:
    reasons = list(dict.fromkeys(_sentence(error) for error in errors))
    return f"TensorRT read the model, but built no plan: {'; '.join(reasons) or 'it gave no reason'}."


def _sentence(text: str) -> str:
    """The reason inside TensorRT's own words, on one line; without the places in its source code."""
    inside = _INSIDE.search(text)
    return " ".join(_PLACE.sub("", inside[1] if inside else text).split()).rstrip(".")
