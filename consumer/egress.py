"""Egress: to which addresses a link may lead, and for how long a transfer may last.

Links come from events and from servers, so they are not trusted: the address is checked when the connection
stands and before a byte is sent, which holds for every redirect and does not depend on what a name resolves
to a moment earlier. And time-outs of sockets begin anew with every byte, so a deadline ends connections.
"""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, ClassVar

import requests
import requests.adapters
import requests.utils
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from consumer.errors import UrlForbidden

_METADATA_SERVICES = frozenset(
    map(
        ipaddress.ip_address,
        [
            "100.100.100.200", "fd00:100::100:200",
            "168.63.129.16",
            "192.0.0.192", "fd00:c1::a9fe:a9fe",
            "fd00:ec2::254", "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
        ],
    )
)  # fmt: skip
"""Of Alibaba, Azure, Oracle, AWS, Google and Scaleway; the usual 169.254.169.254 is link-local.

Oracle's by IPv6: oracle/oci-python-sdk, src/oci/auth/signers. The others' stand in their documentation.
"""

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""RFC 6052 and RFC 8215. The second is for local use, and its IPv4 address taken from where a /96 has it."""

_USUAL_PORTS = {"http": 80, "https": 443}

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_inside(address: str) -> bool:
    """Tell whether an IP address means this machine, its link or a cloud's metadata service.

    Private networks are not inside in this sense: an object store in the cluster is the usual case.
    """
    ip = _plain(address)
    return (
        ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip in _METADATA_SERVICES
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host name means this machine."""
    try:
        return _plain(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def host_of(url: str) -> str:
    """Return the host of a URL, in small letters and without a final dot; empty when it is no valid URL."""
    return _parts(url)[0]


def place_of(url: str) -> str:
    """Return `host:port` of a URL, with the usual port of its scheme where it names none; may be empty."""
    host, port, _ = _parts(url)
    return f"{host}:{port}" if host else ""


def leads_to(link: str, hosts: Collection[str]) -> bool:
    """Tell whether a link leads to one of these: `name:port`, or a name for the usual port of its scheme."""
    host, port, usual = _parts(link)
    return host != "" and (f"{host}:{port}" in hosts or (port == usual and host in hosts))


def _parts(url: str) -> tuple[str, int | None, int | None]:
    """Return the host, the port, and the usual port of the scheme."""
    # With the parser that requests uses: two parsers may see two hosts in `http://a\@b/`.
    try:
        parts = urllib3.util.parse_url(url)
    except ValueError:
        return "", None, None
    usual = _USUAL_PORTS.get(parts.scheme or "")
    return (parts.host or "").strip("[]").rstrip(".").lower(), parts.port or usual, usual


class Guard:
    """Checks the address of every new connection, and can end all of them.

    Args:
        vault_host: the host of VAULT_API_URL: where Vault itself is, links may lead too.
    """

    def __init__(self, vault_host: str) -> None:
        self._vault_host = vault_host
        self._open: set[socket.socket] = set()
        self._closed: list[socket.socket] | None = None
        """Handles of connections that were closed during a deadline; None when there is no deadline."""
        self._lock = threading.Lock()

    def check(self, host: str, address: str) -> None:
        """Raise UrlForbidden if a connection to this host, at this address, must not be used."""
        if host == self._vault_host or not is_inside(address):
            return
        own = _addresses(self._vault_host)
        if _plain(address) in own or (_plain(address).is_loopback and any(ip.is_loopback for ip in own)):
            return
        raise UrlForbidden(
            f"A link leads to {host} at {address}, an address inside this machine or its cloud: not followed."
        )

    def check_name(self, host: str) -> None:
        """Raise UrlForbidden if a host's name stands for an address that must not be used."""
        if host != self._vault_host:
            for address in _addresses(host):
                self.check(host, str(address))

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[threading.Event]:
        """End every connection after so many seconds; the event that it gives tells whether that happened."""
        passed = threading.Event()

        def end() -> None:
            passed.set()
            with self._lock:
                for handle in self._open:
                    # It may have been closed by its other end already.
                    with suppress(OSError):
                        handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        self._closed = []
        timer.start()
        try:
            yield passed
        finally:
            timer.cancel()
            closed, self._closed = self._closed, None
            for handle in closed:
                self.release(handle)

    def watch(self, handle: socket.socket) -> None:
        """Take a connection's second handle into the number of those that a deadline ends."""
        with self._lock:
            self._open.add(handle)

    def release(self, handle: socket.socket) -> None:
        """Let go of a connection that is closed."""
        if self._closed is not None:
            # A body without a length is read on after its connection was "closed": the deadline reaches it.
            self._closed.append(handle)
            return
        with self._lock:
            self._open.discard(handle)
        handle.close()


class _GuardedConnection(HTTPConnection):
    guard: ClassVar[Guard]
    _handle: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        try:
            self.guard.check(host_of(f"//{self.host}"), sock.getpeername()[0])
            # TLS takes the socket over: a second handle to the same connection outlives that.
            self._handle = sock.dup()
        except BaseException:
            sock.close()
            raise
        self.guard.watch(self._handle)
        return sock

    def close(self) -> None:
        """Close both handles."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self.guard.release(handle)
        super().close()


class _GuardedTlsConnection(_GuardedConnection, HTTPSConnection):
    pass


class _GuardedAdapter(requests.adapters.HTTPAdapter):
    """Makes connections that a guard has checked, with a certificate store to which a CA was added."""

    def __init__(self, guard: Guard, ca_file: Path | None) -> None:
        plain = type("Plain", (_GuardedConnection,), {"guard": guard})
        tls = type("Tls", (_GuardedTlsConnection,), {"guard": guard})
        self._pool_classes = {
            "http": type("PlainPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("TlsPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": tls}),
        }
        # Added, not instead: Vault may have a private CA while the links lead to a public object store.
        # requests adds certifi's certificates to the system's.
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # handed on as they are
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401  # handed on as they are
        """Make the pools for connections through a proxy; the session has checked the addresses."""
        return super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)


class GuardedSession(requests.Session):
    """A requests session that follows no redirect, keeps no cookie and reads no ~/.netrc.

    Args:
        guard: checks the connections.
        ca_file: certificates to trust beside the usual ones; PEM.
    """

    def __init__(self, guard: Guard, ca_file: Path | None = None) -> None:
        super().__init__()
        self._guard = guard
        self.trust_env = False  # no ~/.netrc: it would add logins; proxies are chosen below
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _GuardedAdapter(guard, ca_file)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self.headers.update({"Accept-Encoding": "identity"})

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow nothing by itself; requests would also read the redirect's whole body into memory."""

    def fetch(
        self, method: str, url: str, *, headers: dict[str, bytes] | None, timeout: tuple[float, float]
    ) -> requests.Response:
        """Ask, without reading the body, through the environment's proxy unless the host is this machine."""
        host = host_of(url)
        proxies = {} if is_loopback(host) else requests.utils.get_environ_proxies(url)
        # Beforehand too: an inside address is not even knocked at, and a proxy makes its own connections.
        self._guard.check_name(host)
        return self.request(
            method, url, headers=headers, timeout=timeout, stream=True, allow_redirects=False, proxies=proxies
        )


def _plain(address: str) -> IPAddress:
    """Return the address that is meant: IPv4 may come inside IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if any(ip in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return inner or ip
    return ip


def _addresses(host: str) -> set[IPAddress]:
    try:
        return {_plain(str(info[4][0])) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
