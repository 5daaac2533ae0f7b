"""Fuzzes one target in this process: `python -m tests.fuzz.harness TARGET`, then what libFuzzer takes."""

import sys

import atheris

with atheris.instrument_imports(include=["consumer", "json"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    name = sys.argv[1]
    atheris.Setup([f"fuzz-{name}", *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
