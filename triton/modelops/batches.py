"""Proof that a model keeps the frames of a batch apart."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError
from modelops.answers import open_session, run
from modelops.graph import ContractGraph
from modelops.onnx_graph import with_outputs
from modelops.provenance import Precision

BATCH = 4


@dataclass(frozen=True)
class _Tolerance:
    """How far an answer may depend on the frames beside it: sums are rounded in another order.

    share: of the numbers of an answer, that must be within `relative` of theirs, or within `absolute`.
    """

    relative: float
    absolute: float
    share: float


_TOLERANCES: dict[Precision, _Tolerance] = {
    "fp32": _Tolerance(relative=1e-2, absolute=1e-3, share=1.0),
    "fp16": _Tolerance(relative=5e-2, absolute=5e-3, share=0.999),
    "int8": _Tolerance(relative=1e-1, absolute=1e-2, share=0.99),
}
"""Another frame's answer is off by far more in far more numbers."""


def check_batches(graph: ContractGraph, precision: Precision = "fp32") -> None:
    """Prove that a batch of four answers what its frames answer one by one.

    A static batch that hides in a constant makes a network answer nonsense silently; nobody would notice
    before the first busy minute.

    Raises:
        SetupError: the answers differ.
    """
    session = open_session(with_outputs(graph.model, graph.raw_outputs))
    frames = _different_frames(graph.height, graph.width)
    singles = [run(session, None, {INPUT_NAME: frame[np.newaxis]}) for frame in frames]
    try:
        together = run(session, None, {INPUT_NAME: frames})
    except SetupError as error:
        raise _mixed_up() from error
    for batch, *parts in zip(together, *singles, strict=True):
        if len(batch) != BATCH or not all(
            _same(batch[n], parts[n][0], _TOLERANCES[precision], in_any_order=graph.nms_in_graph)
            for n in range(BATCH)
        ):
            raise _mixed_up()


def _mixed_up() -> SetupError:
    return SetupError(
        "The network does not keep the frames of a batch apart: its file has a batch size of its own "
        "baked in; let its framework export it with a dynamic batch."
    )


def _different_frames(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Noise around another grey in each frame, so that even sorted answers differ from frame to frame."""
    random = np.random.default_rng(0)
    noise = random.integers(-48, 48, (BATCH, height * 3 // 2, width))
    greys = np.linspace(60, 200, BATCH)[:, np.newaxis, np.newaxis]
    return (noise + greys).clip(0, 255).astype(np.uint8)


def _same(
    found: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    tolerance: _Tolerance,
    *,
    in_any_order: bool,
) -> bool:
    if found.shape != expected.shape:
        return False
    if in_any_order:  # final rows are sorted by scores, and two that score alike may change places
        found, expected = np.sort(found, axis=0), np.sort(expected, axis=0)
    close = np.isclose(found, expected, rtol=tolerance.relative, atol=tolerance.absolute)
    return float(close.mean()) >= tolerance.share
