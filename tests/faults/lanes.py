"""Lanes: how one consumer reaches Kafka, Vault and Triton, each by a proxy of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.brokers.cluster import KafkaCluster
from tests.brokers.kafka import free_ports
from tests.fakes.tcp_proxy import SOUND, Link, ProxyLoop, TcpProxy

Side = Literal["kafka", "vault", "triton"]
SIDES: tuple[Side, ...] = ("kafka", "vault", "triton")


@dataclass(frozen=True)
class Lane:
    """The proxies of one consumer; `kafka` has one for each broker."""

    name: str
    kafka_bootstrap: str
    kafka: Sequence[TcpProxy]
    vault: TcpProxy
    triton: TcpProxy

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a consumer here."""
        return {
            "KAFKA_BROKER": self.kafka_bootstrap,
            "VAULT_API_URL": f"http://127.0.0.1:{self.vault.port}",
            "TRITON_URL": f"127.0.0.1:{self.triton.port}",
        }

    def proxies(self, sides: Iterable[Side]) -> list[TcpProxy]:
        """Return the proxies of these sides."""
        of_side = {"kafka": self.kafka, "vault": (self.vault,), "triton": (self.triton,)}
        return [proxy for side in sides for proxy in of_side[side]]

    def become(self, link: Link, sides: Iterable[Side] = SIDES) -> None:
        """Make the links of these sides so."""
        for proxy in self.proxies(sides):
            proxy.link = link

    def hits(self, sides: Iterable[Side]) -> int:
        """Return how often something met a link of these sides that was not sound."""
        return sum(proxy.hits for proxy in self.proxies(sides))

    def heal(self) -> None:
        """Make all links sound."""
        self.become(SOUND)


def open_lane(
    name: str, loop: ProxyLoop, cluster: KafkaCluster, *, vault_port: int, triton_port: int
) -> Lane:
    """Put a lane's proxies in place; the cluster's brokers listen for it under its name."""
    own_vault, own_triton = free_ports(2)
    kafka = [
        TcpProxy(loop, broker.lanes[name].advertised, broker.lanes[name].listens)
        for broker in cluster.brokers
    ]
    return Lane(
        name,
        cluster.lane_bootstrap(name),
        kafka,
        TcpProxy(loop, own_vault, vault_port),
        TcpProxy(loop, own_triton, triton_port),
    )
