"""Model repositories with planted detectors: versions that answer known rows, and their companion.

A planted detector keeps the contract and finds the same boxes in every frame, so a test knows what each
version must say. They are served by the real Triton like any model.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import requests
from google.protobuf import text_format
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2 as pb

from consumer.contract import INPUT_NAME, OUTPUT_NAME, Parameter
from consumer.rollout import Rollout, companion_name

HEIGHT, WIDTH = 64, 96
MAX_DETECTIONS = 8
NAME = "yolo"
SECONDS = 60.0


@dataclass(frozen=True)
class Planted:
    """One version: its labels, and the rows (x1, y1, x2, y2 in network pixels, score, class) it always finds.

    busy: rounds of idle arithmetic for each batch; a thousand take about a second.
    broken: fails on every frame.
    """

    labels: Sequence[str]
    rows: Sequence[tuple[float, float, float, float, float, int]]
    busy: int = 0
    broken: bool = False

    @property
    def digest(self) -> str:
        """What stands for the digest of its source."""
        return f"sha256:{hashlib.sha256(repr(self).encode()).hexdigest()}"


def write_repository(directory: Path, versions: Mapping[int, Planted], rollout: Rollout) -> Path:
    """Write a repository that serves these versions of `yolo`; returns its directory."""
    model = directory / NAME
    model.mkdir(parents=True)
    (model / "config.pbtxt").write_text(text_format.MessageToString(_config()))
    for number, planted in versions.items():
        add_version(directory, number, planted)
    write_companion(directory, versions, rollout)
    return directory


def add_version(repository: Path, number: int, planted: Planted) -> None:
    """Put a version there, whole or not at all."""
    temporary = repository.parent / f"{number}.tmp"
    temporary.mkdir()
    (temporary / "model.onnx").write_bytes(model(planted).SerializeToString())
    temporary.rename(repository / NAME / str(number))


def remove_version(repository: Path, number: int) -> None:
    """Take a version away; Triton unloads it with the next load of the model."""
    shutil.rmtree(repository / NAME / str(number))


def write_companion(repository: Path, versions: Mapping[int, Planted], rollout: Rollout) -> None:
    """Write the companion of the rollout, as publishing and rollouts do."""
    parameters = {Parameter.ROLLOUT: rollout.to_json()}
    for number, planted in versions.items():
        parameters[Parameter.labels(str(number))] = json.dumps(list(planted.labels))
        parameters[Parameter.digest(str(number))] = planted.digest
    config = pb.ModelConfig(
        name=companion_name(NAME),
        backend="onnxruntime",
        input=[pb.ModelInput(name="X", data_type=pb.TYPE_FP32, dims=[1])],
        output=[pb.ModelOutput(name="Y", data_type=pb.TYPE_FP32, dims=[1])],
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU)],
        parameters={key: pb.ModelParameter(string_value=value) for key, value in parameters.items()},
    )
    directory = repository / companion_name(NAME)
    (directory / "1").mkdir(parents=True, exist_ok=True)
    if not (directory / "1" / "model.onnx").exists():
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("X", "Y"))
        graph = helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "companion", [x], [y])
        (directory / "1" / "model.onnx").write_bytes(_onnx(graph).SerializeToString())
    temporary = directory / ".config.pbtxt"
    temporary.write_text(text_format.MessageToString(config))
    temporary.rename(directory / "config.pbtxt")


def load(http_url: str, model: str) -> None:
    """Have a running Triton look at a model's directory anew."""
    answer = requests.post(f"http://{http_url}/v2/repository/models/{model}/load", json={}, timeout=SECONDS)
    assert answer.ok, answer.text


def unload(http_url: str, model: str) -> None:
    """Have a running Triton forget a model until it is loaded again."""
    url = f"http://{http_url}/v2/repository/models/{model}/unload"
    assert requests.post(url, json={}, timeout=SECONDS).ok


def _config() -> pb.ModelConfig:
    parameters = {
        Parameter.CONTRACT: "1",
        Parameter.PIXEL_FORMAT: "i420_bt601_limited",
        Parameter.RESIZE: "letterbox",
        Parameter.NMS: "consumer",
    }
    return pb.ModelConfig(
        name=NAME,
        backend="onnxruntime",
        max_batch_size=8,
        input=[pb.ModelInput(name=INPUT_NAME, data_type=pb.TYPE_UINT8, dims=[HEIGHT * 3 // 2, WIDTH])],
        output=[pb.ModelOutput(name=OUTPUT_NAME, data_type=pb.TYPE_FP32, dims=[MAX_DETECTIONS, 6])],
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU)],
        dynamic_batching=pb.ModelDynamicBatching(priority_levels=2, default_priority_level=1),
        version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
        parameters={key: pb.ModelParameter(string_value=value) for key, value in parameters.items()},
    )


def rows_of(planted: Planted) -> npt.NDArray[np.float32]:
    """Return what it answers for one frame: float32 [1, K, 6]."""
    rows = np.zeros((1, MAX_DETECTIONS, 6), np.float32)
    rows[0, : len(planted.rows)] = np.array(planted.rows, np.float32).reshape(-1, 6)
    return rows


def model(planted: Planted) -> ModelProto:
    """Return FRAMES [N, H*3/2, W] -> DETECTIONS [N, K, 6]: the planted rows, once for each frame."""
    constants = {
        "rows": rows_of(planted),
        "first": np.array([0]),
        "rest": np.array([7 if planted.broken else MAX_DETECTIONS, 6]),
        "rounds": np.array(planted.busy),
        "go_on": np.array(True),
        "matrix": np.full((256, 256), 1 / 256, np.float32),
        "none": np.zeros(1, np.float32),
    }
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "matrix"], ["next"]),
            helper.make_node("Identity", ["again"], ["still"]),
        ],
        "work",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    nodes = [
        helper.make_node("Shape", [INPUT_NAME], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["frames"]),
        helper.make_node("Loop", ["rounds", "go_on", "matrix"], ["worked"], body=body),
        helper.make_node("ReduceMin", ["worked"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "none"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["answer"]),
        helper.make_node("Concat", ["frames", "rest"], ["size"], axis=0),
        helper.make_node("Expand", ["answer", "size"], [OUTPUT_NAME]),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", HEIGHT * 3 // 2, WIDTH])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", MAX_DETECTIONS, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _onnx(graph)


def _onnx(graph: GraphProto) -> ModelProto:
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made
