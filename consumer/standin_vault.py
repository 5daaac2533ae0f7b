"""A stand-in for Kerberos Vault: the routes and headers that a consumer needs, over real HTTP on loopback.

For the demonstration and the tests; it holds recordings in a directory and checks the account's keys.
Routes, headers and status codes follow https://learn.uug.ai (Vault, REST API) and kerberos-io/vault
examples/kafka-handler; what they leave open is said in docs/messages.md.
"""

import hashlib
import hmac
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

LINK_LIFETIME_SECONDS = 86400


class StandinVault:
    """Serves recordings as Vault does, from the moment it is entered as a context until it is left.

    Args:
        recordings: a file for each recording key; more can be added with `add` while it serves.
        access_key, secret_key: of the one account that it knows.
        provider: name of the one storage provider it has, requests for another are refused; None takes any.
        prefix: `/api` as today's Vault has it, or empty as older ones.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        recordings: Mapping[str, Path] | None = None,
        *,
        access_key: str = "standin-access-key",
        secret_key: str = "standin-secret-key",  # noqa: S107  # opens nothing but this stand-in
        provider: str | None = None,
        prefix: str = "/api",
        port: int = 0,
    ) -> None:
        self.recordings = dict(recordings or {})
        self.access_key, self.secret_key, self.provider, self.prefix = (
            access_key, secret_key, provider, prefix,
        )  # fmt: skip
        self.requests: Counter[str] = Counter()
        """How often each route was asked: `POST /ping`, `GET /storage`, `GET /storage/blob`, …"""
        self._server = _Server(("127.0.0.1", port), self.handler)
        self._server.vault = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def handler(self) -> "type[VaultHandler]":
        """The class that answers requests; tests put one with faults in its place."""
        return VaultHandler

    @property
    def origin(self) -> str:
        """Scheme, host and port: what VAULT_API_URL holds when it comes without `/api`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The base of the API: for VAULT_API_URL."""
        return self.origin + self.prefix

    def add(self, key: str, path: Path) -> None:
        """Store a recording: from now on the file is served under this key."""
        self.recordings[key] = path

    def signed_url(self, key: str, lifetime_seconds: float = LINK_LIFETIME_SECONDS) -> str:
        """Return a link to the recording that works without keys until it has run out."""
        expires = str(int(time.time() + lifetime_seconds))
        query = urlencode({"a": self.access_key, "p": self.provider or "", "f": key, "e": expires,
                           "s": self.signature(key, expires)})  # fmt: skip
        return f"{self.url}/storage/signed?{query}"

    def signature(self, key: str, expires: str) -> str:
        """Return the HMAC that a signed link must carry."""
        text = f"{self.access_key}\n{self.provider or ''}\n{key}\n{expires}"
        return hmac.new(self.secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that keeps its connection open must not hold up the end
    vault: StandinVault

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away in the middle is its own affair."""


class VaultHandler(BaseHTTPRequestHandler):
    """Answers one request; `self.vault` is the stand-in that it belongs to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a short answer waits 40 ms for the client's acknowledgement
    server: _Server

    @property
    def vault(self) -> StandinVault:
        """The stand-in that this request came to."""
        return self.server.vault

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Keep standard error for people."""

    def do_GET(self) -> None:
        """Answer storage, storage/blob, storage/signed and health."""
        self.dispatch({"/storage": self.get_storage, "/storage/blob": self.get_blob,
                        "/storage/signed": self.get_signed, "/health": self.get_health})  # fmt: skip

    def do_POST(self) -> None:
        """Answer ping."""
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.dispatch({"/ping": self.post_ping})

    def post_ping(self) -> None:
        """Tell whether the keys are right."""
        if self.account_known():
            self.send_json(HTTPStatus.OK, {"data": "pong"})

    def get_health(self) -> None:
        """Tell that the server is there; needs no keys."""
        self.send_json(HTTPStatus.OK, {"status": "ok"})

    def get_storage(self) -> None:
        """Return a signed link to the recording."""
        key = self.asked_recording()
        if key is not None:
            self.send_json(HTTPStatus.OK, {"data": self.vault.signed_url(key)})

    def get_blob(self) -> None:
        """Return the recording itself."""
        key = self.asked_recording()
        if key is not None:
            self.send_recording(self.vault.recordings[key])

    def get_signed(self) -> None:
        """Return the recording of a signed link; 403 when it has run out, as object stores do."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        key, expires = query.get("f", ""), query.get("e", "")
        signature = self.vault.signature(key, expires)
        if not hmac.compare_digest(signature.encode(), query.get("s", "").encode()):
            self.send_json(HTTPStatus.FORBIDDEN, {"data": "the signature is wrong"})
        elif not expires.isdigit() or int(expires) <= time.time():
            self.send_json(HTTPStatus.FORBIDDEN, {"data": "the link has expired"})
        elif key not in self.vault.recordings:
            self.send_json(HTTPStatus.NOT_FOUND, {"data": "no such recording"})
        else:
            self.send_recording(self.vault.recordings[key])

    def account_known(self) -> bool:
        """Check the account's keys; answers 401 when they are wrong."""
        given = self.header("AccessKey"), self.header("SecretAccessKey")
        known = given == (self.vault.access_key, self.vault.secret_key)
        if not known:
            self.send_json(HTTPStatus.UNAUTHORIZED, {"data": "the account's keys are wrong"})
        return known

    def asked_recording(self) -> str | None:
        """Return the key of the recording that the headers name, or answer why not."""
        if not self.account_known():
            return None
        key, provider = self.header("FileName"), self.header("Provider")
        if self.vault.provider is not None and provider not in ("", self.vault.provider):
            self.send_json(HTTPStatus.UNAUTHORIZED, {"data": "the account has no such provider"})
        elif not key:
            self.send_json(HTTPStatus.BAD_REQUEST, {"data": "X-Kerberos-Storage-FileName is missing"})
        elif key not in self.vault.recordings:
            self.send_json(HTTPStatus.NOT_FOUND, {"data": "no such recording"})
        else:
            return key
        return None

    def header(self, name: str) -> str:
        """Return one of Vault's request headers, which carry UTF-8."""
        # http.server reads headers as Latin-1.
        return self.headers.get(f"X-Kerberos-Storage-{name}", "").encode("latin-1").decode("utf-8", "replace")

    def send_json(self, status: HTTPStatus, value: object) -> None:
        """Answer with a small JSON document."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_recording(self, path: Path) -> None:
        """Answer with the bytes of a file."""
        with path.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            shutil.copyfileobj(file, self.wfile)

    def dispatch(self, routes: Mapping[str, Callable[[], None]]) -> None:
        """Count the request and hand it to its route."""
        path = urlsplit(self.path).path
        route = path.removeprefix(self.vault.prefix) if path.startswith(self.vault.prefix) else None
        answer = routes.get(route) if route is not None else None
        if answer is None:
            self.vault.requests["other"] += 1
            self.send_json(HTTPStatus.NOT_FOUND, {"data": "no such route"})
            return
        self.vault.requests[f"{self.command} {route}"] += 1
        answer()
