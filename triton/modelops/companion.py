"""The companion: a model of one operator whose configuration says labels, digests and the rollout.

Triton loads it anew in milliseconds and touches nothing else for it (docs/adr/0008). Consumers read it with
the ModelConfig call.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from consumer.contract import ModelVersion, Parameter
from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from modelops.config_pbtxt import parameter

HIGHEST = "vaultml_highest"
"""Key of the highest version number that was ever given out; it outlives the version."""

_OPSET, _IR_VERSION = 17, 8
"""Old enough for every server that we support."""


@dataclass(frozen=True)
class Companion:
    """What a model's companion says.

    rollout: where recordings go.
    versions: labels and digest of every version, served or on the shelf, by its number.
    highest: number of the newest version that there ever was, removed ones included.
    """

    rollout: Rollout
    versions: Mapping[int, ModelVersion] = field(default_factory=dict)
    highest: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "highest", max(self.highest, *self.versions, 0))

    def rolled_out(self, rollout: Rollout) -> "Companion":
        """Return the same with another rollout."""
        return replace(self, rollout=rollout)

    def with_version(self, version: ModelVersion) -> "Companion":
        """Return the same with one version more."""
        return replace(self, versions={**self.versions, int(version.version): version})

    def only(self, versions: frozenset[int]) -> "Companion":
        """Return the same without the versions that are no longer there; their numbers are not used again."""
        return replace(self, versions={n: each for n, each in self.versions.items() if n in versions})


def render(model: str, companion: Companion) -> str:
    """Text of the companion's config.pbtxt."""
    versions = "".join(
        f"\n# Version {number}\n"
        + parameter(Parameter.labels(str(number)), json.dumps(list(each.labels), ensure_ascii=False))
        + parameter(Parameter.digest(str(number)), each.digest)
        for number, each in sorted(companion.versions.items())
    )
    return f"""\
# Written by `vault-ml model`, anew with every change of a version or of the rollout: do not edit it.
# It carries what consumers of {model!r} must know and what must change without a reload of the detector.
name: "{companion_name(model)}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 0
input [ {{ name: "NOTHING" data_type: TYPE_UINT8 dims: [ 1 ] }} ]
output [ {{ name: "NOTHING_TOO" data_type: TYPE_UINT8 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]

# Which versions answer which recordings.
{parameter(Parameter.ROLLOUT, companion.rollout.to_json())}\
# The highest version number so far: none is used twice.
{parameter(HIGHEST, str(companion.highest))}{versions}"""


def read(text: str, where: str) -> Companion:
    """Read back what `render` wrote.

    Raises:
        SetupError: it is not the configuration of a companion.
    """
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        prefix = Parameter.labels("")
        numbers = [key.removeprefix(prefix) for key in parameters if key.startswith(prefix)]
        return Companion(
            Rollout.from_json(parameters[Parameter.ROLLOUT]),
            {
                int(number): ModelVersion(
                    number,
                    tuple(json.loads(parameters[Parameter.labels(number)])),
                    parameters[Parameter.digest(number)],
                )
                for number in sorted(numbers, key=int)
            },
            int(parameters[HIGHEST]),
        )
    except (text_format.ParseError, KeyError, ValueError, TypeError) as error:
        raise SetupError(
            f"{where} does not say the rollout of a model ({error}): bring back an older copy of it, "
            "or move the model away and export it again."
        ) from error


def model_bytes() -> bytes:
    """Return the companion's model: one operator that passes one byte on."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["NOTHING"], ["NOTHING_TOO"])],
        "companion",
        [tensor("NOTHING", TensorProto.UINT8, [1])],
        [tensor("NOTHING_TOO", TensorProto.UINT8, [1])],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()
