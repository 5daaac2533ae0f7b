"""Sends recordings through `vault-ml run` and measures what each costs; start it with scripts/bench.

The parts are real (Kafka, Triton, HTTP); Vault is the stand-in. What came out is checked before any figure
is printed: a fast consumer that loses or repeats results would be no consumer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from consumer.results import Header
from consumer.standin_vault import StandinVault
from modelops.embedded import EmbeddedTriton
from modelops.export import ready_repository
from tests.bench import material
from tests.bench.costs import Costs
from tests.bench.ways import WAYS, Measured
from tests.brokers.kafka import KafkaBroker
from tests.worlds import World

DIFFERENT_RECORDINGS = 4
TURNS = 2
"""How often each way of reading reads each of them."""
SECONDS_PER_RECORDING = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of the recordings, counted by the message that each result names as its source."""

    sent: int
    results: int
    different: int
    outcomes: Counter[str]
    letters: int

    @property
    def complete(self) -> bool:
        """Whether each recording has exactly one result, and all were looked at in full."""
        each_once = self.results == self.different == self.sent
        return each_once and self.outcomes == {"done": self.sent} and self.letters == 0


@dataclass(frozen=True)
class Throughput:
    """What the recordings took, from the first event to the last result.

    consumer: the main process and its workers, which are started by the first event.
    start_cpu_seconds: of the consumer until it was ready, before the first event.
    triton: the server and its stubs.
    standin_cpu_seconds: the stand-in Vault and this program.
    """

    outcome: Outcome
    wall_seconds: float
    start_cpu_seconds: float
    consumer: Costs
    triton_cpu_seconds: float
    standin_cpu_seconds: float


def send_through(
    world: World, clips: Sequence[Path], *, recordings: int, workers: int, predictions: int
) -> Throughput:
    """Store the clips under as many keys as there are recordings, send their events, wait for the results."""
    events = [world.store(f"cam/{n}.mp4", clips[n % len(clips)]) for n in range(recordings)]
    here = psutil.Process()
    triton = next(child for child in here.children() if child.name() == "tritonserver")
    settings = {"WORKERS": str(workers), "NUMBER_OF_PREDICTIONS": str(predictions)}
    with world.pod(**settings) as pod:
        consumer = psutil.Process(pod.wait_until_ready().process.pid)
        before = Costs.of(consumer), Costs.of(triton), _own_cpu_seconds()
        began = time.monotonic()
        world.send(*events)
        world.results(recordings, seconds=recordings * SECONDS_PER_RECORDING)
        wall_seconds = time.monotonic() - began
        after = Costs.of(consumer), Costs.of(triton), _own_cpu_seconds()
        assert pod.stop() == 0, "the consumer did not stop cleanly"
    return Throughput(
        outcome=_outcome(world, recordings),
        wall_seconds=wall_seconds,
        start_cpu_seconds=before[0].cpu_seconds,
        consumer=Costs(after[0].cpu_seconds - before[0].cpu_seconds, after[0].peak_mib),
        triton_cpu_seconds=after[1].cpu_seconds - before[1].cpu_seconds,
        standin_cpu_seconds=after[2] - before[2],
    )


def _outcome(world: World, sent: int) -> Outcome:
    records = world.everything()
    return Outcome(
        sent=sent,
        results=len(records),
        different=len({record.headers[Header.SOURCE] for record in records}),
        outcomes=Counter(record.headers[Header.OUTCOME] for record in records),
        letters=0 if world.no_letters() else 1,
    )


def _own_cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def read_by(way: str, clips: Sequence[Path], predictions: int) -> Measured:
    """Measure one way of reading in a process of its own."""
    paths = [str(clip) for clip in clips] * TURNS
    command = [sys.executable, "-m", "tests.bench.ways", way, str(predictions), *paths]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(**json.loads(answer.stdout))


def main() -> None:
    """Measure, print the tables of docs/performance.md, and fail when a result is missing or came twice."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--predictions", type=int, default=5, help="NUMBER_OF_PREDICTIONS")
    asked = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vault-ml-bench-")))
        _say("Writing the recordings")
        clips = material.write_recordings(directory, DIFFERENT_RECORDINGS)
        (directory / "kafka").mkdir()
        kafka = stack.enter_context(KafkaBroker(directory / "kafka"))
        triton = stack.enter_context(EmbeddedTriton.start(ready_repository()))
        vault = stack.enter_context(StandinVault())
        world = World(kafka, triton.grpc_url, vault, directory)
        _say(f"Sending {asked.recordings} events (load of the machine before: {os.getloadavg()[0]:.1f})")
        through = send_through(
            world,
            clips,
            recordings=asked.recordings,
            workers=asked.workers,
            predictions=asked.predictions,
        )
        _say(f"Reading the same clips in other ways (load: {os.getloadavg()[0]:.1f})")
        readings = {way: read_by(way, clips, asked.predictions) for way in WAYS}
        megabits = sum(clip.stat().st_size for clip in clips) * 8 / len(clips) / 1e6
    sys.stdout.write(report(through, readings, megabits / material.SECONDS))
    if not through.outcome.complete:
        sys.exit(f"Not every recording has exactly one result: {through.outcome}")


def report(through: Throughput, readings: dict[str, Measured], megabits_per_second: float) -> str:
    """Return the tables of docs/performance.md; shares are of the usual loop that makes every frame ready."""
    sent = through.outcome.sent
    usual = readings["usual_all"].cpu_seconds / readings["usual_all"].recordings
    parts = {
        "consumer": through.consumer.cpu_seconds,
        "Triton, inference on the CPU": through.triton_cpu_seconds,
        "stand-in Vault and this program": through.standin_cpu_seconds,
    }
    lines = [
        f"{through.outcome}",
        f"material: {megabits_per_second:.1f} Mbit/s",
        f"wall: {through.wall_seconds:.1f} s, {through.wall_seconds / sent:.3f} s per recording",
        f"consumer until ready: {through.start_cpu_seconds:.2f} CPU s",
        f"peaks of its processes: {', '.join(f'{peak:.0f}' for peak in through.consumer.peak_mib)} MiB",
        "",
        "| part | CPU s per recording | share |",
        "|---|---|---|",
        *(
            f"| {part} | {seconds / sent:.3f} | {seconds / sent / usual:.1%} |"
            for part, seconds in parts.items()
        ),
        "",
        "| way of reading | frames | CPU s per recording | share | wall s | peak MiB | bytes per frame |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, read in readings.items():
        cpu, wall = read.cpu_seconds / read.recordings, read.wall_seconds / read.recordings
        lines.append(
            f"| {way} | {read.frames // read.recordings} | {cpu:.3f} | {cpu / usual:.1%} | {wall:.3f} "
            f"| {read.peak_mib:.0f} | {read.frame_bytes:,} |"
        )
    return "\n".join(lines) + "\n"


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")


if __name__ == "__main__":
    main()
