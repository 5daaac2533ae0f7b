"""Stands in for Triton's ONNX Runtime backend where the native one is not there: same configs, CPU only."""

from stand_in import OnnxModel


class TritonPythonModel(OnnxModel):
    """Run the version's ONNX file (`default_model_filename`, else model.onnx)."""
