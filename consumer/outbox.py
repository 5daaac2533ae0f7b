"""Outbox: outcomes become messages, and are accounted for once those are in Kafka."""

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog

from consumer import dead_letter, results
from consumer.analysis import Analysis
from consumer.backlog import InHand
from consumer.comparison import Comparison, Trial
from consumer.delivery import Delivery, Letter, Outcome, Receipt
from consumer.diff_topic import DiffTopic
from consumer.errors import MessageTooLarge, VaultMLError
from consumer.messages import OutgoingMessage
from consumer.metrics import Metrics
from consumer.offsets import PartitionProgress
from consumer.report import Costs

_log = structlog.get_logger("vault-ml")

RESEND_SECONDS = 2.0
"""For a dead letter that is too large for its topic."""

REPEAT_SECONDS = 60.0
"""That there is such a letter is said again after this long."""

SMALLER_LETTERS_BYTES = (4096, 0)
"""What is tried where a topic refuses a dead letter for its size: a reduced event, then none."""


@dataclass(frozen=True)
class OutboxSettings:
    """Where outcomes go, and how large they may be."""

    target_topic: str
    dead_letter_topic: str
    max_message_bytes: int
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Configured secrets, by value: masked in results and dead letters."""


class Outbox:
    """Turns outcomes into messages and hands them to the delivery."""

    def __init__(
        self, delivery: Delivery, settings: OutboxSettings, metrics: Metrics, diffs: DiffTopic
    ) -> None:
        self._delivery, self._settings, self._metrics, self._diffs = delivery, settings, metrics, diffs
        self._stuck: deque[tuple[float, Letter]] = deque()
        """Dead letters that their topic does not take, as small as they are; and when to try again."""
        self._say_stuck_from = 0.0

    @property
    def undelivered(self) -> int:
        """Outcomes that are on their way into Kafka; what is stuck holds its own partition, not the pod."""
        return self._delivery.undelivered

    @property
    def troubled(self) -> bool:
        """Whether something waits because Kafka did not take it."""
        return self._delivery.troubled or bool(self._stuck)

    def publish(
        self, recording: InHand, analysis: Analysis, costs: Costs, trial: Trial | None = None
    ) -> None:
        """Send the result of a recording, looked at or skipped; and what was compared on the way."""
        message = results.build_result(
            recording.event,
            analysis,
            recording.position,
            self._settings.max_message_bytes,
            recording.replay,
            duplicate_of=recording.duplicate_of,
            secrets=self._settings.secrets,
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
            self._settings.target_topic, message, recording, Outcome(outcome, reason, line, costs, analysis)
        )

    def bury(self, recording: InHand, error: VaultMLError, costs: Costs, *, exhausted: bool = False) -> None:
        """Send a recording's dead letter; `exhausted`: the error might have healed, and did not in time."""
        outcome = Outcome(
            "dead-letter",
            "retry_exhausted" if exhausted else error.reason,
            {"why": str(error), "attempts": recording.attempts},
            costs,
            error=error,
            exhausted=exhausted,
        )
        message = self._dead_letter(recording, error, self._settings.max_message_bytes, exhausted=exhausted)
        self._send(self._settings.dead_letter_topic, message, recording, outcome)

    def _dead_letter(
        self, recording: InHand, error: VaultMLError, max_bytes: int, *, exhausted: bool
    ) -> OutgoingMessage:
        return dead_letter.build_dead_letter(
            recording.payload,
            error,
            recording.position,
            destination=self._settings.dead_letter_topic,
            attempts=recording.attempts,
            exhausted=exhausted,
            max_bytes=max_bytes,
            secrets=self._settings.secrets,
            replay=recording.replay,
        )

    def turn(self, wait_seconds: float = 0.0) -> None:
        """Take in what became of outcomes that are on their way."""
        self._take_in(self._delivery.turn(wait_seconds))
        self._diffs.turn()
        if self._stuck and self._stuck[0][0] <= time.monotonic():
            # One in a turn: in one batch several may be too large where each alone is not.
            self._delivery.send(self._stuck.popleft()[1])

    def settle(self, going: Collection[PartitionProgress], deadline: float) -> None:
        """Commit what is finished of partitions that go away; `deadline` is of the monotonic clock."""
        self._take_in(self._delivery.settle(going, deadline))

    def _take_in(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            letter = receipt.letter
            if receipt.refused is not None:
                self._shrink(letter, receipt.refused)
            else:
                self._account(letter.recording, letter.outcome, time.monotonic() - letter.written_at)

    def _send(self, topic: str, message: OutgoingMessage, recording: InHand, outcome: Outcome) -> None:
        self._delivery.send(Letter(topic, message, recording, outcome, time.monotonic()))

    def _shrink(self, letter: Letter, failure: MessageTooLarge) -> None:
        """The topic takes less than we were told: dead letter; if it was one, a smaller one of the same."""
        recording, outcome, size_bytes = letter.recording, letter.outcome, letter.message.size_bytes
        if outcome.error is None:
            self.bury(recording, failure, outcome.costs)
            return
        max_bytes = next(smaller for smaller in SMALLER_LETTERS_BYTES if smaller < size_bytes)
        smaller = self._dead_letter(recording, outcome.error, max_bytes, exhausted=outcome.exhausted)
        if smaller.size_bytes < size_bytes:
            self._send(letter.topic, smaller, recording, outcome)
            return
        # Nothing is left to leave out: keep the place until somebody raises the topic's limit.
        self._stuck.append((time.monotonic() + RESEND_SECONDS, letter))
        if time.monotonic() >= self._say_stuck_from:
            self._say_stuck_from = time.monotonic() + REPEAT_SECONDS
            _log.warning(
                "dead letter too large for its topic, sending again",
                topic=letter.topic,
                source=str(recording.position),
                why=f"Topic {letter.topic!r} does not take {size_bytes} bytes; raise its max.message.bytes.",
            )

    def _account(self, recording: InHand, outcome: Outcome, deliver_seconds: float) -> None:
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
