"""Little detectors with random weights, written the way exporters write them: every size baked in."""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from modelops.grids import grid_points
from modelops.nodes import Nodes

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def ultralytics(height: int, width: int, *, classes: int = 3, seed: int = 0) -> ModelProto:
    """YOLO11's shapes: three scales, an attention block, a DFL head and anchors as constants; batch 1."""
    random = np.random.default_rng(seed)
    nodes = Nodes("ultralytics", 17)

    def conv(tensor: str, inputs: int, outputs: int, size: int, stride: int) -> str:
        weights = random.normal(0, 1 / np.sqrt(inputs * size * size), (outputs, inputs, size, size))
        return nodes(
            "Conv", tensor, nodes.constant(weights.astype(np.float32)),
            kernel_shape=[size, size], strides=[stride, stride], pads=[(size - stride) // 2] * 4,
        )  # fmt: skip

    def fixed(tensor: str, *shape: int) -> str:
        return nodes("Reshape", tensor, nodes.constant(np.array(shape, dtype=np.int64)))

    p3 = nodes("Relu", conv("images", 3, 8, 8, 8))
    p4 = nodes("Relu", conv(p3, 8, 8, 2, 2))
    p5 = nodes("Relu", conv(p4, 8, 8, 2, 2))
    # C2PSA: heads and cells as constants, there and back (ultralytics nn/modules/block.py, Attention).
    h, w = height // 32, width // 32
    qkv = fixed(conv(p5, 8, 16, 1, 1), 1, 2, 8, h * w)
    query, key, value = (nodes.slice(qkv, 2, start, end) for start, end in ((0, 2), (2, 4), (4, 8)))
    weights = nodes("Softmax", nodes("MatMul", nodes("Transpose", query, perm=[0, 1, 3, 2]), key), axis=-1)
    attended = nodes("MatMul", value, nodes("Transpose", weights, perm=[0, 1, 3, 2]))
    p5 = nodes("Add", p5, fixed(attended, 1, 8, h, w))
    sizes = nodes.constant(np.array([1, 8, height // 16, width // 16], dtype=np.int64))
    p4 = nodes("Add", p4, nodes("Resize", p5, "", "", sizes, mode="nearest"))

    rows = 4 * 4 + classes
    scales = [
        fixed(conv(tensor, 8, rows, 1, 1), 1, rows, (height // s) * (width // s))
        for tensor, s in ((p3, 8), (p4, 16), (p5, 32))
    ]
    together = nodes("Concat", *scales, axis=2)
    points, strides = grid_points(height, width)
    cells = len(strides)
    bins = nodes("Transpose", fixed(nodes.slice(together, 1, 0, 16), 1, 4, 4, cells), perm=[0, 2, 1, 3])
    weighed = nodes(
        "Mul",
        nodes("Softmax", bins, axis=1),
        nodes.constant(np.arange(4.0, dtype=np.float32).reshape(1, 4, 1, 1)),
    )
    distances = fixed(nodes("ReduceSum", weighed, nodes.constant(np.array([1])), keepdims=1), 1, 4, cells)
    anchors = nodes.constant((points + np.float32(0.5))[np.newaxis])
    first = nodes("Sub", anchors, nodes.slice(distances, 1, 0, 2))
    last = nodes("Add", anchors, nodes.slice(distances, 1, 2, 4))
    centre = nodes("Div", nodes("Add", first, last), nodes.constant(np.array(2, dtype=np.float32)))
    boxes = nodes("Concat", centre, nodes("Sub", last, first), axis=1)
    pixels = nodes("Mul", boxes, nodes.constant(strides[np.newaxis]))
    scores = nodes("Sigmoid", nodes.slice(together, 1, 16, rows))
    nodes("Concat", pixels, scores, axis=1, output="output0")
    model = _model(nodes, (1, 3, height, width), "output0", [1, 4 + classes, cells])
    helper.set_model_props(
        model,
        {
            "author": "Ultralytics",
            "task": "detect",
            "stride": "32",
            "names": "{0: 'cat', 1: 'dog', 2: 'cow'}",
        },
    )
    return model


def yolox(
    height: int,
    width: int,
    *,
    classes: int = 3,
    opset: int = 17,
    baked_batch: bool = False,
    pictures: int = 1,
) -> ModelProto:
    """YOLOX's raw head over a very small backbone; nothing in it says what pixels it expects.

    baked_batch: written for one frame only: the frames of a batch are taken together.
    pictures: how many the exporter wrote into the shapes.
    """
    random = np.random.default_rng(0)
    nodes = Nodes("yolox", opset)
    picture = "images"
    if baked_batch:
        picture = nodes("Sub", "images", nodes("ReduceMean", "images", axes=[0], keepdims=1))
        picture = nodes("Add", nodes("Mul", picture, nodes.constant(np.array(0.5, np.float32))), "images")
    scales = []
    for stride in (8, 16, 32):
        weights = random.normal(0, 1e-4, (5 + classes, 3, stride, stride)).astype(np.float32)
        tensor = nodes(
            "Conv", picture, nodes.constant(weights), kernel_shape=[stride] * 2, strides=[stride] * 2
        )
        cells = (height // stride) * (width // stride)
        scales.append(nodes.reshape(tensor, [pictures, 5 + classes, cells]))
    rows = nodes("Transpose", nodes("Concat", *scales, axis=2), perm=[0, 2, 1])
    located, scored = nodes.slice(rows, 2, 0, 4), nodes("Sigmoid", nodes.slice(rows, 2, 4, 5 + classes))
    nodes("Concat", located, scored, axis=2, output="output")
    total = sum((height // s) * (width // s) for s in (8, 16, 32))
    return _model(nodes, (pictures, 3, height, width), "output", [pictures, total, 5 + classes], opset)


def _model(
    nodes: Nodes, picture: tuple[int, ...], output: str, shape: list[int], opset: int = 17
) -> ModelProto:
    graph = helper.make_graph(
        [], "little",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(picture))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
    )  # fmt: skip
    nodes.put(graph, in_front=True)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
