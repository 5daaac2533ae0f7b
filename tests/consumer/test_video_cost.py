"""The promise that neither memory nor CPU grows with a recording's length."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import clips
from tests.clips import Clip

_LOOK = """
import json, resource, sys
from pathlib import Path
from consumer.frames import to_network
from consumer.media import FileMedia
from consumer.video import open_recording

with open_recording(FileMedia(Path(sys.argv[1]))) as recording:
    for frame in recording.sample(5):
        to_network(frame.picture, 0, height=384, width=640, resize="letterbox")
    packets = recording.ledger(inferred=5).packets
used = resource.getrusage(resource.RUSAGE_SELF)
cpu_seconds = used.ru_utime + used.ru_stime
# Not ru_maxrss: the kernel keeps it over exec, so it begins with the size of the parent (proc(5), VmHWM).
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak_kib = int(status["VmHWM"].split()[0])
print(json.dumps({"packets": packets, "peak_kib": peak_kib, "cpu_seconds": cpu_seconds}))
"""


@dataclass(frozen=True)
class Cost:
    """What one look in a process of its own took."""

    packets: int
    peak_kib: int
    cpu_seconds: float


def cheapest_look(path: Path, tries: int = 3) -> Cost:
    """The least of a few tries: other work on the machine only ever adds."""
    costs = []
    for _ in range(tries):
        command = [sys.executable, "-c", _LOOK, str(path)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        costs.append(Cost(**json.loads(answer.stdout)))
    return Cost(
        packets=costs[0].packets,
        peak_kib=min(cost.peak_kib for cost in costs),
        cpu_seconds=min(cost.cpu_seconds for cost in costs),
    )


def test_ten_minutes_take_no_more_memory_than_ten_seconds_and_less_than_twice_the_cpu(tmp_path: Path) -> None:
    clip = Clip(frames=250, width=1280, height=720, keyframe_every=50)
    short = cheapest_look(clips.write(tmp_path / "short.mp4", clip))
    long = cheapest_look(clips.write_repeated(tmp_path / "long.mp4", clip, 60))
    assert (short.packets, long.packets) == (250, 15_000)
    assert long.peak_kib < 1.1 * short.peak_kib
    assert long.cpu_seconds < 2 * short.cpu_seconds
