"""Fuzzes all targets at the same time, each in a process of its own; what scripts/fuzz runs."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = Path("tests/fuzz/corpus")
FOUND = Path(".fuzz")
"""What a session finds: inputs that reach new code, crashes, and what each target said; not committed."""
TARGETS = ("events", "boxes", "decryption")
LARGEST_BYTES = {"events": 4096, "boxes": 16_384, "decryption": 8192}
ONE_INPUT_SECONDS = 20
MEMORY_MEGABYTES = 2048


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz what reads other people's bytes.")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; default all")
    parser.add_argument("--seconds", type=int, default=60, help="for each; default 60")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one target on one input")
    asked = parser.parse_args(arguments)
    targets = asked.targets or TARGETS
    if not set(targets) <= set(TARGETS) or (asked.replay and len(asked.targets) != 1):
        parser.error(f"name targets of {', '.join(TARGETS)}; with --replay exactly one.")
    if asked.replay:
        return subprocess.run([*_harness(targets[0]), str(asked.replay)], cwd=ROOT, check=False).returncode
    sessions = {target: _start(target, asked.seconds) for target in targets}
    return max([_end(target, process, began) for target, (process, began) in sessions.items()])


def _harness(target: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz.harness", target]


def _start(target: str, seconds: int) -> tuple[subprocess.Popen[bytes], float]:
    found, crashes = FOUND / target, FOUND / "crashes"
    for folder in (found, crashes):
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": LARGEST_BYTES[target],
        "timeout": ONE_INPUT_SECONDS,
        "rss_limit_mb": MEMORY_MEGABYTES,
        "artifact_prefix": f"{crashes}/{target}-",
        "print_final_stats": 1,
    }
    command = [*_harness(target), *(f"-{name}={value}" for name, value in options.items())]
    with _said(target).open("wb") as said:
        # The first folder gets what reaches new code; the second is only read.
        process = subprocess.Popen(
            [*command, str(found), str(KEPT / target)], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT
        )
    return process, time.time()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _said(target: str) -> Path:
    return ROOT / FOUND / f"{target}.log"


def _end(target: str, process: subprocess.Popen[bytes], began: float) -> int:
    status = process.wait()
    said = _said(target).read_text("utf-8", "replace")
    if status == 0:
        runs = [line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line]
        _say(f"{target}: nothing found in {''.join(runs)} runs; inputs that reach new code: {FOUND / target}")
        return 0
    _say(said[-4000:])
    crashes = (ROOT / FOUND / "crashes").glob(f"{target}-*")
    fresh = [_shown(path) for path in crashes if path.stat().st_mtime >= began - 1]
    _say(f"{target}: failed ({status}).")
    for path in fresh:
        _say(f"  The input is {path}. Replay it: scripts/fuzz {target} --replay {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
