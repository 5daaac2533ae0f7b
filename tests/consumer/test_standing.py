"""What the log says of how a pod stands: enough to find what holds it up, and nothing twice."""

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from structlog.typing import EventDict

from consumer.backlog import Backlog, InHand
from consumer.endpoints import Health
from consumer.errors import TritonAway, VaultAway, VaultMLError
from consumer.events import RecordingEvent
from consumer.messages import Position
from consumer.metrics import Metrics
from consumer.offsets import PartitionProgress
from consumer.pace import Pace
from consumer.standing import HOLDING_SECONDS, Snapshot, Standing

PACE = Pace(workers=1, in_flight=1)


def standing() -> Standing:
    return Standing(Metrics(CollectorRegistry()), Health())


def during(outage: VaultMLError | None) -> Snapshot:
    return Snapshot(
        in_hand=0, assigned=[], joined=True, outage=outage, kafka_away=False, largest_worker_bytes=0
    )


def logged(said: Standing, *outages: VaultMLError | None) -> list[EventDict]:
    with capture_logs() as lines:
        for outage in outages:
            said.tell(during(outage), PACE)
    return lines


def test_an_outage_is_logged_when_it_begins_when_its_cause_changes_and_when_it_is_over() -> None:
    vault, triton = VaultAway("vault is away"), TritonAway("triton is away")
    lines = logged(standing(), None, vault, vault, triton, triton, None, None)
    assert [(line["event"], line.get("why")) for line in lines] == [
        ("outage begins; the place is kept", "vault is away"),
        ("outage goes on, for another reason", "triton is away"),
        ("outage over", None),
    ]


def holder(fetched_at: float) -> Backlog:
    backlog, progress = Backlog(), PartitionProgress("events", 3)
    for offset in range(4):
        progress.fetched(offset, 1)
    position = Position("events", 3, 0)
    backlog.wait(
        InHand(RecordingEvent({}, "cam/0.mp4"), position, progress, fetched_at, b"{}", attempts=2), 0.0
    )
    return backlog


def test_a_recording_that_holds_its_partition_is_named_once_a_minute() -> None:
    said, backlog = standing(), holder(fetched_at=1_000.0)
    with capture_logs() as lines:
        for second in range(1, int(2.5 * HOLDING_SECONDS)):
            said.name_holders(backlog, 1_000.0 + second)
    first, second_line = lines
    assert first["seconds"] >= HOLDING_SECONDS
    assert second_line["seconds"] - first["seconds"] == HOLDING_SECONDS
    assert first["source"] == "events/3/0/0"
    assert (first["key"], first["attempts"], first["behind_it"]) == ("cam/0.mp4", 2, 3)


def test_nobody_is_blamed_for_holding_a_partition_during_an_outage() -> None:
    said, backlog = standing(), holder(fetched_at=1_000.0)
    said.tell(during(VaultAway("away")), PACE)
    with capture_logs() as lines:
        said.name_holders(backlog, 5_000.0)
    assert lines == []
