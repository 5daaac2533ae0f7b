"""Second look: another version sees the frames that go to the first, and never stands in its way."""

from collections import deque
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from consumer.errors import VaultMLError
from consumer.triton_client import FrameBatch, FrameRows, PendingAnswer

PATIENCE_SECONDS = 5.0
"""What a recording waits for the second look once the first one is complete."""

MAX_BATCHES_BEHIND = 8
"""Batches that the second look may be behind; the frames of a long one would fill the memory."""


BEHIND = "behind"
"""Why a second look failed that was too far behind."""


class SecondLook:
    """Asks in the background, and gives up rather than hold anybody up.

    Args:
        begin: sends one batch off, without waiting, and gives what will hold its answer.
        take: gets the answer to each frame, in order, whenever `offer` or `finish` finds it there.
    """

    def __init__(
        self, begin: Callable[[FrameBatch], PendingAnswer], take: Callable[[FrameRows], None]
    ) -> None:
        self._begin, self._take = begin, take
        self._pending: deque[PendingAnswer] = deque()
        self.failed: str | None = None
        """Why there is no second look, in one word; None while there may be one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel()

    def offer(self, batch: FrameBatch) -> None:
        """Send a batch off, unless this look has failed or is too far behind."""
        while self.failed is None and self._pending and self._pending[0].future.done():
            self._next(timeout_seconds=0.0)
        if self.failed is None and len(self._pending) >= MAX_BATCHES_BEHIND:
            self._give_up(BEHIND)
        if self.failed is None:
            self._pending.append(self._begin(batch))

    def finish(self, patience_seconds: float) -> None:
        """Wait until the answers to all frames are taken, so long at most; then this look has failed."""
        deadline = monotonic() + patience_seconds
        while self.failed is None and self._pending:
            self._next(max(0.0, deadline - monotonic()))

    def _next(self, timeout_seconds: float) -> None:
        try:
            answers = self._pending[0].future.result(timeout_seconds)
        except TimeoutError:
            self._give_up("timeout")
        except VaultMLError as error:
            self._give_up(error.reason)
        else:
            self._pending.popleft()
            for answer in answers:
                self._take(answer)

    def _give_up(self, reason: str) -> None:
        self.failed = reason
        self._cancel()

    def _cancel(self) -> None:
        while self._pending:
            self._pending.popleft().cancel()
