"""Three nodes of Apache Kafka (KRaft), each a broker and a controller: what a broker's end must not lose.

Every topic has three copies, and two must have a message before it is confirmed. Beside the listener of
`KafkaBroker` each broker has one for each *lane*: it advertises another port than it listens on, so that a
proxy can stand between.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # confluent_kafka.admin offers it, but its types do not say so

from tests.brokers.kafka import KafkaBroker, free_ports

NODES = 3
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class LanePorts:
    """Where a broker listens for one lane, and where it says that it does."""

    listens: int
    advertised: int


class ClusterBroker(KafkaBroker):
    """One node of the cluster.

    Args:
        directory: an empty directory for its data, its configuration and its log.
        node: its number, from 1.
        lanes: names of further listeners; letters and digits.
    """

    def __init__(self, directory: Path, node: int, lanes: Sequence[str]) -> None:
        super().__init__(directory)
        self.node = node
        ports = free_ports(2 * len(lanes))
        self.lanes = {
            lane: LanePorts(listens, advertised)
            for lane, listens, advertised in zip(lanes, ports[::2], ports[1::2], strict=True)
        }
        self.voters = ""
        """All controllers, as controller.quorum.voters wants them."""

    @property
    def voter(self) -> str:
        """This one, as above."""
        return f"{self.node}@{self._controller}"

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended_by_itself(self) -> bool:
        """Whether its process has ended, and nobody here ended it."""
        return self._process is not None and self._process.poll() is not None

    def _format_arguments(self) -> list[str]:
        return []  # the voters stand in the configuration

    def _server_properties(self) -> dict[str, str]:
        lines = super()._server_properties()
        del lines["controller.quorum.bootstrap.servers"]  # of a quorum that can grow
        listening = "".join(f",{name}://127.0.0.1:{ports.listens}" for name, ports in self.lanes.items())
        advertised = "".join(f",{name}://127.0.0.1:{ports.advertised}" for name, ports in self.lanes.items())
        kinds = "".join(f",{name}:PLAINTEXT" for name in self.lanes)
        copies = str(NODES)
        return lines | {
            "node.id": str(self.node),
            "controller.quorum.voters": self.voters,
            "listeners": lines["listeners"] + listening,
            "advertised.listeners": lines["advertised.listeners"] + advertised,
            "listener.security.protocol.map": lines["listener.security.protocol.map"] + kinds,
            "default.replication.factor": copies,
            "min.insync.replicas": "2",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "2",
            # A copy that lags is dropped, and a leader that is gone replaced, soon: the tests wait for both.
            "replica.lag.time.max.ms": "5000",
            "controller.quorum.election.timeout.ms": "1000",
            "controller.quorum.fetch.timeout.ms": "2000",
        }


class KafkaCluster:
    """Three brokers, as a context manager; `bootstrap` leads to their plain listeners.

    Args:
        directory: an empty directory for all that they write.
        lanes: see ClusterBroker.
    """

    def __init__(self, directory: Path, lanes: Sequence[str] = ()) -> None:
        self.brokers: list[ClusterBroker] = []
        for node in range(1, NODES + 1):
            (directory / f"broker-{node}").mkdir(parents=True)
            self.brokers.append(ClusterBroker(directory / f"broker-{node}", node, lanes))
        for broker in self.brokers:
            broker.voters = ",".join(each.voter for each in self.brokers)
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers)
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Format and start all three, and wait until every one of them takes requests."""
        with ThreadPoolExecutor(NODES) as formats:
            list(formats.map(ClusterBroker.format, self.brokers))
        with ExitStack() as undo:
            for broker in self.brokers:
                undo.callback(broker.kill)
                broker.spawn()  # in this thread: they end with the thread that started them
            for broker in self.brokers:
                broker.wait_until_ready()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def lane_bootstrap(self, lane: str) -> str:
        """Return what leads to the brokers by that lane, once proxies stand at the advertised ports."""
        return ",".join(f"127.0.0.1:{broker.lanes[lane].advertised}" for broker in self.brokers)

    def create_topics(self, names: Sequence[str], partitions: int) -> None:
        """Create topics with three copies each."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        wanted = [NewTopic(name, num_partitions=partitions, replication_factor=NODES) for name in names]
        for created in admin.create_topics(wanted, operation_timeout=_ANSWER_SECONDS).values():
            created.result(_ANSWER_SECONDS)

    def in_sync(self) -> bool:
        """Return whether all brokers are there, and each of them says that every copy is up to date."""
        return all(_knows_of_all_copies(broker.bootstrap) for broker in self.brokers)


def _knows_of_all_copies(bootstrap: str) -> bool:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        found = admin.list_topics(timeout=1)
    except KafkaException:
        return False
    return len(found.brokers) == NODES and all(
        partition.leader >= 0 and len(partition.isrs) == len(partition.replicas)
        for topic in found.topics.values()
        for partition in topic.partitions.values()
    )
