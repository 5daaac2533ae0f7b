"""What becomes of outcomes that their topic refuses."""

import base64
import json
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumer import outbox
from consumer.backlog import InHand
from consumer.delivery import Letter, Receipt
from consumer.diff_topic import DiffTopic
from consumer.errors import RecordingUnavailable, RecordingUndecodable, VaultMLError
from consumer.events import parse_message
from consumer.messages import Position
from consumer.metrics import Metrics
from consumer.offsets import PartitionProgress
from consumer.outbox import RESEND_SECONDS, Outbox, OutboxSettings
from consumer.report import Costs
from consumer.sink import ResultSink, too_large


class Delivery:
    """Refuses all letters above a size, at once."""

    undelivered, troubled = 0, False

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.taken: list[Letter] = []
        self.refused: list[Letter] = []
        self._receipts: list[Receipt] = []

    def send(self, letter: Letter) -> None:
        fits = letter.message.size_bytes <= self.most_bytes
        (self.taken if fits else self.refused).append(letter)
        self._receipts.append(Receipt(letter, None if fits else too_large(letter.topic)))

    def turn(self, wait_seconds: float = 0.0) -> Sequence[Receipt]:
        receipts, self._receipts = self._receipts, []
        return receipts

    def settle(self, going: Collection[PartitionProgress], deadline: float) -> Sequence[Receipt]:
        return self.turn()

    def close(self) -> None:
        """Nothing is open."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outbox, "time", clock)
    return clock


def no_sink() -> ResultSink:
    raise AssertionError("nothing is compared here")


def opened(delivery: Delivery) -> Outbox:
    metrics = Metrics(CollectorRegistry())
    settings = OutboxSettings("results", "letters", 1_000_000)
    return Outbox(delivery, settings, metrics, DiffTopic("comparisons", no_sink, metrics.trials))


def recording() -> InHand:
    payload = json.dumps({"payload": {"key": "cam/0.mp4", "metadata": {"note": "n" * 20_000}}}).encode()
    (event,) = parse_message(payload)
    progress = PartitionProgress("events", 0)
    return InHand(event, Position("events", 0, 0), progress, 0.0, payload)  # type: ignore[arg-type]  # a recording


def dead_letter(letter: Letter) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(letter.message.value)["deadLetter"]
    return found


@pytest.mark.parametrize(
    ("error", "exhausted", "reason"),
    [
        (RecordingUndecodable("It cannot be decoded."), False, "handler_error"),
        (RecordingUnavailable("Vault has it not yet."), True, "retry_exhausted"),
    ],
)
@pytest.mark.parametrize("most_bytes", [8_000, 1_700])
def test_a_dead_letter_that_had_to_be_made_smaller_still_says_why(
    error: VaultMLError, exhausted: bool, reason: str, most_bytes: int
) -> None:
    delivery = Delivery(most_bytes)
    box = opened(delivery)
    box.bury(recording(), error, Costs(), exhausted=exhausted)
    with capture_logs() as lines:
        for _ in range(3):
            box.turn()
    assert delivery.refused
    (letter,) = delivery.taken
    told = dead_letter(letter)
    assert told["reason"] == reason
    assert told["attributes"]["reason"] == error.reason
    assert told["attributes"]["sentence"] == str(error)
    assert told["attributes"]["payload"], "and that it was made smaller"
    (line,) = [line for line in lines if line["event"] == "recording"]
    assert line["why"] == str(error)


def test_a_dead_letter_that_its_topic_never_takes_is_said_and_holds_its_own_partition_alone(
    clock: Clock,
) -> None:
    delivery = Delivery(100)
    box = opened(delivery)
    with capture_logs() as lines:
        box.bury(recording(), RecordingUndecodable("It cannot be decoded."), Costs())
        for _ in range(20):
            box.turn()
            clock.now += RESEND_SECONDS / 2
        assert len(delivery.refused) > 5, "it is tried again and again"
    box.turn()
    assert not delivery.taken
    assert box.troubled
    assert box.undelivered == 0, "the pod goes on with other partitions"
    (line,) = [
        line for line in lines if line["event"] == "dead letter too large for its topic, sending again"
    ]
    assert line["source"] == "events/0/0/0"
    assert "max.message.bytes" in line["why"]
    smallest = delivery.refused[-1]
    assert base64.b64decode(json.loads(smallest.message.value)["payload"]) == b""
    delivery.most_bytes = 1_000_000
    clock.now += RESEND_SECONDS
    box.turn()
    box.turn()
    assert delivery.taken == [smallest]
    assert not box.troubled
