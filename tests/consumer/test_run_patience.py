"""A recording that takes long costs nobody a partition."""

import threading
from pathlib import Path

from modelops.embedded import EmbeddedTriton
from tests.brokers.kafka import KafkaBroker
from tests.fakes.faulty_vault import FaultyHandler, FaultyVault
from tests.hasty_pod import POLL_INTERVAL_SECONDS
from tests.pods import Pod
from tests.worlds import SECONDS, World, keys


def test_a_recording_that_takes_ten_times_the_poll_interval_costs_nobody_a_partition(
    triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    go_on = threading.Event()

    def stall(handler: FaultyHandler) -> None:
        go_on.wait(10 * POLL_INTERVAL_SECONDS)
        handler.begin(503, Content_Length="0")

    (tmp_path / "kafka").mkdir()
    with KafkaBroker(tmp_path / "kafka", settings={"group.min.session.timeout.ms": "500"}) as kafka:
        world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=2)
        environ = world.environ | {"WORKERS": "2", "VAULT_TIMEOUT": str(SECONDS)}
        with Pod(world.directory, environ, module="tests.hasty_pod") as pod:
            pod.wait_until_ready()
            vault.faults = {"GET /storage": [stall]}
            world.send(world.store("cam/slow.mp4", clip), partition=0)
            pod.wait_for(lambda: vault.faults["GET /storage"] == [], "the recording is under way")
            others = [f"cam/{n}.mp4" for n in range(6)]
            for key in others:
                world.send(world.store(key, clip), partition=1)
            assert sorted(keys(world.results(len(others)))) == others, "other partitions do not wait"
            world.results(len(others) + 1)
            assert not pod.lines(event="partitions given back")
            assert not pod.lines(event="partitions lost: the group had no word from us in time")
            assert len(pod.lines(event="partitions assigned")) == 1
            assert pod.stop() == 0
        assert sorted(keys(world.everything())) == sorted([*others, "cam/slow.mp4"])
        assert vault.requests["GET /storage"] == len(others) + 1, "nobody began it a second time"
