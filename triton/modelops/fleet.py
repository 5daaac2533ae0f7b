"""The Triton pods behind a name, each asked by itself: a load through a Service reaches one pod only.

The model side's one adapter to tritonclient, which ships no types.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from consumer.contract import INPUT_NAME, OUTPUT_NAME, Parameter
from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from consumer.triton_access import HEADER_PREFIX, RESTRICTED, ProtocolKey, TritonAccess
from modelops.addresses import Address
from modelops.admin_key import KEY_FILE_VARIABLE, KEY_VARIABLE

_NOT_EXPLICIT = "explicit model load / unload is not allowed"
_ANSWER_SECONDS = 10.0
"""For whatever a server answers from memory."""
_AGAIN_SECONDS = 0.25
_MESSAGE_BYTES = 2**31 - 1
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # a pod's own address is never behind a proxy
]

T = TypeVar("T")


@dataclass(frozen=True)
class VersionState:
    """What a pod says of one version: READY, LOADING, UNLOADING or UNAVAILABLE, and why."""

    state: str
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether the version answers."""
        return self.state == "READY"

    @property
    def failed(self) -> bool:
        """Whether it could not be loaded: it is neither on its way nor was it unloaded."""
        return self.state == "UNAVAILABLE" and self.reason not in {"", "unloaded"}


