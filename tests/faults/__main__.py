"""The command line of a soak: `scripts/soak`."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from consumer.errors import SetupError
from tests.brokers import kafka
from tests.faults.report import write_into
from tests.faults.schedule import KINDS
from tests.faults.soak import Options, soak

_SHOWN = 40
"""Problems; the report has all of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; returns 0 when nothing was lost, duplicated or wrong."""
    asked = _parser().parse_args(arguments)
    only = tuple(name for name in asked.only.split(",") if name)
    if unknown := [name for name in only if name not in KINDS]:
        _say(f"There is no fault named {', '.join(unknown)}; there are: {', '.join(KINDS)}.")
        return 2
    if lacking := kafka.missing():
        _say(lacking)
        return 2
    options = Options(asked.minutes, asked.seed, only, asked.rate, asked.gap)
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    if directory.exists() and any(directory.iterdir()):
        _say(f"{directory} is not empty: name another directory with --keep.")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way all that was started is ended
    began_at = time.monotonic()

    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began_at), 60)
        _say(f"[{minutes:02}:{seconds:02}] {line}")

    say(f"{options.command}; logs in {directory}")
    try:
        report = soak(options, directory, say)
    except (SetupError, TimeoutError, ValueError) as error:
        say(str(error))
        return 1
    (directory / "report.json").write_text(report.to_json() + "\n")
    (directory / "report.md").write_text(report.to_markdown())
    _say("")
    _say(report.to_markdown())
    for problem in report.problems[:_SHOWN]:
        _say(problem)
    for line in report.ended[:_SHOWN]:
        _say(f"ended by itself: {line}")
    if asked.write is not None and report.passed:
        write_into(asked.write, report.to_markdown())
    if report.passed:
        say("passed: nothing was lost, duplicated or wrong")
        return 0
    say(f"failed; the same again: {options.command}; logs and report in {directory}")
    return 1


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {kind.name:20} {kind.words}" for kind in KINDS.values())
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Consumers on a real Kafka, while all around them fails; then the books are balanced.",
        epilog=f"faults:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="start and end included (5)")
    parser.add_argument("--seed", type=int, default=1, help="decides what happens when (1)")
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas (all)")
    parser.add_argument("--rate", type=float, default=8.0, help="messages a second (8)")
    parser.add_argument("--gap", type=float, default=0.0, help="seconds between two faults (6 to 20)")
    parser.add_argument("--keep", type=Path, help="an empty directory for logs and report")
    parser.add_argument("--write", type=Path, help="a document to put the tables into, when all is well")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
