"""Whether configurations that people have edited still keep the contract: every problem as one sentence."""

from collections.abc import Iterator, Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from consumer.contract import (
    CONTRACT_VERSION,
    INPUT_NAME,
    OUTPUT_NAME,
    PIXEL_FORMAT,
    SIZE_MULTIPLE,
    Parameter,
)
from consumer.rollout import companion_name

_PARAMETERS = {
    Parameter.CONTRACT: (CONTRACT_VERSION,),
    Parameter.PIXEL_FORMAT: (PIXEL_FORMAT,),
    Parameter.RESIZE: ("letterbox", "stretch"),
    Parameter.NMS: ("consumer", "graph"),
}
_EXPORT_ANEW = "an export under another --name shows how it is written"


def check_configs(name: str, texts: Mapping[str, str]) -> list[str]:
    """Say what is wrong with the configurations of a model.

    Args:
        name: of the model.
        texts: config.pbtxt and its variants, by their path or URL; config.pbtxt is the first.
    """
    problems: list[str] = []
    promised: dict[str, dict[str, object]] = {}
    for where, text in texts.items():
        try:
            config = text_format.Parse(text, pb.ModelConfig())
        except text_format.ParseError as error:
            problems.append(f"{where} cannot be read: {error}; Triton does not load the model with it.")
            continue
        problems += [f"{where} {problem}." for problem in _problems(name, config)]
        promised[where] = _promise(config)
    if promised:
        first, *variants = promised
        problems += [
            f"{where} says {what} {promised[where][what]} and {first} says {promised[first][what]}: "
            "consumers must find the same, whichever of them a server was started with."
            for where in variants
            for what in promised[first]
            if promised[where][what] != promised[first][what]
        ]
    return problems


def _problems(name: str, config: pb.ModelConfig) -> Iterator[str]:
    if config.name not in {"", name}:
        yield f"names the model {config.name!r}, and its directory {name!r}: Triton refuses that"
    yield from _tensor("input", config.input, INPUT_NAME, pb.TYPE_UINT8)
    yield from _tensor("output", config.output, OUTPUT_NAME, pb.TYPE_FP32)
    yield from _sizes(config)
    if config.max_batch_size < 1:
        yield f"has max_batch_size {config.max_batch_size}: at least 1 is needed, frames come in batches"
    for key, expected in _PARAMETERS.items():
        found = config.parameters[key].string_value if key in config.parameters else None
        if found not in expected:
            said = "lacks the parameter" if found is None else f"has {found!r} as the parameter"
            yield f"{said} {key}, which must be {' or '.join(expected)}"
    if config.version_policy.WhichOneof("policy_choice") != "all":
        yield (
            "must have `version_policy { all { } }`: with another one Triton leaves out versions that "
            f"{companion_name(name)} sends recordings to"
        )
    moved = [key for key in config.parameters if key.startswith((Parameter.labels(""), Parameter.digest("")))]
    if moved:
        yield f"has the parameters {', '.join(moved)}, which only {companion_name(name)} may say: remove them"


def _tensor(
    kind: str, tensors: "list[pb.ModelInput] | list[pb.ModelOutput]", name: str, data_type: int
) -> Iterator[str]:
    if [tensor.name for tensor in tensors] != [name]:
        found = ", ".join(tensor.name for tensor in tensors) or "none"
        yield f"must have exactly one {kind}, {name}; found {found} ({_EXPORT_ANEW})"
        return
    (tensor,) = tensors
    if tensor.data_type != data_type:
        expected, found = pb.DataType.Name(data_type), pb.DataType.Name(tensor.data_type)
        yield f"must have {name} as {expected}, found {found}"
    if len(tensor.dims) != 2:
        yield f"must have two dims for {name}, without the batch; found {list(tensor.dims)}"


def _sizes(config: pb.ModelConfig) -> Iterator[str]:
    for tensor in config.input:
        if tensor.name == INPUT_NAME and len(tensor.dims) == 2:
            rows, width = tensor.dims
            sides = (rows * 2 // 3, width)
            if rows * 2 % 3 or min(sides) <= 0 or any(side % SIZE_MULTIPLE for side in sides):
                yield (
                    f"must have [H*3/2, W] as dims of {INPUT_NAME}, H and W multiples of {SIZE_MULTIPLE}; "
                    f"found {[rows, width]}"
                )
    for tensor in config.output:
        if tensor.name == OUTPUT_NAME and len(tensor.dims) == 2:
            rows, columns = tensor.dims
            if rows <= 0 or columns != 6:
                yield f"must have [K, 6] as dims of {OUTPUT_NAME}; found {[rows, columns]}"


def _promise(config: pb.ModelConfig) -> dict[str, object]:
    """Return what must be the same in all variants."""
    dims = {f"dims of {tensor.name}": list(tensor.dims) for tensor in (*config.input, *config.output)}
    return {
        **{f"dims of {name}": dims.get(f"dims of {name}") for name in (INPUT_NAME, OUTPUT_NAME)},
        **{
            key: config.parameters[key].string_value if key in config.parameters else None
            for key in _PARAMETERS
        },
    }
