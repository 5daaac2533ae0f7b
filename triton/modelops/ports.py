"""Ports on loopback for the embedded Triton."""

import contextlib
import socket
from collections.abc import Iterable

from consumer.errors import SetupError

LOOPBACK = "127.0.0.1"


def free_ports(count: int, address: str = LOOPBACK) -> list[int]:
    """Ask the kernel for free ports, all held at once so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((address, 0))
        return [each.getsockname()[1] for each in sockets]


def require_free(ports: Iterable[int], address: str = LOOPBACK) -> None:
    """Check ports that were asked for: Triton itself goes on without a metrics port, and only logs it.

    Raises:
        SetupError: one is taken, or not ours to take.
    """
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do no harm
            try:
                probe.bind((address, port))
            except OSError as error:
                raise SetupError(
                    f"Triton did not start: '{address}:{port}' already in use or not allowed "
                    f"({error.strerror}); choose another port."
                ) from error
