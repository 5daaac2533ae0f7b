"""Stands in for Triton's TensorRT backend on a machine without a GPU: runs the ONNX file beside the plan."""

from stand_in import OnnxModel


class TritonPythonModel(OnnxModel):
    """Run model.onnx of the version; model.plan may or may not be there."""

    engine_file = "model.plan"
