"""Breaker: a candidate that fails again and again is left alone for a while, so that it costs no more time.

A candidate that hangs would cost each canary recording the whole TRITON_TIMEOUT, and each shadowed one the
patience of its second look.
"""

import time
from collections.abc import Callable

import structlog

from consumer.rollout import Rollout

_log = structlog.get_logger("vault-ml.breaker")

FAILURES = 3
"""In a row; one may be the recording's own fault."""

PAUSE_SECONDS = 300.0
"""Then one recording tries it again: a hanging candidate costs a worker a tenth of its time at most."""


class Breaker:
    """Counts the failures in a row of the version on trial; one per worker. A newer rollout begins anew.

    Args:
        now: a clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._generation = 0
        self._failures = 0
        self._closed_from = 0.0

    def is_open(self, rollout: Rollout) -> bool:
        """Whether the candidate of this rollout is not to be asked now."""
        return rollout.generation == self._generation and self._now() < self._closed_from

    def note(self, rollout: Rollout, failed: str | None) -> None:
        """Take note of what the candidate did with one recording.

        Args:
            rollout: in which it was asked.
            failed: why it failed, in one word; None where it did not.
        """
        if rollout.generation != self._generation:
            self._generation, self._failures, self._closed_from = rollout.generation, 0, 0.0
        self._failures = 0 if failed is None else self._failures + 1
        if self._failures < FAILURES or rollout.candidate is None:
            return
        self._closed_from = self._now() + PAUSE_SECONDS
        _log.warning(
            "candidate paused, the live version answers all",
            version=rollout.candidate.version,
            mode=rollout.candidate.mode,
            failures=self._failures,
            why=failed,
            seconds=PAUSE_SECONDS,
        )
