"""Verdicts: what becomes of a recording that came in, or whose try ended: a try, a result, a dead letter."""

import random
import time

import structlog

from consumer.analysis import Analysis
from consumer.attempts import Attempts
from consumer.backlog import Backlog, InHand, next_try_at
from consumer.backoff import jittered_wait
from consumer.duplicates import Duplicates
from consumer.errors import NeverHeals, TritonFull, Unforeseen, VaultMLError, WorkerDied
from consumer.intake import recordings_of
from consumer.metrics import Metrics
from consumer.outage import OutageGate
from consumer.outbox import Outbox
from consumer.prefetch import SourceMessage
from consumer.report import Costs, Report

_log = structlog.get_logger("vault-ml")

REFUSED_SECONDS = 1.0
"""Before a recording is tried again that Triton had no room for; with jitter."""


class Verdicts:
    """Judges recordings; each goes into the backlog, or out through the outbox.

    Args:
        backlog: the recordings that wait for a try, and those that a worker has.
        gate: tells an outage from one bad recording.
        attempts: what is known of recordings that ended a worker or a pod.
        duplicates: the events that were here before.
        outbox: where outcomes go.
        metrics: what happened, for Prometheus.
        recording_deadline_seconds: how long a recording that fails is tried again; outages do not count.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        gate: OutageGate,
        attempts: Attempts,
        duplicates: Duplicates,
        outbox: Outbox,
        metrics: Metrics,
        recording_deadline_seconds: float,
    ) -> None:
        self._backlog, self._gate, self._attempts = backlog, gate, attempts
        self._duplicates, self._outbox, self._metrics = duplicates, outbox, metrics
        self._deadline_seconds = recording_deadline_seconds
        self._rng = random.Random()  # noqa: S311  jitter, not cryptography

    def take_in(self, message: SourceMessage, now: float) -> None:
        """Judge the recordings that a message tells of."""
        self._attempts.meet(message.progress)
        for recording, wrong in recordings_of(message, now):
            if wrong is not None:
                self._outbox.bury(recording, wrong, Costs())
            elif recording.event.skip_reason is not None:
                self._outbox.publish(recording, Analysis.skipped(recording.event.skip_reason), Costs())
            elif (given_up := self._attempts.take_in(recording)) is not None:
                self._outbox.bury(recording, given_up, Costs(), exhausted=True)
            else:
                self._meet(recording, now)

    def _meet(self, recording: InHand, now: float) -> None:
        """Put a recording in line, unless its event has been here before."""
        if self._duplicates.meet(recording):
            self._backlog.wait(recording, now)
        elif recording.duplicate_of is not None:
            self._outbox.publish(recording, Analysis.skipped("duplicate"), Costs())

    def settle(self, recording: InHand, report: Report, now: float) -> None:
        """Judge a recording by the report of its try."""
        if isinstance(report.result, Analysis):
            self._gate.answered(now, inferred=bool(report.result.model_version))
            self._outbox.publish(recording, report.result, report.costs, report.trial)
            self.let_go(recording, answered=True)
            return
        error = report.result
        if isinstance(error, WorkerDied):
            self._metrics.worker_replaced(error.reason)
        if self._gate.failed(str(recording.position), error, now):
            recording.attempts -= 1  # an outage's probe is not held against the recording
            self._backlog.wait(recording, now)
        elif isinstance(error, NeverHeals):
            self._bury(recording, report, error)
        else:
            self._try_again(recording, report, error, now)

    def _try_again(self, recording: InHand, report: Report, error: VaultMLError, now: float) -> None:
        if isinstance(error, WorkerDied | Unforeseen):
            recording.breakdowns += 1
            self._attempts.broke_down(recording, error.reason)
        due_at = self._next_try_at(recording, now)
        if due_at is None:
            self._bury(recording, report, error, exhausted=True)
            return
        self._metrics.retried(error.reason)
        _log.warning(
            "try failed",
            key=recording.event.key,
            source=str(recording.position),
            reason=error.reason,
            why=str(error),
            attempt=recording.attempts,
        )
        self._backlog.wait(recording, due_at)

    def _bury(
        self, recording: InHand, report: Report, error: VaultMLError, *, exhausted: bool = False
    ) -> None:
        self._outbox.bury(recording, error, report.costs, exhausted=exhausted)
        if exhausted:
            self._gate.gave_up(str(recording.position))
        self.let_go(recording, answered=False)

    def wait_for_room(self, recording: InHand, report: Report, now: float) -> None:
        """Try again soon, with fewer requests at a time; it is not held against the recording."""
        recording.attempts -= 1
        self._metrics.retried(TritonFull.reason)
        _log.info(
            "triton is full",
            key=recording.event.key,
            source=str(recording.position),
            why=str(report.result),
        )
        wait = jittered_wait(0, first_seconds=REFUSED_SECONDS, longest_seconds=REFUSED_SECONDS, rng=self._rng)
        self._backlog.wait(recording, now + wait)

    def let_go(self, recording: InHand, *, answered: bool) -> None:
        """Forget what is remembered of a recording that has its outcome, or is somebody else's now."""
        self._gate.forget(str(recording.position))
        for repeated in self._duplicates.ended(recording, answered=answered):
            self._meet(repeated, time.monotonic())

    def _next_try_at(self, recording: InHand, now: float) -> float | None:
        return next_try_at(
            recording,
            now,
            working_now=now - self._gate.seconds_closed(now),
            deadline_seconds=self._deadline_seconds,
            rng=self._rng,
        )
