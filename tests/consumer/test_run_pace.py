"""`vault-ml run` before a Triton that can take only so much: it goes as fast as that, and not faster."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import TritonAway, TritonFull
from consumer.pace import TOLERANCE
from consumer.tally import Tally
from consumer.triton_client import TritonClient
from modelops.embedded import EmbeddedTriton
from tests.brokers.kafka import KafkaBroker
from tests.fakes.faulty_vault import FaultyVault
from tests.limited_models import write_limited
from tests.worlds import World, keys

FRAMES = np.zeros((5, 576, 640), np.uint8)
WORKERS = 6


@contextlib.contextmanager
def crowded(triton: EmbeddedTriton, clients: int) -> Iterator[None]:
    """Let others keep so many requests at the server, which ask again at once when they are refused."""
    stop = threading.Event()
    client = TritonClient(TritonEndpoint(triton.grpc_url, "yolo"))

    def ask() -> None:
        while not stop.is_set():
            with contextlib.suppress(TritonAway):
                client.infer(FRAMES, 1)

    others = [threading.Thread(target=ask) for _ in range(clients)]
    for each in others:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in others:
            each.join()
        client.close()


@pytest.mark.parametrize(
    ("queue_size", "queue_seconds"), [(1, 30.0), (256, 0.05)], ids=["no room", "waited too long"]
)
def test_a_refused_request_is_named_and_not_made_again_at_once(
    model_repository: Path, tmp_path: Path, queue_size: int, queue_seconds: float
) -> None:
    limited = write_limited(
        model_repository, tmp_path / "models", seconds=0.3, queue_size=queue_size, queue_seconds=queue_seconds
    )
    with (
        EmbeddedTriton.start(limited) as triton,
        TritonDetector(TritonEndpoint(triton.grpc_url, "yolo")) as detector,
    ):
        assert len(list(detector.detect(FRAMES))) == len(FRAMES)
        with crowded(triton, clients=6):
            for _ in range(10):
                detector.tally = Tally(2)
                began = time.monotonic()
                try:
                    list(detector.detect(FRAMES))
                except TritonFull:
                    break
            waited = time.monotonic() - began
        assert detector.tally.requests().rejections == 3
        assert waited > 0.9, "0.3 s before the second try, 0.6 s before the third"
        assert detector.tally.in_flight == 1


def test_a_backlog_goes_as_fast_as_the_server_and_the_queue_stays_short(
    kafka: KafkaBroker, model_repository: Path, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    limited = write_limited(model_repository, tmp_path / "models", seconds=0.1)
    with EmbeddedTriton.start(limited) as triton:
        world = World(kafka, triton.grpc_url, vault, tmp_path)
        world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(100)])
        ratios, windows = [], []
        with world.pod(WORKERS=str(WORKERS), TRITON_IN_FLIGHT="2") as pod:

            def seen() -> bool:
                ratios.append(pod.metric("vault_ml_triton_latency_ratio"))
                windows.append(pod.metric("vault_ml_triton_window"))
                return world.committed().get(0, 0) == 100

            world.results(1)
            pod.wait_for(seen, "all committed", seconds=120.0)
            assert pod.metric("vault_ml_triton_rejections_total") == 0
            assert pod.metric("vault_ml_retries_total", reason="triton_full") == 0
    assert 1 < statistics.mean(windows) <= WORKERS + 1
    assert statistics.mean(ratios) < TOLERANCE
    assert len(set(keys(world.everything()))) == len(world.everything()) == 100


def test_a_full_queue_makes_the_window_small_and_costs_no_recording_a_try(
    kafka: KafkaBroker, model_repository: Path, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    limited = write_limited(model_repository, tmp_path / "models", seconds=0.2, queue_size=1)
    with EmbeddedTriton.start(limited) as triton:
        world = World(kafka, triton.grpc_url, vault, tmp_path)
        world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(30)])
        with world.pod(WORKERS=str(WORKERS), RECORDING_DEADLINE="5") as pod:
            world.results(30)
            assert pod.metric("vault_ml_triton_rejections_total") > 0
            assert pod.metric("vault_ml_triton_window") < WORKERS
            assert world.no_letters()
    assert len(set(keys(world.everything()))) == len(world.everything()) == 30


def test_only_a_queue_that_is_full_for_one_request_alone_pauses_kafka(
    kafka: KafkaBroker, model_repository: Path, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    limited = write_limited(model_repository, tmp_path / "models", seconds=0.3, queue_size=1)
    with EmbeddedTriton.start(limited) as triton:
        world = World(kafka, triton.grpc_url, vault, tmp_path)
        with world.pod(WORKERS="2", RECORDING_DEADLINE="5") as pod:
            pod.wait_until_ready()
            with crowded(triton, clients=8):
                world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(20)])
                pod.wait_for(lambda: pod.metric("vault_ml_outage", part="triton") == 1, "paused")
                assert pod.metric("vault_ml_triton_window") == 1
            world.results(20)
            pod.wait_for(lambda: pod.metric("vault_ml_outage", part="triton") == 0, "goes on")
            assert world.no_letters()
