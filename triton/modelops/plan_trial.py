"""A trial: a version run by a Triton of its own, as it will be served, before its files get their place."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consumer.errors import SetupError
from modelops.addresses import Address
from modelops.config_pbtxt import CONFIG_FILE
from modelops.embedded import EmbeddedTriton
from modelops.fleet import Pod
from modelops.runtime import TritonRuntime

_START_SECONDS = 600.0
"""A plan is loaded, its CUDA graphs are recorded and the warmup is run before the server is ready."""

_ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Trial:
    """What is tried.

    config: text of the configuration that the version will be served with.
    files: content of the version's files by their names.
    """

    name: str
    version: int
    config: str
    files: Mapping[str, bytes]


Ask = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""One request: frames uint8 [N, H*3/2, W], N up to max_batch_size, to rows float32 [N, K, 6]."""


@contextlib.contextmanager
def running(trial: Trial, *, runtime: TritonRuntime | None, on_gpu: bool) -> Iterator[Ask]:
    """Run a Triton that serves nothing but the trial.

    Args:
        trial: what is tried.
        runtime: the Triton to start; None for the embedded one.
        on_gpu: whether there is one; without, the instances of the configuration are put on the CPU, where
            the embedded Triton runs the ONNX file beside a plan.

    Raises:
        SetupError: the version does not load, or (of the yielded function) does not answer.
    """
    config = text_format.Parse(trial.config, model_config_pb2.ModelConfig())
    if not on_gpu:
        for group in config.instance_group:
            group.kind = model_config_pb2.ModelInstanceGroup.KIND_CPU
    with tempfile.TemporaryDirectory(prefix="vault-ml-trial-") as temporary:
        _write(Path(temporary), trial, text_format.MessageToString(config))
        with EmbeddedTriton.start(
            Path(temporary),
            model_config_name="",
            models=[trial.name],
            startup_timeout_seconds=_START_SECONDS,
            runtime=runtime,
        ) as server:
            pod = Pod(Address(server.address, server.grpc_port))

            def ask(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
                return pod.rows(trial.name, trial.version, frames, _ANSWER_SECONDS)

            try:
                yield ask
            finally:
                pod.close()


def _write(repository: Path, trial: Trial, config: str) -> None:
    model = repository / trial.name
    version = model / str(trial.version)
    try:
        version.mkdir(parents=True)
        (model / CONFIG_FILE).write_text(config)
        for file, content in trial.files.items():
            (version / file).write_bytes(content)
    except OSError as error:
        raise SetupError(f"The trial needs room in {repository}: {error}; set TMPDIR.") from error
