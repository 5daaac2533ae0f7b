"""The world of a run: brokers, Triton, Vault, two consumers and a guest, each reached by its own lane."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelops.embedded import EmbeddedTriton
from tests.brokers.cluster import KafkaCluster
from tests.brokers.kafka import free_ports
from tests.fakes.tcp_proxy import ProxyLoop
from tests.faults import model, recordings
from tests.faults.consumers import Consumer, can_mount
from tests.faults.lanes import open_lane
from tests.faults.vault import VaultProcess

PARTITIONS = 6
WORKERS = 2
_LANES = ("FIRST", "SECOND", "GUEST", "CALM")


@dataclass(frozen=True)
class Topics:
    """The topics of one run, and the group that reads the first one."""

    source: str
    target: str
    letters: str
    group: str

    @classmethod
    def named(cls, name: str) -> "Topics":
        """Return those of a name."""
        return cls(name, f"{name}.results", f"{name}.dead-letter", f"{name}-group")

    def environment(self) -> dict[str, str]:
        """Return the variables that name them."""
        return {
            "QUEUE_NAME": self.source,
            "QUEUE_TARGET": self.target,
            "QUEUE_DEAD_LETTER": self.letters,
            "KAFKA_GROUP": self.group,
        }


FAULTY = Topics.named("soak")
CALM = Topics.named("calm")
"""Of the run without faults, which says what is right."""


class Surroundings:
    """What a run has: made by `surroundings`."""

    def __init__(
        self,
        cluster: KafkaCluster,
        vault: VaultProcess,
        repository: Path,
        triton_port: int,
        consumers: Mapping[str, Consumer],
    ) -> None:
        self.cluster, self.vault = cluster, vault
        self._repository, self._triton_port = repository, triton_port
        self._triton: EmbeddedTriton | None = None
        self._triton_wanted = False
        self.ended_by_itself: list[str] = []
        """Brokers and Triton, for each time that nobody had ended them."""
        self.consumers = [consumers["FIRST"], consumers["SECOND"]]
        self.guest, self.calm = consumers["GUEST"], consumers["CALM"]

    @property
    def clocked(self) -> Consumer:
        """The consumer whose clock can be stepped."""
        return self.consumers[1]

    def everybody(self) -> list[Consumer]:
        """Return all consumers that read the topics with faults."""
        return [*self.consumers, self.guest]

    def start_triton(self) -> None:
        """Start it on its port."""
        self.stop_triton()
        self._triton = EmbeddedTriton.start(self._repository, grpc_port=self._triton_port)
        self._triton_wanted = True

    def kill_triton(self) -> bool:
        """End it and the processes of its models at once; returns False where it is not there."""
        if self._triton is None or not self._triton.healthy:
            return False
        self._triton_wanted = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._triton.pid, signal.SIGKILL)
        return True

    def keep(self) -> None:
        """Start what ended by itself, as Kubernetes does; to be called often.

        Raises:
            SetupError: Triton does not start.
        """
        for broker in self.cluster.brokers:
            if broker.ended_by_itself:
                self.ended_by_itself.append(f"broker {broker.node}: {broker.log_tail()[-400:]}")
                broker.kill()
                broker.spawn()
        if self._triton_wanted and self._triton is not None and not self._triton.healthy:
            self.ended_by_itself.append("triton")
            self.start_triton()

    def stop_triton(self) -> None:
        """End it, and remove what it leaves behind."""
        if self._triton is not None:
            self._triton.stop()


@contextmanager
def surroundings(directory: Path) -> Iterator[Surroundings]:
    """Start all but the consumers, and end everything in the end.

    Args:
        directory: an empty one, for all data and logs.

    Raises:
        SetupError: something is missing, or does not start.
    """
    files = directory / "recordings"
    files.mkdir(parents=True)
    written = {name: str(path) for name, path in recordings.write_files(files).items()}
    (files / "files.json").write_text(json.dumps(written))
    vault_port, triton_port = free_ports(2)
    with ExitStack() as stack:
        cluster = stack.enter_context(KafkaCluster(directory / "kafka", _LANES))
        for topics in (FAULTY, CALM):
            cluster.create_topics([topics.source, topics.target, topics.letters], PARTITIONS)
        vault = stack.enter_context(VaultProcess(vault_port, files, directory / "vault.log"))
        loop = stack.enter_context(ProxyLoop())
        consumers = {}
        mounts = can_mount(files)
        for name in _LANES:
            lane = open_lane(name, loop, cluster, vault_port=vault_port, triton_port=triton_port)
            topics = CALM if name == "CALM" else FAULTY
            consumer = Consumer(
                f"consumer-{name.lower()}",
                directory / f"consumer-{name.lower()}",
                _environment() | topics.environment(),
                lane,
                clock=name == "SECOND",
                mounts=mounts,
            )
            stack.callback(consumer.close)
            consumers[name] = consumer
        world = Surroundings(
            cluster, vault, model.write_repository(directory / "models"), triton_port, consumers
        )
        stack.callback(world.stop_triton)
        world.start_triton()
        yield world


def _environment() -> dict[str, str]:
    """Return the variables that all consumers have; times are short, so that a run need not wait for them."""
    return {
        "QUEUE_SYSTEM": "KAFKA",
        "KAFKA_SECURITY": "PLAINTEXT",
        "VAULT_ACCESS_KEY": "standin-access-key",
        "VAULT_SECRET_KEY": "standin-secret-key",
        "VAULT_TIMEOUT": "4",
        "NUMBER_OF_PREDICTIONS": "3",
        "TRITON_TIMEOUT": "3",
        "WORKERS": str(WORKERS),
        "MAX_RECORDING_BYTES": str(recordings.MAX_RECORDING_BYTES),
        "RECORDING_DEADLINE": str(recordings.RECORDING_DEADLINE_SECONDS),
        "RECORDING_TIME_LIMIT": str(recordings.RECORDING_TIME_LIMIT_SECONDS),
        "RECORDING_ENCRYPTION_KEY": recordings.PASSPHRASE,
        "SHUTDOWN_GRACE": "15",
        # A consumer finds `tests` and `modelops` as this process does.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
