"""A model that keeps the contract, finds nothing, and takes its time: a server of known capacity."""

import re
import shutil
from pathlib import Path

_MODEL = """\
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        frames = pb_utils.get_input_tensor_by_name(request, "FRAMES").shape()[0]
        time.sleep({seconds})
        rows = np.zeros((frames, {rows}, 6), np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("DETECTIONS", rows)])
"""


def write_limited(
    repository: Path,
    directory: Path,
    *,
    seconds: float,
    instances: int = 1,
    queue_size: int = 256,
    queue_seconds: float = 30.0,
) -> Path:
    """Copy a model repository, with a model `yolo` that only takes its time; return the copy.

    Args:
        repository: with the published model `yolo`.
        directory: of the copy; it must not be there.
        seconds: for one request.
        instances: requests that are worked on at a time.
        queue_size: of further ones, that wait; more are refused.
        queue_seconds: that they may wait.
    """
    copy = Path(shutil.copytree(repository, directory))
    file = copy / "yolo" / "configs" / "cpu.pbtxt"
    config = file.read_text()
    rows = int(_one(r"dims: \[ (\d+), 6 \]", config))
    config = re.sub(r'backend: "onnxruntime"\ndefault_model_filename: "[^"]+"', 'backend: "python"', config)
    config = re.sub(r"count: 1 \}", f"count: {instances} }}", config)
    config = config.replace("max_queue_delay_microseconds: 1000", "max_queue_delay_microseconds: 0").replace(
        "max_queue_size: 256", f"max_queue_size: {queue_size}"
    )
    config = config.replace(
        "default_timeout_microseconds: 30000000",
        f"default_timeout_microseconds: {int(queue_seconds * 1_000_000)}",
    )
    file.write_text(config)
    (copy / "yolo" / "1" / "model.py").write_text(_MODEL.format(seconds=seconds, rows=rows))
    return copy


def _one(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text)
    return str(found)
