"""config.pbtxt and configs/cpu.pbtxt: what Triton serves, written for people to read and edit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consumer.contract import CONTRACT_VERSION, INPUT_NAME, OUTPUT_NAME, PIXEL_FORMAT, Parameter, Resize
from consumer.errors import SetupError

_QUEUE_SIZE = 256
_QUEUE_TIMEOUT_MICROSECONDS = 30_000_000
_MAX_CPU_BATCH = 8
_WARM_UP_BATCHES = {"KIND_GPU": (1, 8), "KIND_CPU": (1,)}


@dataclass(frozen=True)
class Served:
    """What all versions of a served model have in common; sizes in pixels."""

    name: str
    height: int
    width: int
    max_detections: int
    max_batch_size: int
    resize: Resize = "letterbox"
    nms_in_graph: bool = False


def config_files(served: Served) -> dict[str, str]:
    """Text of the two configurations by their path in the model's directory, as yet without versions."""
    return {
        "config.pbtxt": _config(
            served,
            served.max_batch_size,
            "KIND_GPU",
            "ONNX Runtime on a GPU, until a TensorRT plan has been built for it.",
        ),
        "configs/cpu.pbtxt": _config(
            served,
            min(served.max_batch_size, _MAX_CPU_BATCH),
            "KIND_CPU",
            "The same on a CPU: start the server with --model-config-name=cpu.",
        ),
    }


def version_parameters(version: int, labels: Sequence[str], digest: str) -> str:
    """Text that adds one version's labels and digest to a configuration; protobuf text merges map entries."""
    return f"\n# Version {version}\n" + _parameters(
        {
            Parameter.labels(str(version)): json.dumps(list(labels), ensure_ascii=False),
            Parameter.digest(str(version)): digest,
        }
    )


def read(text: str, where: str) -> Served:
    """Read back what `config_files` wrote, whatever a person has changed since.

    Raises:
        SetupError: not a configuration of a model that keeps the contract.
    """
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        tensors = {tensor.name: list(tensor.dims) for tensor in [*config.input, *config.output]}
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        rows, width = tensors[INPUT_NAME]
        max_detections, _ = tensors[OUTPUT_NAME]
        return Served(
            name=config.name,
            height=rows * 2 // 3,
            width=width,
            max_detections=max_detections,
            max_batch_size=config.max_batch_size,
            resize="stretch" if parameters[Parameter.RESIZE] == "stretch" else "letterbox",
            nms_in_graph=parameters[Parameter.NMS] == "graph",
        )
    except (text_format.ParseError, KeyError, ValueError) as error:
        raise SetupError(
            f"{where} is not the configuration of a model that keeps the contract ({error}); "
            "export under another --name."
        ) from error


def _config(served: Served, max_batch_size: int, kind: str, what: str) -> str:
    warm_up = "\n".join(_warm_up(served, size) for size in _WARM_UP_BATCHES[kind] if size <= max_batch_size)
    contract = _parameters(
        {
            Parameter.CONTRACT: CONTRACT_VERSION,
            Parameter.PIXEL_FORMAT: PIXEL_FORMAT,
            Parameter.RESIZE: served.resize,
            Parameter.NMS: "graph" if served.nms_in_graph else "consumer",
        }
    )
    return f"""\
# Written by `vault-ml model export`, then yours to edit; a new version only adds its parameters at the end.
# {what}
name: {_quoted(served.name)}
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: {max_batch_size}

# Letterboxed {served.width}x{served.height} frames as I420 planes, limited-range BT.601.
input [ {{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [ {served.height * 3 // 2}, {served.width} ] }} ]
# Rows of x1, y1, x2, y2 in network pixels, score, class index; best score first.
output [ {{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: [ {served.max_detections}, 6 ] }} ]

instance_group [ {{ kind: {kind} count: 1 }} ]

# Requests of several consumers share a batch. A full queue and a request that waited too long are
# refused at once, which consumers take as "wait a little", instead of piling up in memory.
dynamic_batching {{
  max_queue_delay_microseconds: 1000
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {_QUEUE_TIMEOUT_MICROSECONDS}
    allow_timeout_override: true
    max_queue_size: {_QUEUE_SIZE}
  }}
}}

# The server is not ready before these have run: the first recording does not pay for the start.
{warm_up}
version_policy {{ latest {{ num_versions: 1 }} }}

# What the consumer checks when it starts.
{contract}"""


def _warm_up(served: Served, batch_size: int) -> str:
    dims = f"[ {served.height * 3 // 2}, {served.width} ]"
    return f"""\
model_warmup {{
  name: "batch of {batch_size}" batch_size: {batch_size}
  inputs {{ key: "{INPUT_NAME}" value {{ data_type: TYPE_UINT8 dims: {dims} zero_data: true }} }}
}}"""


def _parameters(values: dict[str, str]) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: {_quoted(value)} }} }}\n'
        for key, value in values.items()
    )


def _quoted(text: str) -> str:
    if not {"'", "\\", "\n"} & set(text) and '"' in text:
        return f"'{text}'"  # JSON stays readable
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
