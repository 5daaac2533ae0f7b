"""The detector: a model behind Triton that keeps the contract, asked by version, its rollout followed."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import structlog
import tenacity

from consumer.contract import Contract, ModelVersion, Parameter, check_companion, check_contract, newest
from consumer.errors import ContractError, TritonAway, TritonFull, VaultMLError
from consumer.rollout import Rollout, companion_name
from consumer.tally import Tally
from consumer.triton_client import FrameBatch, FrameRows, PendingAnswer, TritonClient, TritonEndpoint

__all__ = ["FrameBatch", "FrameRows", "PendingAnswer", "TritonDetector", "TritonEndpoint"]

_log = structlog.get_logger("vault-ml.detector")

MAX_FRAMES_PER_REQUEST = 16
"""Bigger requests spare copies in the server's python backend; past 16 frames the gain has gone."""

ROLLOUT_REFRESH_SECONDS = 3.0
"""How old the rollout may be when a recording begins."""

_AWAY_WAIT = tenacity.wait_random_exponential(multiplier=0.1, max=2.0)
_FULL_WAIT = tenacity.wait_exponential(multiplier=0.3, max=2.0) + tenacity.wait_random(0.0, 0.3)
"""Not sooner: what is refused came too early, and others wait in that queue."""

_ROLLOUT_TIMEOUT_SECONDS = 2.0
"""The last state known will do, so a recording does not wait longer for the next one."""


class TritonDetector:
    """A model behind Triton that keeps the contract. One per process; not shared between processes."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        self._endpoint = endpoint
        self._client = TritonClient(endpoint)
        self._requests = ThreadPoolExecutor(endpoint.requests_in_flight, thread_name_prefix="triton-request")
        self._contract: Contract | None = None
        self._contract_holds = False
        self._rollout_read_at = 0.0
        self._rollout_readable = True
        self.tally = Tally(endpoint.requests_in_flight)
        """Counts the requests and limits those in flight; set a new one for each recording."""

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
        if self._contract is None or not self._contract_holds:
            return self.read_contract()
        return self._contract

    def read_contract(self) -> Contract:
        """Ask Triton what it serves now, and check it against consumer/contract.py.

        Raises:
            ContractError: no such model or companion, or it promises something else; says what was expected
                and found.
            TritonAway: no answer.
        """
        model, timeout = self._endpoint.model, self._endpoint.timeout_seconds
        metadata = self._client.metadata()
        config = self._client.config(model, timeout) or {}
        companion_config = self._client.config(companion_name(model), timeout)
        return self._hold(check_contract(model, metadata, config, companion_config))

    def rollout(self) -> Rollout:
        """Return where recordings go, read anew when it is older than a few seconds; for a recording's begin.

        Where it cannot be read now, the last one known holds.

        Raises:
            ContractError, TritonAway: the contract was never read, and cannot be; see `read_contract`.
        """
        contract = self.contract
        if time.monotonic() - self._rollout_read_at < ROLLOUT_REFRESH_SECONDS:
            return contract.rollout
        try:
            rollout = self.read_rollout()
        except VaultMLError as error:
            self._rollout_read_at = time.monotonic()  # tried, and not again before the next one is due
            if self._rollout_readable:
                _log.warning("rollout cannot be read, the last one known holds", why=str(error))
            self._rollout_readable = False
            return contract.rollout
        self._rollout_readable = True
        return rollout

    def read_rollout(self) -> Rollout:
        """Ask Triton for the rollout now; of all that were seen the highest generation holds.

        Raises:
            ContractError: it is not served, or cannot be understood.
            TritonAway: no answer.
        """
        contract = self.contract
        timeout = min(self._endpoint.timeout_seconds, _ROLLOUT_TIMEOUT_SECONDS)
        config = self._client.config(companion_name(self._endpoint.model), timeout)
        rollout, versions = check_companion(self._endpoint.model, config)
        return self._hold(replace(contract, rollout=rollout, versions=versions)).rollout

    def version(self, name: str) -> ModelVersion:
        """Return labels and digest of one version; asks Triton again when the version is new to us.

        Raises:
            ContractError: the companion says nothing of that version.
            TritonAway: no answer.
        """
        if name not in self.contract.versions:
            self.read_rollout()
        try:
            return self.contract.versions[name]
        except KeyError:
            raise ContractError(
                f"Version {name} of model {self._endpoint.model!r} has no {Parameter.labels(name)} in "
                f"{companion_name(self._endpoint.model)!r}; publish it with 'vault-ml model export'."
            ) from None

    def detect(
        self,
        frames: Iterable[npt.NDArray[np.uint8]],
        version: int | None = None,
        *,
        also: Callable[[FrameBatch], None] = lambda batch: None,
    ) -> Iterator[FrameRows]:
        """Send frames in batches to one version, and yield one answer per frame, in order.

        While one request is at the server the next frames are taken from `frames`, up to as many requests
        as the tally allows; no more frames than those are held.

        Args:
            frames: uint8 [H*3/2, W] I420 pictures of the contract's size.
            version: of the model; None for the live one.
            also: gets each batch once it is on its way.

        Raises:
            TritonAway: no answer, after a few tries.
            TritonFull: a full queue, after a few tries, one request at a time.
            InferenceFailed: the server failed on these frames.
            ModelChanged: the version is not served, or not any more.
            ContractError: the model no longer takes what it promised.
        """
        contract, tally = self.contract, self.tally
        asked = contract.rollout.live if version is None else version
        batch_size = min(contract.max_batch_size, MAX_FRAMES_PER_REQUEST)
        source = iter(frames)
        waiting: deque[Future[list[FrameRows]]] = deque()
        try:
            while pictures := list(islice(source, batch_size)):
                while len(waiting) >= tally.in_flight:
                    tally.held_back()
                    yield from waiting.popleft().result()
                batch = np.stack(pictures)
                waiting.append(self._requests.submit(self._infer, batch, asked, tally))
                also(batch)
            while waiting:
                yield from waiting.popleft().result()
        except ContractError:
            self._contract_holds = False  # the model may have been replaced: ask anew before the next try
            raise
        finally:
            for request in waiting:
                request.cancel()

    def begin(self, batch: FrameBatch, version: int) -> PendingAnswer:
        """Ask a version in the background, once and at low priority; its `future` has the errors, too."""
        return self._client.begin(batch, version)

    def _infer(self, batch: FrameBatch, version: int, tally: Tally) -> list[FrameRows]:
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TritonAway),
            wait=_before_another_try,
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(self._endpoint.timeout_seconds),
            reraise=True,
        )
        return retry(self._ask, batch, version, tally)

    def _ask(self, batch: FrameBatch, version: int, tally: Tally) -> list[FrameRows]:
        try:
            answers = self._client.infer(batch, version)
        except TritonFull:
            tally.rejected()
            raise
        tally.answered(len(answers), sum(answer.request_seconds for answer in answers))
        return answers

    def _hold(self, read: Contract) -> Contract:
        self._contract = read if self._contract is None else newest(self._contract, read)
        self._contract_holds = True
        self._rollout_read_at = time.monotonic()
        return self._contract


def _before_another_try(state: tenacity.RetryCallState) -> float:
    full = state.outcome is not None and isinstance(state.outcome.exception(), TritonFull)
    return (_FULL_WAIT if full else _AWAY_WAIT)(state)
