"""The contract graph: I420 frames in, the best candidates out, as one ONNX file (consumer/contract.py)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper, shape_inference

from consumer.contract import DEFAULT_MAX_DETECTIONS, INPUT_NAME, OUTPUT_NAME, SIZE_MULTIPLE, Resize
from consumer.errors import SetupError
from modelops.answers import ask
from modelops.heads import RT_DETR, identify
from modelops.network import at_size, network_inputs
from modelops.nodes import Nodes

Colour = Literal["rgb", "bgr"]
Scale = Literal["1", "255"]

NEWEST_OPSET = 21
"""What the oldest server that we support (Triton 24.10, ONNX Runtime 1.19) still loads."""

_LUMA, _CHROMA_BLACK, _LUMA_BLACK = 255 / 219, 128.0, 16.0


@dataclass(frozen=True)
class PixelFacts:
    """What a network expects in its picture; never guessed.

    colour: order of the three planes. scale: white is 1 or 255. resize: whether pictures keep their shape.
    No mean, no deviation: none of the supported families has them.
    """

    colour: Colour
    scale: Scale
    resize: Resize = "letterbox"

    def __str__(self) -> str:
        return f"--colour {self.colour} --scale {self.scale} --resize {self.resize}"


@dataclass(frozen=True)
class ContractGraph:
    """A model that keeps the contract; sizes in pixels."""

    model: ModelProto
    layout: str
    height: int
    width: int
    max_detections: int
    classes: int
    resize: Resize
    nms_in_graph: bool
    """The rows are final boxes: the consumer suppresses nothing."""
    raw_outputs: tuple[str, ...]
    """Tensors inside the graph that the network itself answers, before decoding."""


def build(
    source: ModelProto,
    pixels: PixelFacts,
    *,
    height: int,
    width: int,
    max_detections: int = DEFAULT_MAX_DETECTIONS,
    layout: str | None = None,
    labels: int | None = None,
) -> ContractGraph:
    """Wrap a detector's network into the contract graph.

    Args:
        source: the detector; left as it is.
        pixels: what it expects in its picture.
        height: of the network's picture in pixels, as width a multiple of 32.
        width: of the network's picture in pixels.
        max_detections: rows of the answer, fewer where the network has fewer candidates.
        layout: of its answer, as in `--layout`; None where only one fits.
        labels: how many class names there are; needed where the answer does not show the number of classes.

    Raises:
        SetupError: an unknown head, a size that will not do, or a network that cannot be rewritten.
    """
    if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE or min(height, width) <= 0:
        raise SetupError(
            f"The size {height}x{width} will not do: height and width must be multiples of {SIZE_MULTIPLE}."
        )
    head = identify(ask(source, height, width, labels), height, width, layout)
    inputs = network_inputs(source)
    if head.layout == RT_DETR and inputs.own_size is not None:
        check_own_size(inputs.own_size, (height, width))
    model = at_size(source, height, width, head.outputs)
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > NEWEST_OPSET:
        raise SetupError(
            f"The file uses opset {opset}; export it again with opset {NEWEST_OPSET} or older, "
            "the newest that the server loads."
        )
    before = Nodes("contract_in", opset)
    _picture(before, inputs.picture, pixels, height, width)
    before.put(graph, in_front=True)

    after = Nodes("contract_out", opset)
    candidates = head.decode(after, head.outputs)
    rows = min(max_detections, head.candidates)
    best, indices = after.many(
        "TopK", candidates.scores, after.constant(np.array([rows])), outputs=2, axis=1, largest=1, sorted=1
    )
    four = after("Concat", *[indices] * 4, axis=2)
    boxes = after("GatherElements", candidates.boxes, four, axis=1)
    classes = after("GatherElements", candidates.classes, indices, axis=1)
    after("Concat", boxes, best, classes, output=OUTPUT_NAME, axis=2)
    after.put(graph, in_front=False)

    del graph.input[:], graph.output[:]
    graph.input.append(_tensor(INPUT_NAME, TensorProto.UINT8, ["N", height * 3 // 2, width]))
    graph.output.append(_tensor(OUTPUT_NAME, TensorProto.FLOAT, ["N", rows, 6]))
    # Other domains (com.microsoft) have versions of their own, which say nothing about the file format's.
    default_domain = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    model.ir_version = helper.find_min_ir_version_for(default_domain)
    checker.check_model(model)
    shape_inference.infer_shapes(model, strict_mode=True)
    return ContractGraph(
        model=model,
        layout=head.layout,
        height=height,
        width=width,
        max_detections=rows,
        classes=head.classes if head.classes is not None else labels or 0,
        resize=pixels.resize,
        nms_in_graph=head.nms_in_graph,
        raw_outputs=head.outputs,
    )


def check_own_size(own: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Refuse another height and width than a network's own, where its positions are written into the file.

    Raises:
        SetupError: names its own size.
    """
    if wanted != own:
        raise SetupError(
            f"The positions in this RT-DETR or D-FINE file belong to pictures of {own[0]}x{own[1]}, so it "
            f"cannot have {wanted[0]}x{wanted[1]}: give --size {own[0]}x{own[1]}, or leave --size out."
        )


def colour_matrix(pixels: PixelFacts) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Matrix [3, 3] and offset [3] from limited-range BT.601 Y, U, V to a network's planes.

    ITU-R BT.601-7, section 2.5: Kr = 0.299, Kb = 0.114, luma 16-235, chroma 16-240.
    """
    red, blue, green = 0.299, 0.114, 0.587
    chroma = 255 / 224
    rgb = np.array(
        [
            [_LUMA, 0.0, 2 * (1 - red) * chroma],
            [_LUMA, -2 * (1 - blue) * blue / green * chroma, -2 * (1 - red) * red / green * chroma],
            [_LUMA, 2 * (1 - blue) * chroma, 0.0],
        ]
    )
    matrix = rgb if pixels.colour == "rgb" else rgb[::-1]
    matrix = matrix / (255.0 if pixels.scale == "1" else 1.0)
    offset = -matrix @ np.array([_LUMA_BLACK, _CHROMA_BLACK, _CHROMA_BLACK])
    return matrix.astype(np.float32), offset.astype(np.float32)


def _picture(nodes: Nodes, network_input: str, pixels: PixelFacts, height: int, width: int) -> None:
    """From I420 planes to the network's picture: the colour matrix is a 1x1 convolution, scaling is in it."""
    planes = nodes("Cast", INPUT_NAME, to=nodes.FLOAT)
    luma = nodes.reshape(nodes.slice(planes, 1, 0, height), [0, 1, height, width])
    chroma_rows = nodes.slice(planes, 1, height, height * 3 // 2)
    chroma = nodes.reshape(chroma_rows, [0, 2, height // 2, width // 2])
    doubled = nodes.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    full = nodes(
        "Resize", chroma, "", doubled,
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    matrix, offset = colour_matrix(pixels)
    yuv = nodes("Concat", luma, full, axis=1)
    weights, bias = nodes.constant(matrix[:, :, np.newaxis, np.newaxis]), nodes.constant(offset)
    colour = nodes("Conv", yuv, weights, bias, kernel_shape=[1, 1])
    white = np.array(1.0 if pixels.scale == "1" else 255.0, dtype=np.float32)
    nodes("Clip", colour, nodes.constant(np.zeros_like(white)), nodes.constant(white), output=network_input)


def _tensor(name: str, element_type: int, shape: list[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape)
