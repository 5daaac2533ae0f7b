"""What the proxy does to a connection: late, slow, broken off, or nothing at all."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.brokers.kafka import free_ports
from tests.fakes.tcp_proxy import SOUND, Link, ProxyLoop, TcpProxy


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """A proxy in front of a server that sends back what it gets."""
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as server, ProxyLoop() as loop:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        yield TcpProxy(loop, port, server.getsockname()[1])


def _echo(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo_one, args=(connection,), daemon=True).start()


def _echo_one(connection: socket.socket) -> None:
    try:
        while data := connection.recv(65_536):
            connection.sendall(data)
    except OSError:
        pass
    connection.close()


def connected(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def all_of(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(65_536)):
        data += more
    return data


def test_it_carries_both_ways(proxy: TcpProxy) -> None:
    sent = bytes(range(256)) * 4000
    with connected(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(sent,)).start()
        assert all_of(connection, len(sent)) == sent
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_it_counts_what_met_a_link_that_is_not_sound(proxy: TcpProxy) -> None:
    with connected(proxy) as connection:
        for link, hit in ((SOUND, False), (Link(latency_seconds=0.01), True)):
            proxy.link = link
            connection.sendall(b"there and back")
            all_of(connection, 14)
            assert (proxy.hits > 0) == hit


def test_a_slow_link_carries_everything(proxy: TcpProxy) -> None:
    proxy.link = Link(latency_seconds=0.02, bytes_per_second=1_000_000)
    with connected(proxy) as connection:
        connection.sendall(b"x" * 50_000)
        assert len(all_of(connection, 50_000)) == 50_000


def test_what_a_black_hole_swallowed_arrives_once_it_is_over(proxy: TcpProxy) -> None:
    with connected(proxy) as connection:
        proxy.link = Link(black_hole=True)
        connection.sendall(b"hello")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(5)
        proxy.link = SOUND
        connection.settimeout(10)
        assert all_of(connection, 5) == b"hello"


def test_connections_are_broken_off(proxy: TcpProxy) -> None:
    with connected(proxy) as connection:
        connection.sendall(b"hello")
        assert all_of(connection, 5) == b"hello"
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_share_of_new_connections_is_broken_off(proxy: TcpProxy) -> None:
    proxy.link = Link(reset_share=1.0)
    with pytest.raises(ConnectionError), connected(proxy) as connection:
        connection.sendall(b"hello")
        if connection.recv(5) == b"":
            raise ConnectionResetError


def test_nobody_behind_it_is_a_broken_connection() -> None:
    own, nobody = free_ports(2)
    with (
        ProxyLoop() as loop,
        pytest.raises(ConnectionError),
        connected(TcpProxy(loop, own, nobody)) as connection,
    ):
        connection.sendall(b"hello")
        if connection.recv(5) == b"":
            raise ConnectionResetError
