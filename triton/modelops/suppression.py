"""Suppression inside a file that works for one picture only: it is left out, the consumer does it anyway."""

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from consumer.contract import DEFAULT_HEIGHT, DEFAULT_WIDTH
from modelops.answers import ask
from modelops.grids import scales_of
from modelops.onnx_graph import copy_of, makers, metadata_of


def without_suppression(model: ModelProto) -> ModelProto:
    """Cut an Ultralytics file exported with `nms=True` before its suppression; leave any other as it is.

    Their exporter writes the suppression of each picture of its example batch one after the other, so the
    number of pictures is fixed for good. What it suppresses is the layout `ultralytics`: the last tensor
    [1, 4 + classes, cells] on the way there.

    Raises:
        SetupError: ONNX Runtime cannot run the file.
    """
    suppressing = [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]
    if not suppressing or metadata_of(model).get("author") != "Ultralytics":
        return model
    made_by = makers(model)
    waiting, joined, seen = [name for node in suppressing for name in node.input], set(), set()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        waiting.extend(node.input)
        if node.op_type == "Concat":
            joined.add(node.output[0])
    opened = copy_of(model)
    opened.graph.output.extend(ValueInfoProto(name=name) for name in sorted(joined))
    answers = ask(opened, DEFAULT_HEIGHT, DEFAULT_WIDTH)
    dense = [
        output.name
        for output in answers.floats(rank=3)
        if output.name in joined and scales_of(output.dims[1], answers.height, answers.width, 1)
    ]
    order = [name for node in model.graph.node for name in node.output if name in dense]
    if not order:
        return model
    del opened.graph.output[:]
    opened.graph.output.append(helper.make_tensor_value_info(order[-1], TensorProto.FLOAT, None))
    return opened
