"""ONNX operators appended to a graph one call at a time, with names that nothing else has."""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

_AXES_ARE_AN_INPUT_SINCE = 18


class Nodes:
    """Collects operators for a graph; call it with an operator, its inputs and its attributes."""

    FLOAT = TensorProto.FLOAT

    def __init__(self, prefix: str, opset: int) -> None:
        self._prefix = prefix
        self._opset = opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def __call__(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes are of any type
        """Append one operator and return the name of its output."""
        return self.many(operator, *inputs, outputs=[output or self._name(operator)], **attributes)[0]

    def many(self, operator: str, *inputs: str, outputs: list[str] | int, **attributes: Any) -> list[str]:  # noqa: ANN401 - as above
        """Append one operator with several outputs, named or counted."""
        if isinstance(outputs, int):
            outputs = [f"{self._name(operator)}_{i}" for i in range(outputs)]
        node = helper.make_node(operator, list(inputs), outputs, name=self._name("node"), **attributes)
        self.nodes.append(node)
        return outputs

    def constant(self, value: npt.NDArray[Any]) -> str:
        """Add a constant tensor and return its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), self._name("constant")))
        return self.constants[-1].name

    def slice(self, data: str, axis: int, start: int, end: int) -> str:
        """Append a Slice of one axis."""
        return self("Slice", data, *(self._integers(value) for value in (start, end, axis)))

    def reshape(self, data: str, shape: list[int]) -> str:
        """Append a Reshape; 0 copies a dimension."""
        return self("Reshape", data, self._integers(*shape))

    def reduce_max(self, data: str, axis: int) -> str:
        """Append a ReduceMax that keeps the axis with size 1."""
        if self._opset >= _AXES_ARE_AN_INPUT_SINCE:
            return self("ReduceMax", data, self._integers(axis), keepdims=1)
        return self("ReduceMax", data, axes=[axis], keepdims=1)

    def put(self, graph: GraphProto, *, in_front: bool) -> None:
        """Write everything collected into a graph."""
        there = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self.nodes, *there] if in_front else [*there, *self.nodes])
        graph.initializer.extend(self.constants)

    def _integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def _name(self, kind: str) -> str:
        return f"{self._prefix}/{kind}_{len(self.nodes)}_{len(self.constants)}"
