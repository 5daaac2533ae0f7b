"""Invariant: memory does not grow with the backlog, also where one recording holds all others up."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.bench.costs import peak_mib
from tests.fakes.faulty_vault import FaultyHandler, FaultyVault, reset
from tests.worlds import SECONDS, World

MORE_MIB = 110
"""That the main process may grow: 16 MiB of outcomes, objects around them, and what is fetched."""


def skipped(world: World, clip: Path, filling: int) -> dict[str, Any]:
    """An event that ends at once, with that many bytes in it."""
    return world.store("cam/later.mp4", clip) | {"request": "ondemand", "filling": "x" * filling}


@pytest.mark.parametrize(
    "backlog",
    [(1_000, 1, 30_000), (50, 1, 900_000), (16, 1_000, 100)],
    ids=["a thousand", "a megabyte each", "lists of a thousand"],
)
def test_a_recording_that_hangs_pauses_its_partition_before_what_waits_behind_it_fills_the_memory(
    world: World, vault: FaultyVault, clip: Path, backlog: tuple[int, int, int]
) -> None:
    messages, events, filling = backlog
    go_on = threading.Event()

    def stall(handler: FaultyHandler) -> None:
        go_on.wait(SECONDS)
        reset(handler)

    vault.faults = {"GET /storage": [stall], "GET /storage/blob": [stall]}
    later = skipped(world, clip, filling)
    with world.pod(WORKERS="1", VAULT_TIMEOUT=str(SECONDS)) as pod:
        pod.wait_until_ready()
        before_mib = peak_mib(pod.process.pid)
        world.send(world.store("cam/first.mp4", clip))
        pod.wait_for(lambda: pod.metric("vault_ml_in_flight") == 1, "the first is in hand")
        text = json.dumps([later] * events if events > 1 else later).encode()
        world.send(*[text] * messages)

        held: list[float] = []

        def reads_no_more() -> bool:
            held.append(pod.metric("vault_ml_held"))
            return held[-1] > 1 and held[-10:] == held[-1:] * 10

        pod.wait_for(reads_no_more, "no more is read")
        assert held[-1] < messages, "the partition waits"
        assert world.committed().get(0, 0) == 0
        assert peak_mib(pod.process.pid) - before_mib < MORE_MIB
        go_on.set()
        pod.wait_for(lambda: world.committed() == {0: messages + 1}, "all done", seconds=180.0)
        assert peak_mib(pod.process.pid) - before_mib < MORE_MIB
        pod.wait_for(
            lambda: (
                pod.metric("vault_ml_recordings_total", outcome="skipped", reason="ondemand")
                == messages * events
            ),
            "each event has its outcome",
        )
