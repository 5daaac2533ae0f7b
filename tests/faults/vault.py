"""The fake Vault in a process of its own, so that it can be paused; and how it is told to misbehave.

    python -m tests.faults.vault PORT DIRECTORY

It reads lines from its input: the name of a trouble, or nothing for none.
"""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from consumer.standin_vault import VaultHandler
from tests.brokers.kafka import dies_with_us
from tests.fakes.faulty_vault import Fault, FaultyHandler, FaultyVault, reset, status
from tests.faults import recordings

Trouble = Literal["500s", "some 500s", "resets", ""]
_ROUTES = ("GET /storage", "GET /storage/blob", "GET /storage/signed")
_SHARE = 0.5
"""Of requests that meet a trouble, where only some do."""


class VaultProcess:
    """Vault as a child process, as a context manager; `pause` and `resume` are signals."""

    def __init__(self, port: int, files: Path, log: Path) -> None:
        self.port = port
        self._command = [*dies_with_us(), sys.executable, "-m", "tests.faults.vault", str(port), str(files)]
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "serving\n", f"Vault did not start, see {self._log}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def pause(self) -> None:
        """Let it answer nothing, while its sockets stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def trouble(self, trouble: Trouble) -> None:
        """Have it misbehave so from now on; with nothing, be well."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{trouble}\n")
        self._process.stdin.flush()


class _SoakVault(FaultyVault):
    """Has a recording under every key that names a file."""

    def __init__(self, port: int, files: Mapping[str, Path]) -> None:
        super().__init__(port=port, provider=recordings.PROVIDER)
        self.recordings = _ByKey(files)
        self.share = 1.0
        """Of the requests to a route with trouble that meet it."""
        self.rng = random.Random(1)

    @property
    def handler(self) -> type[VaultHandler]:
        return _Handler


class _Handler(FaultyHandler):
    """Gives links to the address that the client came by, so that they lead through its proxy too."""

    def dispatch(self, routes: dict[str, Callable[[], None]]) -> None:  # type: ignore[override]  # only read
        vault = self.vault
        assert isinstance(vault, _SoakVault)
        vault.seen.clear()  # for tests that ask what was seen; a run is long
        if vault.rng.random() < vault.share:
            super().dispatch(routes)
        else:
            VaultHandler.dispatch(self, routes)

    def get_storage(self) -> None:
        key = self.asked_recording()
        if key is not None:
            own = self.vault.origin
            link = self.vault.signed_url(key).replace(own, f"http://{self.headers['Host']}")
            self.send_json(HTTPStatus.OK, {"data": link})


class _ByKey(dict[str, Path]):
    """Files by the keys of recordings, of which there are as many as anybody asks for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__()
        self._files = files

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and recordings.file_of(key, self._files) is not None

    def __missing__(self, key: str) -> Path:
        found = recordings.file_of(key, self._files)
        if found is None:
            raise KeyError(key)
        return found


def _faults_of(trouble: str) -> dict[str, Fault | list[Fault]]:
    match trouble:
        case "500s" | "some 500s":
            return dict.fromkeys(_ROUTES, status(500))
        case "resets":
            return dict.fromkeys(_ROUTES, reset)
    return {}


def main() -> None:
    """Serve until the input ends."""
    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    files = {name: Path(path) for name, path in json.loads((directory / "files.json").read_text()).items()}
    with _SoakVault(port, files) as vault:
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        for line in sys.stdin:
            trouble = line.strip()
            vault.share = _SHARE if trouble.startswith("some") else 1.0
            vault.faults = _faults_of(trouble)


if __name__ == "__main__":
    main()
