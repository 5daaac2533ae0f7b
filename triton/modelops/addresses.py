"""Where the pods behind a name listen."""

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumer.errors import SetupError

_CONNECT_SECONDS = 5.0
_TARGET = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Address:
    """Where one pod listens for gRPC; `name` is the one behind which it was found, as in its certificate."""

    host: str
    port: int
    name: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def resolve(
    names: Iterable[str],
    getaddrinfo: Callable[..., Sequence[tuple[Any, ...]]] = socket.getaddrinfo,
) -> tuple[Address, ...]:
    """Return every address behind each `HOST:PORT`, in order and once: the pods of a headless Service.

    A name with both IPv4 and IPv6 addresses is asked by one family alone where nothing listens on the other:
    the pods of a dual-stack cluster have two addresses each, and Triton listens on IPv4 unless told.

    Raises:
        SetupError: not HOST:PORT, or no such name.
    """
    found: dict[Address, None] = {}
    for name in names:
        parts = _TARGET.fullmatch(name.removeprefix("dns:///"))  # as the consumer's TRITON_URL may begin
        if parts is None or not 0 < int(parts["port"]) < 65536:
            raise SetupError(
                f"{name!r} is no address of a Triton: write HOST:PORT with its gRPC port, like triton:8001."
            )
        host, port = parts["host"].strip("[]"), int(parts["port"])
        try:
            answers = getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a label that is too long is a UnicodeError
            raise SetupError(
                f"The name {host} is not known ({getattr(error, 'strerror', None) or error}): "
                "write the name of the Service, or the address of a Triton."
            ) from error
        families: dict[int, list[Address]] = {}
        for family, _type, _protocol, _canonical, address in answers:
            pods = families.setdefault(family, [])
            pods.append(Address(str(address[0]), int(address[1]), name=host))
        found |= dict.fromkeys(_of_those_that_listen(list(families.values())))
    return tuple(found)


def _of_those_that_listen(families: list[list[Address]]) -> list[Address]:
    """Leave a family out where nothing listens and another one has as many addresses, all listening."""
    if len(families) > 1:
        listening = [sum(map(_listens, addresses)) for addresses in families]
        for addresses, count in zip(families, listening, strict=True):
            others = [n for n, other in zip(listening, families, strict=True) if other is not addresses]
            if count == len(addresses) >= max(map(len, families)) and not any(others):
                return addresses
    return [address for addresses in families for address in addresses]


def _listens(address: Address) -> bool:
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
