"""A stand-in Vault that can be told to misbehave, on real sockets; it also plays the object store."""

import gzip
import json
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from consumer.standin_vault import StandinVault, VaultHandler

Fault = Callable[["FaultyHandler"], None]

DRIP_SECONDS = 0.02


class FaultyVault(StandinVault):
    """Answers as Vault does, but for the routes (`GET /storage/blob`) that have a fault.

    Args:
        tls: serves https:// with this certificate, under the name `localhost`.
        **options: those of StandinVault.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:  # noqa: ANN401  # handed on
        super().__init__(**options)
        self.faults: dict[str, Fault | list[Fault]] = {}
        """By route; those of a list are used up one by one, then the route is well again."""
        self.seen: list[tuple[str, Message]] = []
        """Method and path with query, and headers, of every request that arrived."""
        self.ending = threading.Event()
        self._tls = tls
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @property
    def handler(self) -> type[VaultHandler]:
        """Put the handler with faults in place."""
        return FaultyHandler

    @property
    def origin(self) -> str:
        """As the stand-in's; with TLS under the name that the certificate is for."""
        origin = super().origin
        return origin.replace("http://127.0.0.1", "https://localhost") if self._tls else origin

    def named_localhost(self, url: str) -> str:
        """Return a URL of this server under its other host name."""
        return url.replace("127.0.0.1", "localhost")

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401  # handed on
        """End the faults that last for as long as the server does."""
        self.ending.set()
        super().__exit__(*error)


class FaultyHandler(VaultHandler):
    """Looks for a fault before it answers."""

    @property
    def faulty(self) -> FaultyVault:
        """The server, as what it is."""
        vault = self.vault
        assert isinstance(vault, FaultyVault)
        return vault

    def dispatch(self, routes: "dict[str, Callable[[], None]]") -> None:  # type: ignore[override]  # only read
        """Answer with the route's fault, if it has one."""
        self.faulty.seen.append((f"{self.command} {self.path}", self.headers))
        route = self.path.partition("?")[0].removeprefix(self.vault.prefix)
        fault = self.faulty.faults.get(f"{self.command} {route}")
        if isinstance(fault, list):
            fault = fault.pop(0) if fault else None
        if fault is None:
            super().dispatch(routes)
            return
        self.vault.requests[f"{self.command} {route}"] += 1
        with suppress(OSError):  # the client has gone away, which is what some faults are for
            fault(self)

    def begin(self, status: int, **headers: str) -> None:
        """Send status and headers; underscores in names are dashes."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


def status(code: int, body: bytes = b"") -> Fault:
    """Answer with a status and little else."""

    def fault(handler: FaultyHandler) -> None:
        handler.begin(code, Content_Length=str(len(body)))
        handler.wfile.write(body)

    return fault


def answer(body: bytes, **headers: str) -> Fault:
    """Answer 200 with this body."""

    def fault(handler: FaultyHandler) -> None:
        handler.begin(200, Content_Length=str(len(body)), **headers)
        handler.wfile.write(body)

    return fault


def link_to(url: str) -> Fault:
    """Answer `GET storage` with a link to somewhere."""
    return answer(json.dumps({"data": url}).encode(), Content_Type="application/json")


def redirect(url: str, code: int = 302) -> Fault:
    """Lead on to somewhere else, with a body that never ends."""

    def fault(handler: FaultyHandler) -> None:
        handler.begin(code, Location=url)
        while not handler.faulty.ending.is_set():
            handler.wfile.write(b"x" * 65536)

    return fault


def cut_off(body: bytes, *, chunked: bool = False) -> Fault:
    """Promise twice as much as is sent, then close the connection."""

    def fault(handler: FaultyHandler) -> None:
        if chunked:
            handler.begin(200, Transfer_Encoding="chunked")
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        else:
            handler.begin(200, Content_Length=str(2 * len(body)))
            handler.wfile.write(body)
        handler.close_connection = True

    return fault


def reset(handler: FaultyHandler) -> None:
    """Break the connection off hard, before an answer."""
    handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def drip_body(handler: FaultyHandler) -> None:
    """Send a byte now and then, for ever; no silence is long enough for a time-out."""
    handler.begin(200, Content_Length="1000000000")
    while not handler.faulty.ending.wait(DRIP_SECONDS):
        handler.wfile.write(b"\0")


def drip_body_without_length(handler: FaultyHandler) -> None:
    """As above; such a body looks complete when its connection ends."""
    handler.begin(200)
    while not handler.faulty.ending.wait(DRIP_SECONDS):
        handler.wfile.write(b"\0")


def drip_headers(handler: FaultyHandler) -> None:
    """Never come to the end of the headers."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.faulty.ending.wait(DRIP_SECONDS):
        handler.wfile.write(b"a")


def continue_for_ever(handler: FaultyHandler) -> None:
    """Promise an answer again and again (100 Continue) and never come to it."""
    while not handler.faulty.ending.is_set():
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def flood_of_headers(handler: FaultyHandler) -> None:
    """Send headers for as long as somebody takes them."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.faulty.ending.is_set():
        handler.wfile.write(b"X-More: " + b"a" * 1000 + b"\r\n")


def endless_header(handler: FaultyHandler) -> None:
    """Send one header for as long as somebody takes it."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not handler.faulty.ending.is_set():
        handler.wfile.write(b"a" * 65536)


def silence(handler: FaultyHandler) -> None:
    """Take the request and say nothing."""
    handler.faulty.ending.wait()


def endless(code: int = 200, **headers: str) -> Fault:
    """Send bytes for as long as somebody takes them."""

    def fault(handler: FaultyHandler) -> None:
        handler.begin(code, **headers)
        while not handler.faulty.ending.is_set():
            handler.wfile.write(b"\0" * 65536)

    return fault


def bomb(size: int) -> Fault:
    """A small compressed body that grows to `size` bytes, whether compression was asked for or not."""
    return answer(gzip.compress(bytes(size)), Content_Encoding="gzip")


def clip(directory: Path, size: int = 300_000) -> Path:
    """Make a file that begins as an MP4 does; what follows is not looked at by a download."""
    path = directory / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(range(256)) * (size // 256))
    return path
