"""One connection to Triton: what it serves, and its answers to batches of frames, failures in our words.

The consumer's only module that knows tritonclient, which ships no types.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from consumer.contract import INPUT_NAME, LIVE_PRIORITY, OUTPUT_NAME, REPLAY_PRIORITY
from consumer.errors import (
    ContractError,
    InferenceFailed,
    ModelChanged,
    TritonAway,
    TritonFull,
    VaultMLError,
)
from consumer.triton_access import TritonAccess

FrameBatch = npt.NDArray[np.uint8]
"""uint8 [N, H*3/2, W]: I420 pictures of the contract's size."""

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
_FULL = ("Exceeds maximum queue size", "Request timeout expired")
"""What it says, with UNAVAILABLE, of a request that finds a full queue (max_queue_size), and of one that
waited there for longer than it may (core/src/scheduler_utils.cc and dynamic_batch_scheduler.cc)."""


@dataclass(frozen=True)
class TritonEndpoint:
    """Where the model is served, and how hard it may be asked."""

    url: str
    model: str
    timeout_seconds: float = 30.0
    requests_in_flight: int = 2
    access: TritonAccess = field(default_factory=TritonAccess)
    priority: int = LIVE_PRIORITY


@dataclass(frozen=True)
class FrameRows:
    """One frame's answer: float32 [K, 6] rows, who made them, and its share of the request's time."""

    rows: npt.NDArray[np.float32]
    model_version: str
    request_seconds: float


class PendingAnswer:
    """One request under way; `future` holds its answers, or what went wrong."""

    def __init__(self) -> None:
        self.future: Future[list[FrameRows]] = Future()
        self._cancel: Callable[[], object] = lambda: None

    def cancel(self) -> None:
        """Tell the server that nobody waits for it any more."""
        self.future.cancel()
        self._cancel()


