"""A real Triton server as a child process: for a machine without a GPU, for the demo and for the tests."""

import contextlib
import logging
import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from consumer.errors import SetupError
from consumer.rollout import companion_name
from modelops.aliases import Aliases
from modelops.object_store import credentials
from modelops.ports import LOOPBACK, free_ports, require_free
from modelops.repository import Repository
from modelops.runtime import TritonRuntime, prepare
from modelops.server_health import has_dead_child, is_ready
from modelops.storage import is_url

_log = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton's Python backend puts its regions
_EXIT_TIMEOUT_SECONDS = 5
_ATTEMPTS = 3
_LOG_LINE = re.compile(r"^([IWEF])\d{4} [\d:.]+ \d+ (?:\S+:\d+\] )?(.*)$")
_LEVELS = {"I": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
_EXPECTED_WITHOUT_GPU = ("CudaDriverHelper", "pinned system memory")
_LEASH = """
read -r never
kill -s TERM -- "-$1"
for second in 1 2 3 4 5 6 7 8; do kill -s 0 -- "-$1" || break; sleep 1; done
kill -s KILL -- "-$1"
rm -f /dev/shm/"$2"*
rm -rf "$3"
"""
"""Ends the server when our end of its input closes, which the kernel does even after a SIGKILL of us."""


class EmbeddedTriton:
    """A running `tritonserver` on loopback; stop() it, or use it as a context manager.

    It ends with the process that started it, even when that one is killed.
    """

    def __init__(
        self,
        *,
        process: subprocess.Popen[str],
        leash: subprocess.Popen[bytes],
        aliases: Aliases,
        shared_memory_prefix: str,
        address: str,
        grpc_port: int,
        http_port: int,
        metrics_port: int,
        models: Sequence[str],
    ) -> None:
        self.models = tuple(models)
        self.address = address
        self.grpc_port, self.http_port, self.metrics_port = grpc_port, http_port, metrics_port
        self._process = process
        self._leash = leash
        self._aliases = aliases
        self._shared_memory_prefix = shared_memory_prefix
        self._listening = threading.Event()
        self._errors: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._relay_log, name="triton-log", daemon=True)
        self._reader.start()

    @classmethod
    def start(
        cls,
        repository: Path | str,
        *,
        model_config_name: str = "cpu",
        models: Sequence[str] | None = None,
        address: str = LOOPBACK,
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
        startup_timeout_seconds: float = 60.0,
        extra_arguments: Sequence[str] = (),
        runtime: TritonRuntime | None = None,
    ) -> Self:
        """Start the server on a model repository and wait until it is ready.

        Args:
            repository: the model repository: a directory, or the URL of an object store, whose keys it gets
                from our environment. Models are loaded explicitly, so that tests can load and unload.
            model_config_name: `<model>/configs/<name>.pbtxt` is taken where it is there; "" for config.pbtxt.
            models: the models to load, each with its companion; None for every model in the repository.
            address: of 127.0.0.0/8: several servers on one port play the pods behind one name.
            grpc_port: and the other ports: free ones are chosen for None.
            startup_timeout_seconds: a server that is not ready by then is killed.
            extra_arguments: further options of tritonserver.
            runtime: another Triton than the embedded one, NVIDIA's own in its container.

        Raises:
            SetupError: the files cannot be prepared, a model does not load, or it is not ready in time.
        """
        runtime = runtime or prepare()
        reached = repository if is_url(repository) else Path(repository).resolve()
        if isinstance(reached, Path) and not reached.is_dir():
            raise SetupError(
                f"There is no model repository at {repository}: publish a model with `vault-ml model export`."
            )
        there = Repository.open(repository)
        served = there.models() if models is None else models
        companions = [companion_name(name) for name in served if there.has_companion(name)]
        wanted = (grpc_port, http_port, metrics_port)
        require_free((port for port in wanted if port), address)
        for attempt in range(_ATTEMPTS):
            free = free_ports(3, address)
            ports = [port or free.pop() for port in wanted]
            try:
                return cls._launch(
                    runtime=runtime, repository=reached, model_config_name=model_config_name,
                    models=served, companions=companions, address=address, ports=ports,
                    extra_arguments=extra_arguments, environment=credentials(reached),
                    startup_timeout_seconds=startup_timeout_seconds,
                )  # fmt: skip
            except SetupError as error:
                # Somebody may take a free port before the server does; a port that was asked for stays taken.
                if "already in use" not in str(error) or all(wanted) or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the loop above returns or raises")

    @classmethod
    def _launch(
        cls,
        *,
        runtime: TritonRuntime,
        repository: Path | str,
        model_config_name: str,
        models: Sequence[str],
        companions: Sequence[str],
        address: str,
        ports: Sequence[int],
        extra_arguments: Sequence[str],
        environment: Mapping[str, str],
        startup_timeout_seconds: float,
    ) -> Self:
        prefix = f"vault-ml-{os.getpid()}-{secrets.token_hex(4)}"
        aliases = Aliases.make(repository=repository, backends=runtime.backends, prefix=prefix)
        arguments = [
            *_server_arguments(aliases, model_config_name, prefix, address),
            f"--grpc-port={ports[0]}", f"--http-port={ports[1]}", f"--metrics-port={ports[2]}",
            *(f"--load-model={name}" for name in (*models, *companions)),
            *extra_arguments,
        ]  # fmt: skip
        # Also Ctrl-C while a big model loads must leave no server behind.
        with contextlib.ExitStack() as undo:
            undo.callback(aliases.remove)
            process = subprocess.Popen(  # noqa: S603 - the server out of our own cache
                [str(runtime.server), *arguments],
                env={**runtime.environment, **environment}, cwd=aliases.directory, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace",
            )  # fmt: skip
            undo.callback(process.terminate)
            leash = subprocess.Popen(  # noqa: S603 - a constant script; its arguments are a number and names of ours
                ["/bin/sh", "-c", _LEASH, "leash", str(process.pid), prefix, str(aliases.directory)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            server = cls(
                process=process, leash=leash, aliases=aliases, shared_memory_prefix=prefix,
                address=address, grpc_port=ports[0], http_port=ports[1], metrics_port=ports[2], models=models,
            )  # fmt: skip
            undo.callback(server.stop)
            server._wait_until_ready(time.monotonic() + startup_timeout_seconds, startup_timeout_seconds)
            undo.pop_all()
        return server

    @property
    def pid(self) -> int:
        """Process id of the server, which is also its process group's."""
        return self._process.pid

    @property
    def grpc_url(self) -> str:
        """`host:port` as tritonclient takes it."""
        return f"{self.address}:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        """`host:port` of the HTTP side."""
        return f"{self.address}:{self.http_port}"

    @property
    def healthy(self) -> bool:
        """Whether the server and all processes of its models live.

        Triton neither restarts a dead stub nor says that it died: the model stays ready, every request fails.
        """
        return self._process.poll() is None and not has_dead_child(self._process.pid)

    def stop(self) -> None:
        """End the server and everything it started, and remove what it left in shared memory; idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_TIMEOUT_SECONDS + 3)
        # The stubs are in the server's group: one that hangs outlives it, and is ended here.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._leash.kill()
        self._leash.communicate()
        self._reader.join(timeout=5)
        for leftover in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            leftover.unlink(missing_ok=True)
        self._aliases.remove()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the server to exit by itself; its exit status, or None when the time ran out."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, deadline: float, timeout_seconds: float) -> None:
        # Asked only once our server listens: before, another one on that port might answer.
        while not (self._listening.is_set() and is_ready(self.http_url)):
            if self._process.poll() is not None:
                self._reader.join(timeout=5)
                raise SetupError(f"Triton did not start: {self._why()}")
            if time.monotonic() > deadline:
                raise SetupError(f"Triton was not ready after {timeout_seconds:.0f} seconds: {self._why()}")
            time.sleep(0.05)

    def _why(self) -> str:
        # What follows "At:" is the stub's own trace: it says nothing to whoever reads one sentence.
        reasons = (error.partition("At:")[0].replace("\\n", " ").strip() for error in self._errors)
        return " | ".join(dict.fromkeys(reasons)) or "it gave no reason; its log is at level DEBUG."

    def _relay_log(self) -> None:
        level = logging.DEBUG
        for line in map(self._aliases.meant, self._process.stdout or ()):
            match = _LOG_LINE.match(line.rstrip())
            if match:
                expected = any(phrase in match[2] for phrase in _EXPECTED_WITHOUT_GPU)
                level = logging.DEBUG if expected else _LEVELS[match[1]]
                if level >= logging.ERROR:
                    self._errors.append(match[2].strip('" '))
            if "Started HTTPService" in line:
                self._listening.set()
            _log.log(level, "%s", match[2] if match else line.rstrip())


def _server_arguments(
    aliases: Aliases, model_config_name: str, shared_memory_prefix: str, address: str
) -> list[str]:
    named = [f"--model-config-name={model_config_name}"] if model_config_name else []
    return [
        f"--model-repository={aliases.repository}",
        f"--backend-directory={aliases.backends}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        "--model-control-mode=explicit",
        f"--grpc-address={address}",
        f"--http-address={address}",
        f"--metrics-address={address}",
        "--allow-gpu-metrics=false",
        f"--exit-timeout-secs={_EXIT_TIMEOUT_SECONDS}",
        *named,
    ]
