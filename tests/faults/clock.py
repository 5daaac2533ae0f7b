"""A clock that can be stepped while a program runs: libfaketime, and what it leaves to be done."""

import subprocess
from pathlib import Path

from consumer.errors import SetupError

_LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")  # Debian's package `faketime`
_WAITS = Path(__file__).with_name("clock_waits.c")


class Clock:
    """The wall clock of one program; the monotonic one stays as it is.

    Args:
        directory: for the file that says how wrong it is.

    Raises:
        SetupError: libfaketime or a C compiler is not there.
    """

    def __init__(self, directory: Path) -> None:
        if not _LIBRARY.is_file():
            raise SetupError("There is no libfaketime: run scripts/test, or install the package faketime.")
        self._file, self._waits = directory / "clock", directory / "clock_waits.so"
        command = ["cc", "-shared", "-fPIC", "-nostdlib", "-o", str(self._waits), str(_WAITS)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except FileNotFoundError:
            raise SetupError("There is no C compiler: run scripts/test, or install gcc.") from None
        self.step(0)

    def environment(self) -> dict[str, str]:
        """Return the variables that give a program this clock."""
        return {
            "LD_PRELOAD": f"{self._waits}:{_LIBRARY}",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: int) -> None:
        """Have it wrong by so much, at once; with 0, right."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{seconds:+d}")
        aside.rename(self._file)
