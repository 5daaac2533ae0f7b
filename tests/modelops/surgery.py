"""YOLOX-nano opened before its last operators, so that another exporter's ending can be put behind it."""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto, helper, version_converter

from modelops.nodes import Nodes

OPSET = 17
STRIDES = (8, 16, 32)
CLASSES = 80
QUERIES = 300

Array = npt.NDArray[np.float32]


class Surgery:
    """YOLOX-nano without its last operators, and what to append others with.

    `maps` are its three scales [1, 85, H/stride, W/stride]: x, y, log w, log h, objectness, classes.
    """

    def __init__(self, source: ModelProto) -> None:
        self.model = version_converter.convert_version(source, OPSET)
        self.nodes = Nodes("exporter", OPSET)
        graph = self.model.graph
        self.picture = graph.input[0].name
        self.height, self.width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[2:])
        made_by = {name: node for node in graph.node for name in node.output}
        last = made_by[graph.output[0].name]
        joined = made_by[last.input[0]]
        flattened = [made_by[name] for name in joined.input]
        self.maps = dict(zip(STRIDES, (node.input[0] for node in flattened), strict=True))
        targets = {node.input[1] for node in flattened}
        for tensor in [tensor for tensor in graph.initializer if tensor.name in targets]:
            graph.initializer.remove(tensor)
        for node in (last, joined, *flattened):
            graph.node.remove(node)
        del graph.output[:]
        del graph.value_info[:]

    def cells(self, stride: int) -> tuple[int, int]:
        """Rows and columns of a scale."""
        return self.height // stride, self.width // stride

    @property
    def count(self) -> int:
        """Cells of all scales."""
        return sum(rows * columns for rows, columns in map(self.cells, STRIDES))

    def number(self, value: float) -> str:
        return self.nodes.constant(np.array(value, dtype=np.float32))

    def shape(self, *dims: int) -> str:
        return self.nodes.constant(np.array(dims, dtype=np.int64))

    def reshape(self, tensor: str, *dims: int) -> str:
        """Reshape to numbers as an exporter writes them: a 1 in front is a batch baked in."""
        return self.nodes("Reshape", tensor, self.shape(*dims))

    def part(self, tensor: str, start: int, end: int, axis: int = 2) -> str:
        return self.nodes.slice(tensor, axis, start, end)

    def rows(self, batch: int = 1) -> str:
        """All candidates as YOLOX gives them, raw: [batch, A, 85]."""
        flat = [
            self.reshape(tensor, batch, 5 + CLASSES, int(np.prod(self.cells(stride))))
            for stride, tensor in self.maps.items()
        ]
        return self.nodes("Transpose", self.nodes("Concat", *flat, axis=2), perm=[0, 2, 1])

    def decoded(self, batch: int = 1) -> tuple[str, str, str, str]:
        """Centre [batch, A, 2] and size [batch, A, 2] in pixels, objectness [.., 1], classes [.., 80]."""
        rows = self.rows(batch)
        points, strides = self.grid()
        step = self.nodes.constant(strides[np.newaxis, :, np.newaxis])
        shifted = self.nodes("Add", self.part(rows, 0, 2), self.nodes.constant(points[np.newaxis]))
        centre = self.nodes("Mul", shifted, step)
        size = self.nodes("Mul", self.nodes("Exp", self.part(rows, 2, 4)), step)
        return centre, size, self.part(rows, 4, 5), self.part(rows, 5, 5 + CLASSES)

    def scored(self, batch: int = 1) -> tuple[str, str, str]:
        """Centre, size and final class scores."""
        centre, size, objectness, classes = self.decoded(batch)
        return centre, size, self.nodes("Mul", objectness, classes)

    def corners(self, centre: str, size: str) -> str:
        half = self.nodes("Mul", size, self.number(0.5))
        first, last = self.nodes("Sub", centre, half), self.nodes("Add", centre, half)
        return self.nodes("Concat", first, last, axis=2)

    def grid(self) -> tuple[Array, Array]:
        """x, y in cells [A, 2] and strides in pixels [A]."""
        points, strides = [], []
        for stride in STRIDES:
            rows, columns = self.cells(stride)
            points += [(x, y) for y in range(rows) for x in range(columns)]
            strides += [stride] * (rows * columns)
        return np.array(points, dtype=np.float32), np.array(strides, dtype=np.float32)

    def best(self, boxes: str, scores: str) -> tuple[str, str]:
        """Keep the QUERIES candidates with the best class score: boxes and scores of them."""
        top = self.nodes.reduce_max(scores, axis=2)
        _, indices = self.nodes.many("TopK", top, self.shape(QUERIES), outputs=2, axis=1, largest=1)
        width = {boxes: 4, scores: CLASSES}
        kept = [
            self.nodes(
                "GatherElements", tensor, self.nodes("Tile", indices, self.shape(1, 1, width[tensor])), axis=1
            )
            for tensor in (boxes, scores)
        ]
        return kept[0], kept[1]

    def labelled(self, scores: str) -> tuple[str, str]:
        """Best score [N, n] and its class [N, n], int64."""
        best = self.nodes("Squeeze", self.nodes.reduce_max(scores, axis=2), self.shape(2))
        return best, self.nodes("ArgMax", scores, axis=2, keepdims=0)

    def normalised(self, centre: str, size: str) -> str:
        """Centre boxes as shares of the picture, between 0 and 1 as a sigmoid leaves them."""
        sides = np.array([self.width, self.height, self.width, self.height], dtype=np.float32)
        pixels = self.nodes("Concat", centre, size, axis=2)
        shares = self.nodes("Div", pixels, self.nodes.constant(sides))
        return self.nodes("Clip", shares, self.number(0), self.number(1))

    def take(self, tensor: str, name: str) -> str:
        """Give a tensor the name of an output."""
        return self.nodes("Identity", tensor, output=name)

    def finished(
        self,
        outputs: dict[str, tuple[int, list[int | str]]],
        *,
        dynamic: bool = False,
        metadata: dict[str, str] | None = None,
    ) -> ModelProto:
        """Close the file: outputs by name as element type and shape; dynamic: any number of pictures."""
        graph = self.model.graph
        self.nodes.put(graph, in_front=False)
        graph.output.extend(value(name, *declared) for name, declared in outputs.items())
        if dynamic:
            graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        del self.model.metadata_props[:]
        helper.set_model_props(self.model, metadata or {})
        return self.model


def value(name: str, element_type: int, shape: list[int | str]) -> ValueInfoProto:
    """Declare an input or an output."""
    return helper.make_tensor_value_info(name, element_type, shape)
