"""What a network answers, found out by asking it: declared shapes are often missing and sometimes wrong."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, NodeProto

from consumer.contract import PAD_RGB
from consumer.errors import SetupError
from modelops.head import Answers, Output
from modelops.network import Inputs, first_line, network_inputs
from modelops.onnx_graph import makers, metadata_of

_PLUGINS = {"EfficientNMS_TRT", "BatchedNMSDynamic_TRT", "BatchedNMS_TRT", "TRTBatchedNMS"}
"""Suppression that only TensorRT knows."""
_FEATURES = {"Conv", "ConvTranspose"}

FloatArray = npt.NDArray[np.float32]


def ask(model: ModelProto, height: int, width: int, classes: int | None = None) -> Answers:
    """Run the file as it is on one grey picture, at its own size, or at height x width where it has none.

    Args:
        model: the source file.
        height: in pixels, as width.
        width: in pixels.
        classes: how many class names are known for it.

    Raises:
        SetupError: ONNX Runtime cannot run it, or it does not take a picture.
    """
    inputs = network_inputs(model)
    height, width = inputs.height or height, inputs.width or width
    batch = inputs.batch or 1
    grey = np.full((batch, 3, height, width), PAD_RGB / 255, dtype=np.float32)
    session = open_session(model)
    values = run(session, None, feed(inputs, grey))
    exponential = _exponential_outputs(model)
    outputs = tuple(
        Output(
            name=declared.name,
            dims=tuple(value.shape[1:]),
            is_float=np.issubdtype(value.dtype, np.floating),
            exponential=declared.name in exponential,
            values=value,
        )
        for declared, value in zip(session.get_outputs(), values, strict=True)
    )
    return Answers(height, width, outputs, metadata_of(model), classes)


def feed(inputs: Inputs, pictures: FloatArray) -> dict[str, object]:
    """Inputs for a session: pictures [N, 3, H, W], and their size where the network asks for it."""
    count, _, height, width = pictures.shape
    values: dict[str, object] = {
        inputs.picture: pictures.astype(np.uint8) if inputs.takes_bytes else pictures
    }
    if inputs.picture_sizes is not None:
        values[inputs.picture_sizes] = np.tile(np.array([[width, height]], dtype=np.int64), (count, 1))
    return values


def open_session(model: ModelProto) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime on the CPU.

    Raises:
        SetupError: it does not take it.
    """
    plugins = sorted({node.op_type for node in model.graph.node} & _PLUGINS)
    if plugins:
        raise SetupError(
            f"The file uses {', '.join(plugins)}, a plug-in of TensorRT that ONNX does not have: export it "
            "without NMS, or with ONNX's own NonMaxSuppression."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong with a file is said once, in the error
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # onnxruntime raises classes of its own without a common root below Exception.
        raise SetupError(f"ONNX Runtime does not load the file: {first_line(error)}") from error


def run(
    session: onnxruntime.InferenceSession, outputs: Sequence[str] | None, values: Mapping[str, object]
) -> list[FloatArray]:
    """Run a session and return the outputs named, or all.

    Raises:
        SetupError: an operator refuses what it is given.
    """
    try:
        answers: list[FloatArray] = session.run(outputs, values)
    except Exception as error:
        # onnxruntime raises classes of its own without a common root below Exception.
        raise SetupError(f"ONNX Runtime cannot run the file on a picture: {first_line(error)}") from error
    return answers


def _exponential_outputs(model: ModelProto) -> set[str]:
    """Outputs between which and the last convolutions lies an Exp."""
    made_by = makers(model)
    return {value.name for value in model.graph.output if _reaches_exp(made_by, value.name)}


def _reaches_exp(made_by: dict[str, NodeProto], output: str) -> bool:
    waiting, seen = [output], set()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or id(node) in seen or node.op_type in _FEATURES:
            continue
        if node.op_type == "Exp":
            return True
        seen.add(id(node))
        waiting.extend(node.input)
    return False
