"""The Triton client: checks the contract, sends batches of frames, keeps several requests in flight.

The only module that knows tritonclient, which ships no types.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import tenacity
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from consumer.contract import (
    INPUT_NAME,
    OUTPUT_NAME,
    Contract,
    ModelVersion,
    Parameter,
    check_contract,
)
from consumer.errors import ContractError, InferenceFailed, ModelChanged, TritonAway, VaultMLError

MAX_FRAMES_PER_REQUEST = 16
"""Bigger requests spare copies in the server's python backend; past 16 frames the gain has gone."""

_GRPC_MESSAGE_BYTES = 2**31 - 1
_CHANNEL_OPTIONS = [
    # Giving any option replaces all of tritonclient's own, so its limits and keepalive are said again.
    ("grpc.max_send_message_length", _GRPC_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _GRPC_MESSAGE_BYTES),
    # A server closes the connection of a client that pings more often than every five minutes without calls.
    ("grpc.keepalive_time_ms", 2**31 - 1),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # One long-lived connection would pin this pod to one Triton pod: spread over all behind the name.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

_HEALS = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"}


@dataclass(frozen=True)
class TritonEndpoint:
    """Where the model is served, and how hard it may be asked."""

    url: str
    model: str
    timeout_seconds: float = 30.0
    requests_in_flight: int = 2


@dataclass(frozen=True)
class FrameRows:
    """One frame's answer: float32 [K, 6] rows, who made them, and its share of the request's time."""

    rows: npt.NDArray[np.float32]
    model_version: str
    request_seconds: float


class TritonDetector:
    """A model behind Triton that keeps the contract. One per process; not shared between processes."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        self._endpoint = endpoint
        self._client = triton.InferenceServerClient(endpoint.url, channel_args=_CHANNEL_OPTIONS)
        self._requests = ThreadPoolExecutor(endpoint.requests_in_flight, thread_name_prefix="triton-request")
        self._contract: Contract | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; requests that have not begun are cancelled."""
        self._requests.shutdown(cancel_futures=True)
        self._client.close()

    @property
    def contract(self) -> Contract:
        """The contract of the served model, read once.

        Raises:
            ContractError, TritonAway: see `read_contract`.
        """
        if self._contract is None:
            self._contract = self.read_contract()
        return self._contract

    def read_contract(self) -> Contract:
        """Ask Triton what it serves now, and check it against consumer/contract.py.

        Raises:
            ContractError: no such model, or it promises something else; says what was expected and found.
            TritonAway: no answer.
        """
        model, timeout = self._endpoint.model, self._endpoint.timeout_seconds
        try:
            metadata = self._client.get_model_metadata(model, as_json=True, client_timeout=timeout)
            answer = self._client.get_model_config(model, as_json=True, client_timeout=timeout)
        except InferenceServerException as error:
            raise self._named(error) from error
        self._contract = check_contract(model, metadata, answer["config"])
        return self._contract

    def version(self, name: str) -> ModelVersion:
        """Return labels and digest of one version; asks Triton again when the version is new to us.

        Raises:
            ContractError: Triton's configuration says nothing of that version.
        """
        if name not in self.contract.versions:
            self.read_contract()
        try:
            return self.contract.versions[name]
        except KeyError:
            raise ContractError(
                f"Version {name} of model {self._endpoint.model!r} answered, but its configuration has no "
                f"{Parameter.labels(name)}; publish it with 'vault-ml model export'."
            ) from None

    def detect(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[FrameRows]:
        """Send frames in batches and yield one answer per frame, in order.

        While one request is at the server the next frames are taken from `frames`, up to
        `requests_in_flight` requests; no more frames than those are held.

        Args:
            frames: uint8 [H*3/2, W] I420 pictures of the contract's size.

        Raises:
            TritonAway: no answer, or a full queue, after a few tries.
            InferenceFailed: the server failed on these frames.
            ModelChanged: another version of the model answered than for the frames before.
            ContractError: the model no longer takes what it promised.
        """
        batch_size = min(self.contract.max_batch_size, MAX_FRAMES_PER_REQUEST)
        source = iter(frames)
        waiting: deque[Future[list[FrameRows]]] = deque()
        versions: set[str] = set()
        try:
            while batch := list(islice(source, batch_size)):
                if len(waiting) == self._endpoint.requests_in_flight:
                    yield from _of_one_version(waiting.popleft().result(), versions)
                waiting.append(self._requests.submit(self._infer, np.stack(batch)))
            while waiting:
                yield from _of_one_version(waiting.popleft().result(), versions)
        finally:
            for request in waiting:
                request.cancel()

    def _infer(self, frames: npt.NDArray[np.uint8]) -> list[FrameRows]:
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TritonAway),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(self._endpoint.timeout_seconds),
            reraise=True,
        )
        return retry(self._infer_once, frames)

    def _infer_once(self, frames: npt.NDArray[np.uint8]) -> list[FrameRows]:
        tensor = triton.InferInput(INPUT_NAME, list(frames.shape), "UINT8")
        tensor.set_data_from_numpy(frames)
        started = time.monotonic()
        try:
            answer = self._client.infer(
                self._endpoint.model,
                [tensor],
                outputs=[triton.InferRequestedOutput(OUTPUT_NAME)],
                # The server drops a request that nobody waits for any more; its unit is microseconds.
                timeout=int(self._endpoint.timeout_seconds * 1_000_000),
                client_timeout=self._endpoint.timeout_seconds,
            )
        except InferenceServerException as error:
            raise self._named(error) from error
        seconds = time.monotonic() - started
        rows = answer.as_numpy(OUTPUT_NAME)
        if rows is None or rows.ndim != 3 or rows.shape[0] != len(frames) or rows.shape[2] != 6:
            raise ContractError(
                f"Model {self._endpoint.model!r} answered {OUTPUT_NAME} of shape "
                f"{None if rows is None else list(rows.shape)}, expected [{len(frames)}, K, 6]."
            )
        version = answer.get_response().model_version
        return [FrameRows(of_frame, version, seconds / len(frames)) for of_frame in rows]

    def _named(self, error: InferenceServerException) -> VaultMLError:
        """Give a gRPC failure its place in our tree of errors."""
        status = str(error.status() or "").removeprefix("StatusCode.")
        where, said = f"Triton at {self._endpoint.url}", error.message()
        if status in _HEALS:
            return TritonAway(
                f"{where} does not answer ({status}): {said}. Is this its gRPC port (usually 8001, not 8000)?"
            )
        if status == "NOT_FOUND":
            # A draining server says so of a model that it had: believe it only when the server is ready.
            if not self._server_is_ready():
                return TritonAway(f"{where} is shutting down or starting.")
            self._contract = None
            return ContractError(
                f"{where} serves no model {self._endpoint.model!r} ({said}); "
                f"publish and load it, or set TRITON_MODEL to one that it serves."
            )
        if status == "INVALID_ARGUMENT":
            self._contract = None  # it may have been replaced: ask anew before the next try
            return ContractError(f"{where} refuses what its model {self._endpoint.model!r} promised: {said}")
        return InferenceFailed(f"{where} failed on this recording's frames ({status or 'no status'}): {said}")

    def _server_is_ready(self) -> bool:
        try:
            return bool(self._client.is_server_ready(client_timeout=self._endpoint.timeout_seconds))
        except InferenceServerException:
            return False


def _of_one_version(answers: list[FrameRows], versions: set[str]) -> list[FrameRows]:
    versions.update(answer.model_version for answer in answers)
    if len(versions) > 1:
        raise ModelChanged(f"Versions {' and '.join(sorted(versions))} both answered for one recording.")
    return answers
