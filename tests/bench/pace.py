"""Compares the window that a pod finds by itself with fixed ones, before a real Triton of known capacity.

    python -m tests.bench.pace --recordings 200 --seconds 0.1

A window is held fixed by WORKERS: with few of them it never gets larger. Needs what scripts/bench needs.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from consumer.standin_vault import StandinVault
from modelops.embedded import EmbeddedTriton
from modelops.export import ready_repository
from tests import clips
from tests.brokers.kafka import KafkaBroker
from tests.limited_models import write_limited
from tests.worlds import World

WARM_UP = 20
"""Recordings before the measured ones: the workers start with them, and the window is found."""


@dataclass(frozen=True)
class Drained:
    """What a backlog took, and what was seen meanwhile of window and latency over its minimum."""

    seconds: float
    windows: list[float]
    ratios: list[float]
    rejections: float


def drain(world: World, clip: Path, *, workers: int, recordings: int) -> Drained:
    """Send a backlog through one pod and wait until all of it is committed."""
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(recordings + WARM_UP)])
    windows: list[float] = []
    ratios: list[float] = []
    with world.pod(WORKERS=str(workers), TRITON_IN_FLIGHT="1", NUMBER_OF_PREDICTIONS="5") as pod:

        def finished() -> float:
            return pod.metric("vault_ml_recordings_total", outcome="done")

        def all_done() -> bool:
            windows.append(pod.metric("vault_ml_triton_window"))
            ratios.append(pod.metric("vault_ml_triton_latency_ratio"))
            return finished() >= recordings + WARM_UP

        pod.wait_for(lambda: finished() >= WARM_UP, "warm", seconds=120.0)
        began, before = time.monotonic(), finished()
        pod.wait_for(all_done, "drained", seconds=recordings * 3.0)
        seconds = (time.monotonic() - began) / (finished() - before)
        return Drained(seconds, windows, ratios, pod.metric("vault_ml_triton_rejections_total"))


def main() -> None:
    """Measure, and print the table of docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pace", description=__doc__)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.1, help="that Triton takes for one request")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait at Triton")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    asked = parser.parse_args()
    sys.stdout.write(
        "| `WORKERS` | s per recording | mean window | latency over minimum, mean, 95 % | refused |\n"
        "|---|---|---|---|---|\n"
    )
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vault-ml-bench-")))
        clip = clips.write(directory / "clip.mp4")
        models = write_limited(
            ready_repository(), directory / "models", seconds=asked.seconds, queue_size=asked.queue
        )
        (directory / "kafka").mkdir()
        kafka = stack.enter_context(KafkaBroker(directory / "kafka"))
        triton = stack.enter_context(EmbeddedTriton.start(models))
        vault = stack.enter_context(StandinVault())
        for workers in asked.workers:
            world = World(kafka, triton.grpc_url, vault, directory)
            drained = drain(world, clip, workers=workers, recordings=asked.recordings)
            worst = statistics.quantiles(drained.ratios, n=20)[-1]
            sys.stdout.write(
                f"| {workers} | {drained.seconds:.3f} | {statistics.mean(drained.windows):.1f} "
                f"| {statistics.mean(drained.ratios):.1f}, {worst:.1f} "
                f"| {drained.rejections:.0f} |\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
