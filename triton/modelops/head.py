"""What every detector's answer becomes: candidates; and what a layout may be recognised by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelops.nodes import Nodes


@dataclass(frozen=True)
class Candidates:
    """Names of the three tensors that every layout ends as.

    boxes [N, A, 4] (x1, y1, x2, y2 in network pixels), and per candidate the best class's score [N, A, 1] and
    index [N, A, 1], all float32.
    """

    boxes: str
    scores: str
    classes: str


Decode = Callable[[Nodes, Sequence[str]], Candidates]
"""Append the decoding of the network's outputs (names, in the order of `Head.outputs`)."""


@dataclass(frozen=True)
class Head:
    """A network's last part, recognised, at one picture size."""

    layout: str
    """As in `--layout`."""
    classes: int | None
    """None where the answer does not show how many there are."""
    candidates: int
    """Rows before top-K, the A above."""
    outputs: tuple[str, ...]
    """Those of the network's outputs that are read; others are left out."""
    decode: Decode
    nms_in_graph: bool = False
    """No doubles are left: nothing is to be suppressed behind it."""


@dataclass(frozen=True)
class Output:
    """One output of the network for one picture; `dims` is its shape without the batch."""

    name: str
    dims: tuple[int, ...]
    is_float: bool
    exponential: bool = False
    """An Exp lies between the last convolutions and it: sizes are decoded already."""
    values: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    """What it is for a grey picture: [batch, *dims]."""

    @property
    def within_one(self) -> bool:
        """Nothing in it is below 0 or above 1."""
        return bool(self.values.min(initial=0) >= 0 and self.values.max(initial=0) <= 1)

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(['N', *map(str, self.dims)])}]"


@dataclass(frozen=True)
class Answers:
    """What a network answers to a picture of height x width pixels; all that a layout is recognised by."""

    height: int
    width: int
    outputs: tuple[Output, ...]
    metadata: Mapping[str, str]
    classes: int | None = None
    """How many class names are known for it; None where nobody has said."""

    def floats(self, rank: int) -> list[Output]:
        """Outputs of floating point with this many dimensions, the batch included."""
        return [output for output in self.outputs if output.is_float and len(output.dims) == rank - 1]

    def __str__(self) -> str:
        return ", ".join(map(str, self.outputs))


Recognise = Callable[[Answers, int, int], Head | None]
"""The head that the answers show, decoded for a height and width; None where they are of another layout."""


def corners(nodes: Nodes, centre: str, size: str) -> str:
    """Boxes from centres [N, A, 2] and sizes [N, A, 2]."""
    half = nodes("Mul", size, nodes.constant(np.array([0.5], dtype=np.float32)))
    return nodes("Concat", nodes("Sub", centre, half), nodes("Add", centre, half), axis=2)


def best_class(nodes: Nodes, scores: str) -> tuple[str, str]:
    """Best score and its class, each [N, A, 1], of scores [N, A, classes]."""
    index = nodes("Cast", nodes("ArgMax", scores, axis=2, keepdims=1), to=nodes.FLOAT)
    return nodes.reduce_max(scores, axis=2), index
