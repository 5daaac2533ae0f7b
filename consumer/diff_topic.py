"""The diff topic: comparisons on their way out, best effort; no result waits for one, and no offset."""

import time
from collections.abc import Callable

import structlog

from consumer.comparison import Comparison, Trial
from consumer.errors import StreamSetupError, VaultMLError
from consumer.rollout import Rollout
from consumer.sink import ResultSink
from consumer.trial_metrics import TrialMetrics

_log = structlog.get_logger("vault-ml.diff_topic")

MOST_WAITING = 1_000
"""Comparisons that the broker has not confirmed; further ones are dropped, where results would wait."""


class DiffTopic:
    """Takes what the rollout made of each recording: counts it, says a change, sends the comparison.

    Args:
        topic: QUEUE_COMPARISON.
        open_sink: makes the producer with the first comparison: one of its own, as this topic may be missing.
        metrics: of rollouts.
    """

    def __init__(self, topic: str, open_sink: Callable[[], ResultSink], metrics: TrialMetrics) -> None:
        self._topic, self._open_sink, self._metrics = topic, open_sink, metrics
        self._sink: ResultSink | None = None
        self._rollout: Rollout | None = None
        self._waiting = 0
        self._in_trouble = False

    def take(self, trial: Trial) -> None:
        """Take note of one recording."""
        self.follow(trial.rollout)
        if trial.comparison is not None:
            self._metrics.compared(trial.comparison)
            self._send(trial.comparison)

    def follow(self, rollout: Rollout) -> None:
        """Say the rollout that holds; the log has a line where it is a newer one than before."""
        if self._rollout is not None and rollout.generation <= self._rollout.generation:
            return  # of a recording that began before the change, or of a worker that has not heard of it
        self._metrics.rollout(rollout)
        self._rollout = rollout
        trial = rollout.candidate
        _log.info(
            "rollout",
            generation=rollout.generation,
            live=rollout.live,
            **({} if trial is None else {trial.mode: trial.version, "percent": trial.percent}),
        )

    def turn(self, wait_seconds: float = 0.0) -> None:
        """Take in what the broker said of comparisons."""
        if self._sink is None:
            return
        try:
            self._sink.poll(wait_seconds)
        except StreamSetupError as error:
            self._sink, self._waiting = None, 0  # a producer that is refused for good: the next one is new
            self._trouble(error)

    def flush(self, timeout_seconds: float) -> None:
        """Wait until all are confirmed, so long at most."""
        deadline = time.monotonic() + timeout_seconds
        while self._sink is not None and self._waiting and (left := deadline - time.monotonic()) > 0:
            self.turn(min(left, 0.1))

    def _send(self, comparison: Comparison) -> None:
        if self._waiting >= MOST_WAITING:
            return
        if self._sink is None:
            self._sink = self._open_sink()
        self._waiting += 1
        self._sink.send(self._topic, comparison.to_message(), self._delivered)

    def _delivered(self, failure: VaultMLError | None) -> None:
        self._waiting = max(0, self._waiting - 1)
        if failure is None:
            self._in_trouble = False
        else:
            self._trouble(failure)

    def _trouble(self, failure: VaultMLError) -> None:
        if not self._in_trouble:
            _log.warning("comparisons are lost", topic=self._topic, why=str(failure))
        self._in_trouble = True
