"""`vault-ml run` on what ends its workers, or the pod: dead letters, and their neighbours are results."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consumer.backlog import MAX_BREAKDOWNS
from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.brokers.kafka import KafkaBroker
from tests.fakes.faulty_vault import FaultyHandler, FaultyVault
from tests.faults.planted_pod import CRASHES, HANGS
from tests.pods import Pod
from tests.worlds import World, keys

SECONDS = 120.0

TOO_LARGE = clips.Clip(
    frames=40,
    width=4096,
    height=2304,
    keyframe_every=40,
    encoder_options={"preset": "ultrafast", "refs": "16"},
)
"""A sound recording whose reference pictures alone take 225 MiB."""

DEADLY = "cam/deadly.mp4"


class DeadlyVault(FaultyVault):
    """Ends the pod that asks for one recording, by SIGKILL; serves all others well."""

    pod: Pod | None = None
    deaths = 0

    @property
    def handler(self) -> type[FaultyHandler]:
        return DeadlyHandler


class DeadlyHandler(FaultyHandler):
    def dispatch(self, routes: "dict[str, Callable[[], None]]") -> None:  # type: ignore[override]  # as above it
        vault = self.vault
        assert isinstance(vault, DeadlyVault)
        if self.header("FileName") != DEADLY or vault.pod is None:
            super().dispatch(routes)
            return
        vault.pod.process.kill()
        vault.pod = None
        vault.deaths += 1
        self.close_connection = True


@pytest.fixture
def deadly(kafka: KafkaBroker, triton: EmbeddedTriton, tmp_path: Path) -> Iterator[World]:
    """A world with a deadly Vault."""
    with DeadlyVault() as vault:
        yield World(kafka, triton.grpc_url, vault, tmp_path)


def with_ending(clip: Path, ending: bytes, path: Path) -> Path:
    path.write_bytes(clip.read_bytes() + ending)
    return path


def reasons(world: World, count: int) -> dict[str, str]:
    letters = [letter["deadLetter"]["attributes"] for letter in world.letters(count, SECONDS)]
    return {letter["key"]: letter["reason"] for letter in letters}


def test_recordings_that_end_their_workers_are_dead_letters_and_their_neighbours_results(
    world: World, clip: Path, tmp_path: Path
) -> None:
    bad = {
        "cam/crashes.mp4": with_ending(clip, CRASHES, tmp_path / "crashes.mp4"),
        "cam/hangs.mp4": with_ending(clip, HANGS, tmp_path / "hangs.mp4"),
        "cam/large.mp4": clips.write(tmp_path / "large.mp4", TOO_LARGE),
    }
    good = [f"cam/{n}.mp4" for n in range(8)]
    for pair in zip(good, [*bad.items(), *[None] * len(good)], strict=False):
        world.send(world.store(pair[0], clip))
        if pair[1] is not None:
            world.send(world.store(*pair[1]))
    limits = {"RECORDING_TIME_LIMIT": "2", "WORKER_MEMORY": "256MiB", "WORKERS": "2"}
    with Pod(world.directory, world.environ | limits, module="tests.impatient_pod") as pod:
        assert reasons(world, len(bad)) == {
            "cam/crashes.mp4": "worker_died",
            "cam/hangs.mp4": "worker_died",
            "cam/large.mp4": "worker_too_large",
        }
        total = len(good) + len(bad)
        pod.wait_for(lambda: world.committed() == {0: total}, "committed")
        assert pod.lines(event="worker ended"), "before the kernel ended anything"
        assert pod.metric("vault_ml_worker_restarts_total", reason="worker_too_large") == MAX_BREAKDOWNS
        assert pod.metric("vault_ml_worker_restarts_total", reason="worker_died") == 2 * MAX_BREAKDOWNS
        assert pod.metric("vault_ml_worker_memory_bytes") > 50 * 1024**2
        assert pod.stop() == 0
    assert sorted(keys(world.everything())) == good


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_recording_that_ends_the_whole_pod_is_a_dead_letter_and_its_neighbours_are_results(
    deadly: World, clip: Path, delivery: str
) -> None:
    vault = deadly.vault
    assert isinstance(vault, DeadlyVault)
    good = [f"cam/{n}.mp4" for n in range(8)]
    deadly.send(*[deadly.store(key, clip) for key in (*good[:3], DEADLY, *good[3:])])
    # As a pod of a StatefulSet, so that no death waits for the group to notice it.
    identity = {"POD_NAME": "pod-0", "KAFKA_GROUP_INSTANCE_ID": "pod-0"}
    environ = deadly.environ | identity | {"KAFKA_DELIVERY": delivery, "WORKERS": "2"}
    finished = False
    while not finished:
        assert vault.deaths <= 2 + MAX_BREAKDOWNS, "unseen, listed, and then alone"
        with Pod(deadly.directory, environ) as pod:
            vault.pod = pod
            while pod.process.poll() is None and not finished:
                finished = deadly.committed() == {0: len(good) + 1}
            if finished:
                assert pod.stop() == 0
    assert vault.deaths > MAX_BREAKDOWNS
    assert reasons(deadly, 1) == {DEADLY: "pod_died"}
    results = keys(deadly.everything())
    if delivery == "exactly-once":
        assert sorted(results) == good
    else:
        assert sorted(set(results)) == good
