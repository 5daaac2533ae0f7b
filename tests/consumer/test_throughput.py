"""The promise that nothing is lost or done twice when several workers share the work."""

from pathlib import Path

from consumer.standin_vault import StandinVault
from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.bench.recordings import send_through
from tests.brokers.kafka import KafkaBroker
from tests.worlds import World

RECORDINGS = 40


def test_two_workers_give_every_recording_exactly_one_result(
    kafka: KafkaBroker, triton: EmbeddedTriton, tmp_path: Path
) -> None:
    different = [
        clips.write_kerberos_like(tmp_path / f"{frames}.mp4", clips.Clip(frames=frames))
        for frames in (20, 80, 140)
    ]
    with StandinVault() as vault:
        world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=3)
        through = send_through(world, different, recordings=RECORDINGS, workers=2, predictions=5)
    assert through.outcome.sent == RECORDINGS
    assert through.outcome.complete, through.outcome
    # The main process, the tracker of spawned ones, and two workers that did not have to be replaced.
    assert len(through.consumer.peak_mib) == 4
