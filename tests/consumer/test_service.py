"""The loop around the outage gate: bad recordings in a row hold up the good ones for a while, not for ever.

Source, workers and outbox are played here, as the faults come faster than real ones could.
"""

import json
import time
from collections import deque
from collections.abc import Collection, Sequence
from threading import Event
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from consumer import service
from consumer.analysis import Analysis
from consumer.attempts import Attempts
from consumer.backlog import InHand
from consumer.endpoints import Health
from consumer.errors import RecordingUnavailable, VaultMLError, WorkerDied
from consumer.events import MAX_VALUES
from consumer.messages import Position
from consumer.metrics import Metrics
from consumer.offsets import PartitionProgress, Place
from consumer.outage import OutageGate
from consumer.outbox import Outbox
from consumer.pool import WorkerPool
from consumer.prefetch import SourceMessage
from consumer.report import Costs, Report
from consumer.service import Service, ServiceLimits
from consumer.stream import EventSource

GOOD = 20
SECONDS = 60.0


class PlayedSource:
    """One partition: the bad recordings first, then the good ones."""

    def __init__(self, bad: int, padding: Sequence[int] = ()) -> None:
        self.progress = PartitionProgress("events", 0, begun_at=Place(0))
        self._keys = deque([f"bad{n}.mp4" for n in range(bad)] + [f"good{n}.mp4" for n in range(GOOD)])
        self._padding = padding
        self.joined, self.away = True, False
        self.others: list[PartitionProgress] = []
        """Partitions that nothing comes of."""
        self.given = 0

    @property
    def assigned(self) -> list[PartitionProgress]:
        return [self.progress, *self.others]

    def poll(
        self, timeout_seconds: float, *, wanted: bool = True, but_of: Collection[int] = ()
    ) -> SourceMessage | None:
        if not wanted or 0 in but_of or not self._keys:
            return None
        event = {"payload": {"key": self._keys.popleft(), "padding": [*self._padding]}}
        self.given += 1
        return SourceMessage(self.given - 1, json.dumps(event).encode(), self.progress)

    def lags(self) -> dict[tuple[str, int], int]:
        return {}

    def seconds_until_expiry(self) -> dict[str, float]:
        return {}


class PlayedPool:
    """Answers at once: the good are done, the bad fail."""

    largest_worker_bytes = 0

    def __init__(self, failure: VaultMLError, *, answers: bool = True) -> None:
        self._failure, self._answers = failure, answers
        self._reports: deque[tuple[int, str]] = deque()
        self.under_way = 0

    def submit(self, ticket: int, task: str) -> None:
        if self._answers:
            good = json.loads(task)["key"].startswith("good")
            result = Analysis("done", model_name="m", model_version="1") if good else self._failure
            self._reports.append((ticket, Report(result, Costs()).to_json()))

    def take(self) -> tuple[int, str] | None:
        return self._reports.popleft() if self._reports else None


class PlayedOutbox:
    """Everything is in Kafka at once."""

    undelivered, troubled = 0, False

    def __init__(self) -> None:
        self.published: list[Position] = []
        self.buried: list[Position] = []

    def publish(self, recording: InHand, *rest: object) -> None:
        self.published.append(recording.position)
        recording.progress.finished(recording.position.offset)

    def bury(self, recording: InHand, *rest: object, exhausted: bool = False) -> None:
        self.buried.append(recording.position)
        recording.progress.finished(recording.position.offset)

    def turn(self) -> None:
        pass


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = OutageGate(longest_wait_seconds=0.001)
    monkeypatch.setattr(service, "OutageGate", lambda: gate)
    monkeypatch.setattr("consumer.outage.FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr("consumer.backlog.FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr("consumer.backlog.LONGEST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(Attempts, "ask", lambda self, recording: True)  # no Kafka confirms a note here


def played(source: PlayedSource, pool: PlayedPool, outbox: PlayedOutbox) -> Service:
    return Service(
        source=cast(EventSource, source),
        outbox=cast(Outbox, outbox),
        pool=cast(WorkerPool, pool),
        limits=ServiceLimits(2, 4, recording_deadline_seconds=0.05, shutdown_grace_seconds=5.0),
        metrics=Metrics(CollectorRegistry()),
        health=Health(),
        stop=Event(),
    )


@pytest.mark.parametrize(
    "failure", [RecordingUnavailable("a page"), WorkerDied("it died")], ids=["vault", "workers"]
)
@pytest.mark.parametrize("bad", [5, service.MAX_IN_HAND, 3 * service.MAX_IN_HAND])
def test_any_number_of_bad_recordings_in_a_row_are_buried_and_the_good_ones_behind_them_done(
    bad: int, failure: VaultMLError
) -> None:
    source, outbox = PlayedSource(bad), PlayedOutbox()
    turning = played(source, PlayedPool(failure), outbox)
    deadline = time.monotonic() + SECONDS
    while len(outbox.published) + len(outbox.buried) < bad + GOOD and time.monotonic() < deadline:
        turning._turn()
    assert (len(outbox.published), len(outbox.buried)) == (GOOD, bad)
    assert source.progress.finished_to == bad + GOOD


def test_no_more_is_taken_in_than_memory_allows_however_small_large_events_look() -> None:
    source = PlayedSource(10, padding=range(MAX_VALUES - 10))
    turning = played(source, PlayedPool(RecordingUnavailable("x"), answers=False), PlayedOutbox())
    for _ in range(100):
        turning._turn()
    assert source.given == 2


def test_results_that_wait_take_no_more_than_their_share_of_all_partitions_together() -> None:
    source = PlayedSource(10)
    source.others = [
        PartitionProgress("events", number, held_bytes=service.MAX_HELD_BYTES) for number in range(1, 5)
    ]
    turning = played(source, PlayedPool(RecordingUnavailable("x")), PlayedOutbox())
    for _ in range(10):
        turning._turn()
    assert source.given == 0
    source.others.pop()
    turning._turn()
    assert source.given == 1
