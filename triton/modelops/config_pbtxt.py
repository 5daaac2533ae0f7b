"""config.pbtxt and its variants: how Triton serves a model, written for people to read and edit.

Field names are those of model_config.proto (triton-inference-server/common, protobuf/model_config.proto).
"""

from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consumer.contract import (
    CONTRACT_VERSION,
    INPUT_NAME,
    LIVE_PRIORITY,
    OUTPUT_NAME,
    PIXEL_FORMAT,
    REPLAY_PRIORITY,
    Parameter,
    Resize,
)
from consumer.errors import SetupError

CONFIG_FILE = "config.pbtxt"
CPU_CONFIG_FILE = "configs/cpu.pbtxt"
TENSORRT_CONFIG_FILE = "configs/tensorrt.pbtxt"

COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
"""GPUs that plans may be built for: Turing to Blackwell."""

_QUEUE_SIZE = 256
_QUEUE_TIMEOUT_MICROSECONDS = 30_000_000
_REPLAY_QUEUE_SIZE = 32
_REPLAY_QUEUE_TIMEOUT_MICROSECONDS = 5_000_000
_MAX_CPU_BATCH = 8
_RESIZED = {"letterbox": "Letterboxed", "stretch": "Stretched"}


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


@dataclass(frozen=True)
class _Variant:
    """What the configurations of one model differ in."""

    what: str
    engine: str
    kind: str
    max_batch_size: int
    warm_up: tuple[int, ...]
    optimization: str = ""


def plan_file(compute_capability: str) -> str:
    """Name of the TensorRT plan for a GPU: `8.9` is `model_cc89.plan`."""
    return f"model_cc{compute_capability.replace('.', '')}.plan"


def config_files(served: Served) -> dict[str, str]:
    """Text of the configurations by their path in the model's directory; config.pbtxt is the last."""
    most = served.max_batch_size
    onnxruntime = 'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"'
    plans = "\n".join(
        f'cc_model_filenames {{ key: "{each}" value: "{plan_file(each)}" }}' for each in COMPUTE_CAPABILITIES
    )
    variants = {
        CPU_CONFIG_FILE: _Variant(
            "ONNX Runtime on a CPU: start the server with --model-config-name=cpu.",
            onnxruntime, "KIND_CPU", min(most, _MAX_CPU_BATCH), (1,),
        ),
        TENSORRT_CONFIG_FILE: _Variant(
            "TensorRT: build the plans with `vault-ml model build`, then start the server with\n"
            "# --model-config-name=tensorrt. Each GPU takes the plan of its compute capability.",
            f'platform: "tensorrt_plan"\ndefault_model_filename: "model.plan"\n{plans}',
            "KIND_GPU", most, tuple(dict.fromkeys((1, most))), _cuda_graphs(served),
        ),
        CONFIG_FILE: _Variant(
            "ONNX Runtime on a GPU. Variants for a CPU and for TensorRT are in configs/.",
            onnxruntime, "KIND_GPU", most, tuple(dict.fromkeys((1, min(8, most)))),
        ),
    }  # fmt: skip
    return {path: _config(served, variant) for path, variant in variants.items()}


def parameter(key: str, value: str) -> str:
    """One line of text that gives a model's configuration a parameter."""
    return f'parameters {{ key: "{key}" value {{ string_value: {_quoted(value)} }} }}\n'