class TritonClient:
    """A connection for one model; its calls may be made by several threads at once."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        self.endpoint = endpoint
        self._headers = endpoint.access.headers
        self._client = triton.InferenceServerClient(
            endpoint.url, **endpoint.access.client_options(_CHANNEL_OPTIONS)
        )

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def metadata(self) -> dict[str, Any]:
        """Return the model's metadata as JSON.

        Raises:
            ContractError: no such model is served.
            TritonAway: no answer.
        """
        model, timeout = self.endpoint.model, self.endpoint.timeout_seconds
        try:
            answer: dict[str, Any] = self._client.get_model_metadata(
                model, headers=self._headers, as_json=True, client_timeout=timeout
            )
        except InferenceServerException as error:
            raise self._named(error) from error
        return answer

    def config(self, model: str, timeout_seconds: float) -> dict[str, Any] | None:
        """Return a model's configuration as JSON; None where it is not served.

        Raises:
            TritonAway: no answer.
        """
        try:
            answer = self._client.get_model_config(
                model, headers=self._headers, as_json=True, client_timeout=timeout_seconds
            )
        except InferenceServerException as error:
            if _status(error) == "NOT_FOUND" and self._is_live():
                return None
            raise self._named(error) from error
        config: dict[str, Any] = answer["config"]
        return config

    def infer(self, batch: FrameBatch, version: int) -> list[FrameRows]:
        """Wait for a version's answer to a batch.

        Raises:
            TritonAway: no answer in time.
            TritonFull: a full queue.
            InferenceFailed: the server failed on these frames.
            ModelChanged: it does not serve this version.
            ContractError: the model does not take or give what it promised.
        """
        started = time.monotonic()
        try:
            answer = self._client.infer(**self._request(batch, version, self.endpoint.priority))
        except InferenceServerException as error:
            raise self._named(error, version) from error
        return self._rows(answer, len(batch), version, started)

    def begin(self, batch: FrameBatch, version: int) -> PendingAnswer:
        """Ask a version in the background, at low priority; its `future` has the errors of `infer`, too."""
        pending, started = PendingAnswer(), time.monotonic()

        def answered(result: triton.InferResult | None, error: InferenceServerException | None) -> None:
            # Runs in a thread of gRPC's.
            if not pending.future.set_running_or_notify_cancel():
                return
            if error is not None:
                pending.future.set_exception(self._named(error, version))
                return
            try:
                pending.future.set_result(self._rows(result, len(batch), version, started))
            except VaultMLError as wrong:
                pending.future.set_exception(wrong)

        try:
            call = self._client.async_infer(
                callback=answered, **self._request(batch, version, REPLAY_PRIORITY)
            )
        except InferenceServerException as error:
            pending.future.set_exception(self._named(error, version))
        else:
            pending._cancel = call.cancel
        return pending

    def _request(self, batch: FrameBatch, version: int, priority: int) -> dict[str, Any]:
        tensor = triton.InferInput(INPUT_NAME, list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(batch)
        return {
            "model_name": self.endpoint.model,
            "model_version": str(version),
            "headers": self._headers,
            "inputs": [tensor],
            "outputs": [triton.InferRequestedOutput(OUTPUT_NAME)],
            "priority": priority,
            # The server drops a request that nobody waits for any more; its unit is microseconds.
            "timeout": int(self.endpoint.timeout_seconds * 1_000_000),
            "client_timeout": self.endpoint.timeout_seconds,
        }

    def _rows(self, answer: triton.InferResult, frames: int, version: int, started: float) -> list[FrameRows]:
        seconds = time.monotonic() - started
        rows = answer.as_numpy(OUTPUT_NAME)
        if rows is None or rows.ndim != 3 or rows.shape[0] != frames or rows.shape[2] != 6:
            raise ContractError(
                f"Model {self.endpoint.model!r} answered {OUTPUT_NAME} of shape "
                f"{None if rows is None else list(rows.shape)}, expected [{frames}, K, 6]."
            )
        return [FrameRows(of_frame, str(version), seconds / frames) for of_frame in rows]

    def _named(self, error: InferenceServerException, version: int | None = None) -> VaultMLError:
        """Give a gRPC failure its place in our tree of errors; `version`: of an inference."""
        status, said = _status(error), error.message()
        where, model = f"Triton at {self.endpoint.url}", self.endpoint.model
        named: VaultMLError
        version_missing = version is not None and _not_served(status, said, version)
        if (version_missing or status == "NOT_FOUND") and not self._is_live():
            # A server that ends says so of what it had: believe it only of one that lives.
            named = TritonAway(f"{where} is shutting down or starting.")
        elif version_missing:
            named = ModelChanged(f"{where} does not serve version {version} of model {model!r} now.")
        elif status == "NOT_FOUND":
            named = ContractError(
                f"{where} serves no model {model!r} ({said}); "
                f"publish and load it, or set TRITON_MODEL to one that it serves."
            )
        elif status == "UNAVAILABLE" and any(words in said for words in _FULL):
            named = TritonFull(f"{where} has no room for more requests to model {model!r}: {said}.")
        elif status in _HEALS:
            # One that answers late has been found: only one that does not answer at all may be another port.
            doubt = " Is this its gRPC port (usually 8001, not 8000)?" if status == "UNAVAILABLE" else ""
            refusal = self.endpoint.access.refusal(said)
            named = TritonAway(
                f"{where} {refusal}" if refusal else f"{where} does not answer ({status}): {said}.{doubt}"
            )
        elif status == "INVALID_ARGUMENT":
            named = ContractError(f"{where} refuses what its model {model!r} promised: {said}")
        else:
            named = InferenceFailed(
                f"{where} failed on this recording's frames ({status or 'no status'}): {said}"
            )
        return named

    def _is_live(self) -> bool:
        try:
            # "Ready" it would also deny while it loads or unloads a version of any model.
            timeout = self.endpoint.timeout_seconds
            return bool(self._client.is_server_live(self._headers, client_timeout=timeout))
        except InferenceServerException:
            return False


def _status(error: InferenceServerException) -> str:
    return str(error.status() or "").removeprefix("StatusCode.")


def _not_served(status: str, said: str, version: int) -> bool:
    """Whether a server says that it does not have one version of a model.

    Seen on Triton 2.51, after "Request for unknown model: 'yolo'": NOT_FOUND "version 4 is not found" of one
    that it never had, UNAVAILABLE "version 2 is not at ready state" of one that it loads or has unloaded.
    """
    return (status == "NOT_FOUND" and f"version {version} is not" in said) or (
        status == "UNAVAILABLE" and f"version {version} is not at ready state" in said
    )
