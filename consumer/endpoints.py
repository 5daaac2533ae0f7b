"""Endpoints: /healthz, /readyz and /metrics on one port, answered by threads of their own."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from consumer.errors import SetupError
from consumer.masking import Masker

BEAT_LIMIT_SECONDS = 60.0
"""A loop that has not turned for so long is stuck; it turns several times a second, outages included."""

REQUEST_SECONDS = 10.0
"""A connection that says nothing is closed, so that it cannot hold a thread for ever."""


@dataclass(frozen=True)
class Check:
    """One condition of readiness."""

    ok: bool
    detail: str


class Health:
    """Whether the loop turns, and whether the pod may be given work; any thread may tell and ask.

    Args:
        checks: what must be true before the pod is ready; each is false until set_ready() says otherwise.
        beat_limit_seconds: the age of the last beat at which the loop counts as stuck.
        clock: seconds of a monotonic clock.
        secrets: values that no detail may show.
    """

    def __init__(
        self,
        checks: Iterable[str] = (),
        *,
        beat_limit_seconds: float = BEAT_LIMIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        secrets: Iterable[str] = (),
    ) -> None:
        self._lock = Lock()
        self._clock = clock
        self._beat_limit_seconds = beat_limit_seconds
        self._mask = Masker(secrets)
        self._beat_at = clock()
        self._checks = {name: Check(ok=False, detail="not checked yet") for name in checks}

    def beat(self) -> None:
        """Say that the loop has turned."""
        with self._lock:
            self._beat_at = self._clock()

    def set_ready(self, check: str, ok: bool, detail: str = "") -> None:
        """Say how one check stands, and why."""
        with self._lock:
            self._checks[check] = Check(ok, self._mask(detail))

    @property
    def beat_age_seconds(self) -> float:
        """How long ago the loop last turned."""
        with self._lock:
            return self._clock() - self._beat_at

    @property
    def alive(self) -> bool:
        """Whether the loop turns."""
        return self.beat_age_seconds < self._beat_limit_seconds

    @property
    def checks(self) -> Mapping[str, Check]:
        """Every check as it stands now."""
        with self._lock:
            return dict(self._checks)

    @property
    def ready(self) -> bool:
        """Whether there are checks and all of them hold."""
        checks = self.checks
        return bool(checks) and all(check.ok for check in checks.values())


class _Server(ThreadingMixIn, WSGIServer):
    """A slow reader of /metrics must not keep a probe waiting, or the pod is killed for it."""

    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without the look-up of our own name that HTTPServer makes: a pod's DNS may be slow or away."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the other side went away, or sent no HTTP."""


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Say nothing: probes and scrapes come every few seconds."""


class Endpoints:
    """Serves the three endpoints from start() to stop(); also a context manager.

    Args:
        health: what /healthz and /readyz answer from.
        registry: what /metrics shows.
        port: 0 takes a free one.
        host: every address of the pod, as probes come from the node and scrapes from other pods.
    """

    def __init__(
        self,
        health: Health,
        registry: CollectorRegistry,
        port: int,
        host: str = "0.0.0.0",  # noqa: S104
    ) -> None:
        self._health, self._registry, self._address = health, registry, (host, port)
        self._metrics = make_wsgi_app(registry)
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before start() when a free one was asked for."""
        return self._server.server_port if self._server else self._address[1]

    def start(self) -> None:
        """Listen, and answer from a thread.

        Raises:
            SetupError: the port cannot be had; says why.
        """
        try:
            server = _Server(self._address, _Handler)
        except OSError as error:
            host, port = self._address
            raise SetupError(
                f"HTTP_PORT is {port}, which cannot be listened on at {host} ({error.strerror}): "
                "give a free port, or end what uses it."
            ) from error
        server.set_app(self._answer)
        self._server = server
        self._thread = Thread(target=server.serve_forever, args=(0.1,), name="endpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; answers under way may still end."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._thread = None

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answers = {"/healthz": self._healthz, "/readyz": self._readyz}
        path = environ["PATH_INFO"]
        if path not in answers and path != "/metrics":
            return _json(start_response, HTTPStatus.NOT_FOUND, {"paths": [*answers, "/metrics"]})
        if environ["REQUEST_METHOD"] != "GET":
            return _json(start_response, HTTPStatus.METHOD_NOT_ALLOWED, {"allow": "GET"}, ("Allow", "GET"))
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        status, body = answers[path]()
        return _json(start_response, status, body)

    def _healthz(self) -> tuple[HTTPStatus, object]:
        alive = self._health.alive
        body = {"alive": alive, "beat_age_seconds": round(self._health.beat_age_seconds, 3)}
        return _status(good=alive), body

    def _readyz(self) -> tuple[HTTPStatus, object]:
        ready = self._health.ready
        checks = {name: asdict(check) for name, check in self._health.checks.items()}
        return _status(good=ready), {"ready": ready, "checks": checks}


def _status(*, good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE


def _json(
    start_response: StartResponse, status: HTTPStatus, body: object, *headers: tuple[str, str]
) -> list[bytes]:
    content = json.dumps(body).encode() + b"\n"
    start_response(
        f"{status.value} {status.phrase}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(content))), *headers],
    )
    return [content]
