"""INT8 as Q/DQ: which layers of a network bear it is measured, and the others stay in FP32.

Symmetric, per channel for the weights, no quantised bias, and nothing behind a layer but what the next one
quantises for itself: TensorRT takes no other Q/DQ (docs.nvidia.com/deeplearning/tensorrt, "Working with
Quantized Types", explicit quantization).
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError
from modelops.answers import open_session
from modelops.graph import ContractGraph
from modelops.onnx_graph import copy_of, with_outputs
from modelops.precision import checked, features, layers, with_node_names

CALIBRATION_PICTURES = 64

NOISE_BUDGET = 0.005
"""What all quantised layers together may do to the network's last features: power of the noise, as a share of
the features' own. Noise of different layers adds up; so the layers that make most of it stay in FP32."""

_PROBES = 2
"""Frames on which a layer's noise is measured; it differs by far more between layers than between frames."""

Frames = Sequence[npt.NDArray[np.uint8]]


def to_int8(graph: ContractGraph, frames: Frames) -> ContractGraph:
    """Quantise the layers of a network that bear it.

    Args:
        graph: in FP32.
        frames: uint8 [H*3/2, W] of the contract, to calibrate with.

    Raises:
        SetupError: there are no frames, or the network cannot be quantised.
    """
    if not len(frames):
        raise SetupError("INT8 needs pictures to calibrate with: give a folder, --calibration DIR.")
    model = with_node_names(graph.model)
    with tempfile.TemporaryDirectory(prefix="vault-ml-int8-") as directory, _quiet():
        quantiser = _Quantiser(model, frames, Path(directory))
        quantiser.quantise(node.name for node in layers(model))  # calibrates all layers at once
        noise = _noise(quantiser, graph.raw_outputs, _probes(frames))
        chosen = bearable(noise, NOISE_BUDGET)
        if not chosen:
            raise SetupError("No layer of this network bears INT8: use --precision fp16.")
        quantised = quantiser.quantise(chosen)
    return replace(graph, model=checked(quantised))


def bearable(noise: dict[str, float], budget: float) -> list[str]:
    """Return the layers that make least noise, as many as stay within the budget together."""
    quietest = sorted(noise, key=lambda name: noise[name])
    sums = np.cumsum([noise[name] for name in quietest])
    return quietest[: int(np.searchsorted(sums, budget, side="right"))]


def _probes(frames: Frames) -> Frames:
    """Choose frames from all over, as neighbours show the same."""
    return frames[:: max(1, len(frames) // _PROBES)][:_PROBES]


def _noise(quantiser: "_Quantiser", outputs: Sequence[str], probes: Frames) -> dict[str, float]:
    """Measure for each layer what quantising it alone does to the last features, those before decoding.

    In boxes and scores a pixel would count more than a class.
    """
    names = features(quantiser.model, outputs)
    plain = _values(quantiser.model, names, probes)
    noise = {}
    for node in layers(quantiser.model):
        noisy = _values(quantiser.quantise([node.name]), names, probes)
        shares = [
            ((found - expected) ** 2).sum() / max(float((expected**2).sum()), 1e-12)
            for found, expected in zip(noisy, plain, strict=True)
        ]
        noise[node.name] = float(np.mean(shares))
    return noise


def _values(model: ModelProto, names: Sequence[str], frames: Frames) -> list[npt.NDArray[np.float64]]:
    """Return tensors inside a model, each for all frames."""
    session = open_session(with_outputs(model, names))
    values = [session.run(None, {INPUT_NAME: frame[np.newaxis]}) for frame in frames]
    return [np.stack(tensors).astype(np.float64) for tensors in zip(*values, strict=True)]


class _Quantiser:
    """Quantises layers of one model; it is calibrated once."""

    def __init__(self, model: ModelProto, frames: Frames, directory: Path) -> None:
        self.model = model
        self._frames = frames
        self._directory = directory

    def quantise(self, names: Iterable[str]) -> ModelProto:
        """Return the model with Q/DQ around these nodes.

        Raises:
            SetupError: onnxruntime does not quantise it.
        """
        result = self._directory / "quantised.onnx"
        try:
            quantize_static(
                copy_of(self.model),
                result,
                _Reader(self._frames),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=list(names),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                # Next to percentiles, once the noisy layers are left out: a seventh of the time, and not
                # every activation in memory.
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=self._directory / "ranges.json",
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "OpTypesToExcludeOutputQuantization": ["Conv", "ConvTranspose", "MatMul", "Gemm"],
                },
            )
        except Exception as error:
            # onnxruntime raises classes of its own without a common root below Exception.
            raise SetupError(f"The network cannot be quantised ({error}): use --precision fp16.") from error
        return onnx.load(result)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, frames: Frames) -> None:
        self._frames = iter(frames)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """Return the next input, None after the last."""
        frame = next(self._frames, None)
        return None if frame is None else {INPUT_NAME: frame[np.newaxis]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's advice to optimise the model first from the user: the exporter has done that."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
