"""The pod: events in, tries by the workers, outcomes out, offsets committed; one thread, one loop.

The loop owns all state: the backlog, the outage gate, the offsets. Workers get a task and give back a report.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

import structlog

from consumer.analysis import Analysis
from consumer.attempts import Attempts
from consumer.backlog import Backlog
from consumer.duplicates import Duplicates
from consumer.endpoints import Health
from consumer.errors import (
    RecordingError,
    TritonAway,
    TritonFull,
)
from consumer.metrics import Metrics
from consumer.offsets import PartitionProgress
from consumer.outage import OutageGate
from consumer.outbox import Outbox
from consumer.pace import CALM_SECONDS, Pace
from consumer.pool import WorkerPool
from consumer.report import Costs, Report
from consumer.standing import Snapshot, Standing
from consumer.stream import EventSource
from consumer.verdicts import Verdicts
from consumer.worker import Task

_log = structlog.get_logger("vault-ml")

MAX_IN_HAND = 64
"""Recordings in hand, those that wait for another try included; then nothing more is fetched."""

MAX_IN_HAND_BYTES = 32 * 1024**2
"""What the events in hand take in memory; one that is larger is in hand alone."""

READY_PER_WORKER = 2
"""Recordings ready to be tried; what comes after them waits where it was fetched ahead."""

MAX_HELD_MESSAGES = 1_000
MAX_HELD_BYTES = 16 * 1024**2
"""Finished messages of a partition behind an unfinished one: what a crash would repeat at most."""

MAX_HELD_BYTES_IN_ALL = 4 * MAX_HELD_BYTES
"""The same of all partitions: what they are behind is in hand already, so work goes on."""

LAG_SECONDS = 5.0
REVOKE_SECONDS = 6.0
"""What a rebalance waits for us, all in all; what is not in Kafka then, the next owner does again."""

SETTLE_SECONDS = 2.0
"""Kept of such a time for the last delivery, once no more work is waited for."""

SHUTDOWN_RESERVE_SECONDS = 3.0
"""Kept of the grace time for leaving the group."""

_SLICE_SECONDS = 0.02


@dataclass(frozen=True)
class ServiceLimits:
    """Sizes and times that the loop keeps to."""

    workers: int
    requests_in_flight: int
    """Requests to Triton that one recording may have under way."""
    recording_deadline_seconds: float
    shutdown_grace_seconds: float
    duplicate_window: int = 0
    """Recordings that are remembered, so that their events are looked at once."""


class Service:
    """Runs until it is told to stop; then finishes or gives back what is in hand.

    Args:
        source: where events come from; not joined yet.
        outbox: where outcomes go.
        pool: the workers, running `consumer.worker.work`.
        limits: sizes and times.
        metrics: what happened, for Prometheus.
        health: how it stands, for the probes.
        stop: set from outside, by a signal.
    """

    def __init__(
        self,
        *,
        source: EventSource,
        outbox: Outbox,
        pool: WorkerPool,
        limits: ServiceLimits,
        metrics: Metrics,
        health: Health,
        stop: Event,
    ) -> None:
        self._source, self._outbox, self._pool, self._limits = source, outbox, pool, limits
        self._metrics, self._health, self._stop = metrics, health, stop
        self._gate = OutageGate()
        self._backlog = Backlog()
        self._attempts = Attempts()
        self._pace = Pace(workers=limits.workers, in_flight=limits.requests_in_flight)
        self._calm_turn = 0
        self._duplicates = Duplicates(limits.duplicate_window)
        self._verdicts = Verdicts(
            backlog=self._backlog,
            gate=self._gate,
            attempts=self._attempts,
            duplicates=self._duplicates,
            outbox=outbox,
            metrics=metrics,
            recording_deadline_seconds=limits.recording_deadline_seconds,
        )
        self._lag_read_at = 0.0
        self._standing = Standing(metrics, health)

    def run(self) -> None:
        """Join the group and work until the stop event; then drain within the grace time and leave the group.

        Raises:
            StreamSetupError: Kafka takes our rights away.
        """
        self._source.join(self._finish_before_revoke)
        try:
            while not self._stop.is_set():
                self._turn()
            self._drain(time.monotonic() + self._limits.shutdown_grace_seconds - SHUTDOWN_RESERVE_SECONDS)
        finally:
            self._backlog.forget_running()
            self._source.leave(timeout_seconds=SHUTDOWN_RESERVE_SECONDS)

    def _turn(self) -> None:
        self._fetch()
        self._dispatch()
        self._collect()
        now = time.monotonic()
        self._attempts.write(now)
        self._outbox.turn()
        if now - self._lag_read_at >= LAG_SECONDS:
            self._lag_read_at = now
            self._metrics.lag(self._source.lags())
            self._metrics.oldest_event_expires(self._source.seconds_until_expiry())
        self._say_how_it_stands()

    # In: from Kafka into the backlog.

    def _fetch(self) -> None:
        busy = self._pool.under_way > 0 or self._outbox.undelivered > 0
        message = self._source.poll(
            0.01 if busy else 0.25,
            wanted=self._more_is_wanted(time.monotonic()),
            but_of=[progress.partition for progress in self._source.assigned if _holds_enough(progress)],
        )
        if message is not None:
            self._verdicts.take_in(message, time.monotonic())

    def _more_is_wanted(self, now: float) -> bool:
        held_bytes = sum(progress.held_bytes for progress in self._source.assigned)
        if self._backlog.size_bytes >= MAX_IN_HAND_BYTES or held_bytes >= MAX_HELD_BYTES_IN_ALL:
            return False
        if self._gate.closed:
            # Another recording may tell more where only recordings fail, however many have; and somebody must
            # make the probe.
            may_tell = isinstance(self._gate.cause, RecordingError) or len(self._backlog) == 0
            return may_tell and self._gate.probe_due(now) and self._backlog.running == 0
        if self._in_hand >= max(MAX_IN_HAND, 4 * self._limits.workers):
            return False
        return self._backlog.ready(now) < READY_PER_WORKER * self._limits.workers

    @property
    def _in_hand(self) -> int:
        """Recordings without an outcome, and outcomes that are due and not in Kafka yet."""
        return len(self._backlog) + self._duplicates.waiting + self._outbox.undelivered

    # Work: from the backlog to the workers and back.

    def _dispatch(self) -> None:
        now = time.monotonic()
        for dropped in self._backlog.drop_waiting(revoked_only=True):
            self._verdicts.let_go(dropped, answered=False)
            self._metrics.given_back()
        if self._gate.closed:
            if self._gate.probe_due(now) and self._backlog.running == 0:
                self._start(now, early=True)
            return
        if (calm_turn := int(time.time() / CALM_SECONDS)) != self._calm_turn:
            self._calm_turn = calm_turn  # by the wall clock, so that all pods do it in the same second
            self._pace.calm(now)
        while self._pace.has_room(now) and self._start(now):
            pass
        if self._backlog.ready(now) > 0:
            self._pace.more_waits()

    def _start(self, now: float, *, early: bool = False) -> bool:
        """Begin the next try; says whether there was one that may begin."""
        following = self._backlog.start_next(now, self._attempts.ask, early=early)
        if following is None:
            return False
        ticket, recording = following
        self._attempts.begun(recording)
        task = Task.of_event(recording.event, self._pace.begin(ticket, now))
        self._pool.submit(ticket, task.to_json())
        return True

    def _collect(self) -> bool:
        """Take in what the workers have answered; says whether there was something."""
        collected = False
        while (answer := self._pool.take()) is not None:
            ticket, came = answer
            collected = True
            report = Report.from_json(came) if isinstance(came, str) else Report(came, Costs())
            recording = self._backlog.finish(ticket)
            self._attempts.ended(recording)
            refused = self._note_pace(ticket, report, time.monotonic())
            if recording.progress.revoked:
                # Its partition was taken away meanwhile: the new owner looks at it again.
                self._verdicts.let_go(recording, answered=False)
                continue
            if refused:
                self._verdicts.wait_for_room(recording, report, time.monotonic())
            else:
                self._verdicts.settle(recording, report, time.monotonic())
        return collected

    def _note_pace(self, ticket: int, report: Report, now: float) -> bool:
        """Tell the pace what a try's requests took; says whether it failed for too many of them alone."""
        requests, result = report.costs.requests, report.result
        full, narrowest = isinstance(result, TritonFull), self._pace.at_its_narrowest(ticket)
        version = result.model_version if isinstance(result, Analysis) else ""
        self._metrics.triton_rejected(requests.rejections)
        self._pace.end(ticket, requests, version, now)
        if isinstance(result, TritonAway) and not full:
            self._pace.lost(now)
        return full and not narrowest and not self._gate.closed

    # Out: partitions that go, and the end.

    def _finish_before_revoke(self, going: list[PartitionProgress]) -> None:
        """Finish what is under way for these partitions, for a few seconds; runs inside `poll`."""
        self._work_off(
            lambda: any(r.progress in going for r in self._backlog.under_way()),
            going,
            time.monotonic() + REVOKE_SECONDS,
        )

    def _drain(self, deadline: float) -> None:
        """Finish what is under way; what is not is never committed, so it comes again to somebody."""
        given_back = self._backlog.drop_waiting(revoked_only=False)
        self._work_off(lambda: self._backlog.running > 0, None, deadline)
        unfinished = len(given_back) + len(self._backlog) + self._duplicates.waiting
        self._metrics.given_back(unfinished)
        _log.info("stopping", given_back=unfinished)

    def _work_off(
        self, busy: Callable[[], bool], going: list[PartitionProgress] | None, deadline: float
    ) -> None:
        """Wait for work under way, then for its delivery; `going` None: all partitions, outside of `poll`."""
        while busy() and time.monotonic() < deadline - SETTLE_SECONDS:
            self._health.beat()
            if going is None:
                self._source.poll(0.0, wanted=False)
            if not self._collect():
                time.sleep(_SLICE_SECONDS)
            self._attempts.write(time.monotonic())
            self._outbox.turn()
        leaving = self._source.assigned if going is None else going
        self._attempts.leave(leaving)
        self._outbox.settle(leaving, deadline)

    def _say_how_it_stands(self) -> None:
        snapshot = Snapshot(
            in_hand=self._in_hand,
            assigned=self._source.assigned,
            joined=self._source.joined,
            outage=self._gate.cause,
            kafka_away=self._outbox.troubled or self._source.away,
            largest_worker_bytes=self._pool.largest_worker_bytes,
        )
        self._standing.tell(snapshot, self._pace)
        self._standing.name_holders(self._backlog, time.monotonic())


def _holds_enough(progress: PartitionProgress) -> bool:
    """Whether a crash would repeat so much of a partition that nothing more of it is to be begun."""
    return progress.held >= MAX_HELD_MESSAGES or progress.held_bytes >= MAX_HELD_BYTES