class Pod:
    """One Triton. Its methods raise SetupError with the reason; who asks adds which pod said it."""

    def __init__(
        self, address: Address, key: ProtocolKey | None = None, access: TritonAccess | None = None
    ) -> None:
        self.name = str(address)
        self._access = access or TritonAccess()
        self._key = key
        # Both keys go with each call: a server may keep its protocols behind two of them.
        self._headers = self._access.headers | (key.headers if key else {})
        # A pod is reached by its own address, while its certificate is for the name of all.
        options = self._access.client_options(_CHANNEL_OPTIONS, server_name=address.name)
        self._client = triton.InferenceServerClient(self.name, **options)

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def check(self) -> None:
        """Make sure that it lives and lets us administer it; readiness would ask for more, every model."""
        if not self._ask(self._client.is_server_live, headers=self._headers, client_timeout=_ANSWER_SECONDS):
            raise SetupError("It is not live: it starts or stops.")
        self._index()

    def versions(self, model: str) -> dict[int, VersionState]:
        """Return the state of every version that it knows of a model; none where it has never loaded it."""
        return {
            int(entry["version"]): VersionState(entry.get("state", "UNAVAILABLE"), entry.get("reason", ""))
            for entry in self._index()
            if entry.get("name") == model and entry.get("version")
        }

    def load(self, model: str, timeout_seconds: float) -> None:
        """Let it take in what the repository has now of a model; versions that stay are not touched."""
        self._ask(self._client.load_model, model, headers=self._headers, client_timeout=timeout_seconds)

    def load_versions(
        self,
        model: str,
        wanted: Collection[int],
        gone: Collection[int] = (),
        *,
        load_seconds: float,
        seen_seconds: float,
    ) -> None:
        """Load a model until every wanted version answers and no one is sent to those that are gone.

        A version that fails to load is no failure where it is not wanted. What the repository has is seen
        late where a network file system lies between.
        """
        deadline = time.monotonic() + seen_seconds
        while True:
            failure = None
            try:
                self.load(model, load_seconds)
            except SetupError as error:
                failure = error
            states = self.versions(model)
            lacking = [version for version in sorted(wanted) if not _is_ready(states, version)]
            left = [version for version in gone if _is_ready(states, version)]
            if not lacking and not left:
                return
            broken = [version for version in lacking if version in states and states[version].failed]
            if broken:
                raise SetupError(
                    f"Version {broken[0]} does not load: {_first_line(states[broken[0]].reason)}"
                )
            if time.monotonic() > deadline:
                numbers = ", ".join(map(str, lacking or left))
                seen = "does not see" if lacking else "still has"
                raise failure or SetupError(
                    f"It {seen} version {numbers}: is this the repository that it reads?"
                )
            time.sleep(_AGAIN_SECONDS)

    def load_parameters(
        self, model: str, expected: Mapping[str, str], *, load_seconds: float, seen_seconds: float
    ) -> None:
        """Load a model until the parameters of its configuration are those that are expected."""
        deadline = time.monotonic() + seen_seconds
        while True:
            self.load(model, load_seconds)
            found = self.parameters(model)
            if all(found.get(key) == value for key, value in expected.items()):
                return
            if time.monotonic() > deadline:
                raise SetupError(
                    f"It does not see what is on disk of {model!r}: is this the repository that it reads?"
                )
            time.sleep(_AGAIN_SECONDS)

    def parameters(self, model: str) -> dict[str, str]:
        """Return the parameters of a model's configuration as it is loaded."""
        answer = self._ask(
            self._client.get_model_config,
            model,
            headers=self._headers,
            as_json=True,
            client_timeout=_ANSWER_SECONDS,
        )
        found = answer["config"].get("parameters", {})
        return {key: value.get("string_value", "") for key, value in found.items()}

    def generation(self, model: str) -> int:
        """Return the generation of a model's rollout as this pod has it; 0 where it has none."""
        try:
            said = self.parameters(companion_name(model)).get(Parameter.ROLLOUT, "")
            return Rollout.from_json(said).generation
        except (SetupError, ValueError):
            return 0

    def rows(
        self, model: str, version: int, frames: npt.NDArray[np.uint8], timeout_seconds: float
    ) -> npt.NDArray[np.float32]:
        """Ask one version about frames.

        Args:
            model: its name.
            version: which must be ready.
            frames: uint8 [N, H*3/2, W], I420, N up to the model's largest batch.
            timeout_seconds: for the answer.

        Returns:
            float32 [N, K, 6], see OUTPUT_NAME of the contract.
        """
        tensor = triton.InferInput(INPUT_NAME, list(frames.shape), "UINT8")
        tensor.set_data_from_numpy(frames)
        answer = self._ask(
            self._client.infer,
            model,
            [tensor],
            model_version=str(version),
            outputs=[triton.InferRequestedOutput(OUTPUT_NAME)],
            headers=self._headers,
            client_timeout=timeout_seconds,
        )
        rows = answer.as_numpy(OUTPUT_NAME)
        if rows is None or rows.ndim != 3 or rows.shape[0] != len(frames) or rows.shape[2] != 6:
            raise SetupError(
                f"Version {version} answers {OUTPUT_NAME} of shape {None if rows is None else rows.shape}, "
                f"expected [{len(frames)}, K, 6]."
            )
        return np.asarray(rows, dtype=np.float32)

    def _index(self) -> list[dict[str, str]]:
        answer = self._ask(
            self._client.get_model_repository_index,
            headers=self._headers,
            as_json=True,
            client_timeout=_ANSWER_SECONDS,
        )
        return list(answer.get("models", []))

    def _ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - no types there
        try:
            return call(*arguments, **options)
        except InferenceServerException as error:
            # Models are loaded and listed, and their configurations read, with the admin's key.
            admin = call not in (self._client.is_server_live, self._client.infer)
            raise SetupError(self._sentence(error, admin=admin)) from error

    def _sentence(self, error: InferenceServerException, *, admin: bool) -> str:
        status = str(error.status() or "no status").removeprefix("StatusCode.")
        said = _first_line(error.message() or "")
        if admin and said.startswith(RESTRICTED):
            name = said.rpartition(HEADER_PREFIX)[2].strip("'. ") or "NAME"
            done = "refuses the one that was given" if self._key else "was given none"
            return (
                f"Its admin calls are restricted, and it {done}: set {KEY_VARIABLE}={name}=VALUE "
                f"or {KEY_FILE_VARIABLE}."
            )
        refusal = self._access.refusal(said)
        if refusal is not None:
            return f"It {refusal}"
        if said.startswith(_NOT_EXPLICIT):  # with the status of a server that is away
            return "It does not take models from outside: start it with --model-control-mode=explicit."
        if status in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
            return f"It does not answer ({status}: {said}). Is this its gRPC port (usually 8001)?"
        return f"It refuses ({status}): {said}"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What one pod made of a request: a value, or the sentence of its failure."""

    pod: Pod
    value: T | None = None
    failure: str | None = None


class Fleet:
    """All pods of a model server, open until closed; always asked side by side."""

    def __init__(
        self,
        addresses: Sequence[Address],
        key: ProtocolKey | None = None,
        access: TritonAccess | None = None,
    ) -> None:
        self.pods = tuple(Pod(address, key, access) for address in addresses)
        self._threads = ThreadPoolExecutor(max(1, len(self.pods)), thread_name_prefix="pod")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop all connections; a request that is under way, as after Ctrl-C, ends with its connection."""
        for pod in self.pods:
            pod.close()
        self._threads.shutdown(cancel_futures=True)

    def each(self, request: Callable[[Pod], T]) -> list[Answer[T]]:
        """Ask every pod the same, all at once, and return what each made of it."""

        def asked(pod: Pod) -> Answer[T]:
            try:
                return Answer(pod, value=request(pod))
            except SetupError as error:
                return Answer(pod, failure=str(error))

        return list(self._threads.map(asked, self.pods))


def _is_ready(states: Mapping[int, VersionState], version: int) -> bool:
    return version in states and states[version].ready


def _first_line(text: str) -> str:
    # What follows "At:" is the trace of the server's Python stub.
    return " ".join(text.partition("\nAt:")[0].split())
