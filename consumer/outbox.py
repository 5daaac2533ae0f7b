"""Outbox: outcomes on their way out, sent until the broker confirms them; only then is an offset finished."""

import time
from collections import deque
from dataclasses import dataclass, field

import structlog

from consumer import dead_letter, results
from consumer.analysis import Analysis
from consumer.backlog import InHand
from consumer.comparison import Comparison, Trial
from consumer.diff_topic import DiffTopic
from consumer.errors import BrokerAway, MessageTooLarge, VaultMLError
from consumer.messages import OutgoingMessage
from consumer.metrics import Metrics
from consumer.report import Costs
from consumer.sink import ResultSink

_log = structlog.get_logger("vault-ml")

RESEND_SECONDS = 2.0
"""After a failed delivery; librdkafka itself has tried for its own time-out before."""


@dataclass(frozen=True)
class OutboxSettings:
    """Where outcomes go, and how large they may be."""

    target_topic: str
    dead_letter_topic: str
    max_message_bytes: int
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Configured secrets, by value: masked in dead letters."""


@dataclass(frozen=True)
class _Outcome:
    """What is said of a recording once its message is confirmed."""

    outcome: str
    reason: str
    line: dict[str, object]
    costs: Costs = field(default_factory=Costs)
    analysis: Analysis | None = None


@dataclass(frozen=True)
class _Letter:
    topic: str
    message: OutgoingMessage
    recording: InHand
    outcome: _Outcome
    sent_at: float


class Outbox:
    """Turns outcomes into messages and sees them delivered."""

    def __init__(
        self, sink: ResultSink, settings: OutboxSettings, metrics: Metrics, diffs: DiffTopic
    ) -> None:
        self._sink, self._settings, self._metrics, self._diffs = sink, settings, metrics, diffs
        self._resend: deque[tuple[float, _Letter]] = deque()
        self.undelivered = 0
        """Outcomes that the broker has not confirmed yet."""
        self._troubles: dict[str, BrokerAway] = {}
        """Why the last delivery to a topic failed; topics where it succeeded are not in it."""

    @property
    def troubled(self) -> bool:
        """Whether something waits because the broker did not take it."""
        return bool(self._troubles)

    def publish(
        self, recording: InHand, analysis: Analysis, costs: Costs, trial: Trial | None = None
    ) -> None:
        """Send the result of a recording, looked at or skipped; and what was compared on the way."""
        message = results.build_result(
            recording.event, analysis, recording.position, self._settings.max_message_bytes
        )
        outcome, _, reason = analysis.outcome.partition(":")
        line: dict[str, object] = {
            "frames": len(analysis.frames),
            "detections": sum(len(frame.detections) for frame in analysis.frames),
        }
        if analysis.model_version:
            line["model"] = f"{analysis.model_name}/{analysis.model_version}"
        if trial is not None:
            self._diffs.take(trial)
            if trial.comparison is not None:
                line["compared"] = _in_words(trial.comparison)
        if analysis.partial_reasons:
            line["why"] = ", ".join(analysis.partial_reasons)
        self._send(
            self._settings.target_topic, message, recording, _Outcome(outcome, reason, line, costs, analysis)
        )

    def bury(self, recording: InHand, error: VaultMLError, costs: Costs, *, exhausted: bool = False) -> None:
        """Send a recording's dead letter; `exhausted`: the error might have healed, and did not in time."""
        message = dead_letter.build_dead_letter(
            recording.payload,
            error,
            recording.position,
            destination=self._settings.dead_letter_topic,
            attempts=recording.attempts,
            exhausted=exhausted,
            max_bytes=self._settings.max_message_bytes,
            secrets=self._settings.secrets,
        )
        reason = "retry_exhausted" if exhausted else error.reason
        line: dict[str, object] = {"why": str(error), "attempts": recording.attempts}
        self._send(
            self._settings.dead_letter_topic, message, recording, _Outcome("dead-letter", reason, line, costs)
        )

    def turn(self, wait_seconds: float = 0.0) -> None:
        """Take in what the broker confirmed, and send again what it did not."""
        self._sink.poll(wait_seconds)
        self._diffs.turn()
        now = time.monotonic()
        while self._resend and self._resend[0][0] <= now:
            self._post(self._resend.popleft()[1])

    def flush(self, deadline: float) -> None:
        """Wait until everything is confirmed, or until that time of the monotonic clock."""
        while self.undelivered and (left := deadline - time.monotonic()) > 0:
            self.turn(min(left, 0.1))

    def _send(self, topic: str, message: OutgoingMessage, recording: InHand, outcome: _Outcome) -> None:
        self.undelivered += 1
        self._post(_Letter(topic, message, recording, outcome, time.monotonic()))

    def _post(self, letter: _Letter) -> None:
        if letter.recording.progress.revoked:
            self.undelivered -= 1  # the partition's new owner sends it
            return
        self._sink.send(letter.topic, letter.message, lambda failure: self._delivered(letter, failure))

    def _delivered(self, letter: _Letter, failure: BrokerAway | MessageTooLarge | None) -> None:
        if isinstance(failure, BrokerAway):
            if letter.topic not in self._troubles:
                _log.warning("result not delivered, sending again", why=str(failure))
            self._troubles[letter.topic] = failure
            self._resend.append((time.monotonic() + RESEND_SECONDS, letter))
            return
        if failure is not None:
            self._shrink(letter, failure)
            return
        self.undelivered -= 1
        self._troubles.pop(letter.topic, None)
        recording, outcome = letter.recording, letter.outcome
        if not recording.progress.revoked:
            recording.progress.finished(recording.position.offset)
        self._account(recording, outcome, time.monotonic() - letter.sent_at)

    def _shrink(self, letter: _Letter, failure: MessageTooLarge) -> None:
        """The topic takes less than we were told: dead letter; if it was one, leave its payload out."""
        recording = letter.recording
        if letter.topic != self._settings.dead_letter_topic:
            self.undelivered -= 1
            self.bury(recording, failure, letter.outcome.costs)
        elif recording.payload:
            self.undelivered -= 1
            recording.payload = b""
            self.bury(recording, failure, letter.outcome.costs)
        else:
            # Nothing is left to leave out: keep the place until somebody raises the topic's limit.
            self._delivered(letter, BrokerAway(str(failure)))

    def _account(self, recording: InHand, outcome: _Outcome, deliver_seconds: float) -> None:
        stages = dict(outcome.costs.seconds)
        if recording.started_at is not None:
            stages["wait"] = recording.started_at - recording.fetched_at
        stages["deliver"] = deliver_seconds
        self._metrics.recording_finished(outcome.outcome, outcome.reason, stages)
        if outcome.costs.bytes_downloaded:
            self._metrics.downloaded(outcome.costs.bytes_downloaded)
        if outcome.analysis is not None and outcome.analysis.ledger is not None:
            self._metrics.looked_at(outcome.analysis)
        say = _log.warning if outcome.outcome == "dead-letter" else _log.info
        say(
            "recording",
            key=recording.event.key,
            camera=recording.event.camera,
            outcome=outcome.outcome,
            **({"reason": outcome.reason} if outcome.reason else {}),
            **outcome.line,
            source=str(recording.position),
            seconds={name: round(seconds, 3) for name, seconds in stages.items()},
        )


def _in_words(comparison: Comparison) -> str:
    versions = f"{comparison.mode} {comparison.candidate.version} with live {comparison.live.version}"
    if comparison.failed is not None:
        return f"{versions}: failed ({comparison.failed})"
    return f"{versions}: {comparison.matched} pairs"
