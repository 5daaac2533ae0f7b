"""Run a model's ONNX file on the CPU, inside the Python stub of an embedded Triton.

The pip-only server has no native ONNX Runtime and no TensorRT. Backends written in Python stand in for both,
so that one model repository serves a laptop and NVIDIA's container. This file is copied into the directory of
each of them (modelops/runtime.py) and therefore imports nothing of vault-ml.

With numpy 2 the server's own `as_numpy()` and `Tensor(name, array)` damage data silently: only DLPack is used
here, and `check_tensor_exchange` proves it before a model is loaded.
"""

import ctypes
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime
import triton_python_backend_utils as pb_utils

Array = npt.NDArray[Any]

_USED_CAPSULE_NAME = ctypes.c_char_p(b"used_dltensor")

_TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int8)": "TYPE_INT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(int16)": "TYPE_INT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(int32)": "TYPE_INT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}


class OnnxModel:
    """Serve one version of a model: what Triton calls `TritonPythonModel`."""

    engine_file: ClassVar[str | None] = None
    """The file that the real backend would load; None when it loads the ONNX file itself."""

    @classmethod
    def auto_complete_config(cls, auto_complete_model_config: Any) -> Any:  # noqa: ANN401 - Triton's own type
        """Add the inputs and outputs that config.pbtxt leaves out, as the native backends do."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        session = _session(cls._onnx_file(Path(pb_utils.get_model_dir()), config), threads=1)
        batched = int(config["max_batch_size"] > 0)
        for node in session.get_inputs():
            auto_complete_model_config.add_input(_tensor_config(node, batched))
        for node in session.get_outputs():
            auto_complete_model_config.add_output(_tensor_config(node, batched))
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; raise TritonModelException with one sentence where that cannot work."""
        check_tensor_exchange()
        config = json.loads(args["model_config"])
        onnx_file = self._onnx_file(Path(args["model_repository"]) / args["model_version"], config)
        self._session = _session(onnx_file, _threads(config))
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests that Triton's batcher handed over, as few runs of the model as shapes allow."""
        inputs = [self._input_arrays(request) for request in requests]
        responses: list[Any] = [None] * len(requests)
        for indices in self._groups(inputs):
            batch = [inputs[i] for i in indices]
            try:
                answers = self._run(batch)
            except Exception as error:  # noqa: BLE001 - whatever the model throws is the answer to these requests
                failed = pb_utils.TritonError(f"The model could not be run on this input: {error}")
                for i in indices:
                    responses[i] = pb_utils.InferenceResponse(error=failed)
                continue
            for i, answer in zip(indices, answers, strict=True):
                responses[i] = self._response(requests[i], answer)
        return responses

    @classmethod
    def _onnx_file(cls, directory: Path, config: dict[str, Any]) -> Path:
        name = "model.onnx" if cls.engine_file else config.get("default_model_filename") or "model.onnx"
        if (directory / name).is_file():
            return directory / name
        if cls.engine_file:
            raise pb_utils.TritonModelException(
                f"{directory} holds no model.onnx: without a GPU the ONNX file beside {cls.engine_file} "
                "is run instead of it, so keep both in the version directory."
            )
        raise pb_utils.TritonModelException(f"{directory} holds no {name}.")

    def _input_arrays(self, request: Any) -> list[Array]:  # noqa: ANN401 - Triton's own type
        tensors = (pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs)
        return [np.from_dlpack(tensor) for tensor in tensors]

    def _groups(self, inputs: list[list[Array]]) -> list[list[int]]:
        if not self._batched:
            return [[i] for i in range(len(inputs))]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for i, arrays in enumerate(inputs):
            groups.setdefault(tuple(array.shape[1:] for array in arrays), []).append(i)
        return list(groups.values())

    def _run(self, batch: list[list[Array]]) -> list[list[Array]]:
        if len(batch) == 1:
            return [self._session.run(self._outputs, dict(zip(self._inputs, batch[0], strict=True)))]
        joined = [np.concatenate(arrays) for arrays in zip(*batch, strict=True)]
        outputs = self._session.run(self._outputs, dict(zip(self._inputs, joined, strict=True)))
        ends = np.cumsum([len(arrays[0]) for arrays in batch])[:-1]
        return [list(parts) for parts in zip(*(np.split(output, ends) for output in outputs), strict=True)]

    def _response(self, request: Any, arrays: list[Array]) -> Any:  # noqa: ANN401 - Triton's own types
        wanted = request.requested_output_names()
        tensors = [
            _to_tensor(name, array)
            for name, array in zip(self._outputs, arrays, strict=True)
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _to_tensor(name: str, array: Array) -> Any:  # noqa: ANN401 - Triton's own type
    """Hand an array over to Triton without a copy."""
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton marks a taken capsule "used_dlpack"; numpy only knows the "used_dltensor" of the DLPack standard
    # and would write a traceback into the log for each of them.
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), _USED_CAPSULE_NAME)
    return tensor


def check_tensor_exchange() -> None:
    """Prove that a tensor survives the way into Triton and back with this numpy; fail to load otherwise."""
    for dtype in (np.uint8, np.float32):
        sent = np.arange(24, dtype=dtype).reshape(2, 3, 4)
        received = np.from_dlpack(_to_tensor("CHECK", sent))
        if received.dtype != sent.dtype or not np.array_equal(received, sent):
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} and this Triton do not exchange tensors correctly: a known "
                f"{sent.dtype} tensor came back changed; install another numpy where the server is started."
            )


def _session(onnx_file: Path, threads: int) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the CPU from the consumer on the same machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises classes of its own without a common root below Exception.
        raise pb_utils.TritonModelException(f"ONNX Runtime cannot load {onnx_file}: {error}") from error


def _threads(config: dict[str, Any]) -> int:
    """Threads for one model instance: `intra_op_thread_count` as in the native backend, else a fair share."""
    stated = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
    return max(1, _cpus() // instances)


def _cpus() -> int:
    """CPUs that this process may use: its affinity, and a container's quota (cgroup v2, cpu.max)."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):
        return allowed


def _tensor_config(node: Any, batched: int) -> dict[str, Any]:  # noqa: ANN401 - onnxruntime ships no types
    dims = [dim if isinstance(dim, int) else -1 for dim in node.shape[batched:]]
    return {"name": node.name, "data_type": _TRITON_TYPES[node.type], "dims": dims}
