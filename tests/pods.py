"""A consumer pod as its users start it: `vault-ml run` in a process of its own, by its variables."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.brokers.kafka import free_ports

DEADLINE_SECONDS = 60.0


class Pod:
    """One consumer, from entering to leaving the block; its log is kept in a file.

    Args:
        directory: for the log.
        environ: its variables.
        module: what stands in for `consumer`, with faults planted.
        wrapper: a command that runs another one in its own process, such as `unshare`.
        arguments: another command than that of a pod.
    """

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        *,
        module: str = "consumer",
        wrapper: Sequence[str] = (),
        arguments: Sequence[str] = ("run",),
    ) -> None:
        self._command = [*wrapper, sys.executable, "-m", module, *arguments]
        self.port = free_ports(1)[0]
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / f"pod-{self.port}.log"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "TMPDIR", "LANG") or name.startswith("VAULT_ML_")
        }
        self._environ = inherited | {"HTTP_PORT": str(self.port), "LOG_FORMAT": "json"} | dict(environ)
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if kind is not None:
            sys.stdout.write(f"--- {self.log}\n{self.log.read_text()[-6000:]}")

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of an endpoint; status 0 while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        return 0, ""

    def wait_until_ready(self) -> Self:
        """Wait until /readyz says so."""
        self.wait_for(lambda: self.get("/readyz")[0] == HTTPStatus.OK, "ready")
        return self

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until something holds; fails when the deadline comes or the process ends first."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the pod ended, waiting for: {what}"
            assert time.monotonic() < deadline, f"still not: {what}"
            time.sleep(0.05)

    def wait_for_line(self, **fields: object) -> dict[str, Any]:
        """Wait until the log has a line with these fields, and return it."""
        self.wait_for(lambda: bool(self.lines(**fields)), f"log line {fields}")
        return self.lines(**fields)[0]

    def lines(self, **fields: object) -> list[dict[str, Any]]:
        """Return the log lines that have these fields."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if all(line.get(name) == value for name, value in fields.items())]

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of /metrics; 0 when it is not there."""
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and all(sample.labels.get(k) == v for k, v in labels.items()):
                    return sample.value
        return 0.0

    def stop(self) -> int:
        """Send SIGTERM, as Kubernetes does, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL, as a node that dies does."""
        self.process.kill()
        self.process.wait()