def _cuda_graphs(served: Served) -> str:
    """CUDA graphs for batches of every size: of 1, 2, 4 ... frames; the sizes between take the next larger.

    Left to itself, the backend records them for batches of 1 and of max_batch_size, and runs all others
    without a word (triton-inference-server/tensorrt_backend, src/instance_state.cc, InitializeGraphSpecs). A
    graph fits smaller batches only where the shape of the input is said with it (SetCudaGraphShape there).
    """
    shape = f'input {{ key: "{INPUT_NAME}" value {{ dim: [ {served.height * 3 // 2}, {served.width} ] }} }}'
    most, smallest, lines = served.max_batch_size, 1, []
    for size in [*(2**n for n in range(most.bit_length()) if 2**n < most), most]:
        bound = f"graph_lower_bound {{ batch_size: {smallest} {shape} }}"
        lines.append(f"  graph_spec {{ batch_size: {size} {shape} {bound} }}")
        smallest = size + 1
    graphs = "\n".join(lines)
    return f"""
# One launch for the whole network instead of one for each of its kernels; for batches of every size.
optimization {{ cuda {{
  graphs: true
{graphs}
}} }}
"""


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


def _config(served: Served, variant: _Variant) -> str:
    warm_up = "\n".join(_warm_up(served, size) for size in variant.warm_up)
    contract = "".join(
        parameter(key, value)
        for key, value in (
            (Parameter.CONTRACT, CONTRACT_VERSION),
            (Parameter.PIXEL_FORMAT, PIXEL_FORMAT),
            (Parameter.RESIZE, served.resize),
            (Parameter.NMS, "graph" if served.nms_in_graph else "consumer"),
        )
    )
    return f"""\
# Written once by `vault-ml model export`, then yours to edit: no program changes it again.
# `vault-ml model verify` says whether what you changed still keeps the contract with the consumers.
# {variant.what}
name: {_quoted(served.name)}
{variant.engine}
max_batch_size: {variant.max_batch_size}

# {_RESIZED[served.resize]} {served.width}x{served.height} frames as I420 planes, limited-range BT.601.
input [ {{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [ {served.height * 3 // 2}, {served.width} ] }} ]
# Rows of x1, y1, x2, y2 in network pixels, score, class index; best score first.
output [ {{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: [ {served.max_detections}, 6 ] }} ]

# A second instance lets copies of one batch overlap with the computing of another, for twice the memory.
instance_group [ {{ kind: {variant.kind} count: 1 }} ]
{variant.optimization}
# Requests of several consumers share a batch. A full queue and a request that waited too long are
# refused at once, which consumers take as "wait a little", instead of piling up in memory.
# Priority {LIVE_PRIORITY} is a recording that waits for its answer. Priority {REPLAY_PRIORITY} is a replay
# or a shadow: it is served when no live request waits, and its queue is short.
dynamic_batching {{
  max_queue_delay_microseconds: 1000
  priority_levels: 2
  default_priority_level: {LIVE_PRIORITY}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {_QUEUE_TIMEOUT_MICROSECONDS}
    allow_timeout_override: true
    max_queue_size: {_QUEUE_SIZE}
  }}
  priority_queue_policy {{
    key: {REPLAY_PRIORITY}
    value {{
      timeout_action: REJECT
      default_timeout_microseconds: {_REPLAY_QUEUE_TIMEOUT_MICROSECONDS}
      allow_timeout_override: true
      max_queue_size: {_REPLAY_QUEUE_SIZE}
    }}
  }}
}}

# The server is not ready before these have run: the first recording does not pay for the start.
{warm_up}

# Every version that lies here is loaded, and versions that shall not be loaded wait on the shelf. Which of
# them answers is said by the model {served.name}-rollout. So no rollout ever changes this file: a change of
# it would load all versions a second time beside the first.
version_policy {{ all {{ }} }}

# What the consumer checks when it starts.
{contract}"""


def _warm_up(served: Served, batch_size: int) -> str:
    dims = f"[ {served.height * 3 // 2}, {served.width} ]"
    return f"""\
model_warmup {{
  name: "batch of {batch_size}" batch_size: {batch_size}
  inputs {{ key: "{INPUT_NAME}" value {{ data_type: TYPE_UINT8 dims: {dims} zero_data: true }} }}
}}"""


def _quoted(text: str) -> str:
    if not {"'", "\\", "\n"} & set(text) and '"' in text:
        return f"'{text}'"  # JSON stays readable
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
