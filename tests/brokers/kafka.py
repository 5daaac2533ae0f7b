"""One node of Apache Kafka (KRaft) on loopback: the truth for every promise of delivery.

The jars come from Maven Central through scripts/kafka/fetch. Formatting and starting follow Kafka's own
quick start (https://kafka.apache.org/documentation/#quickstart), without its shell scripts.
"""

import contextlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.cache import cache_directory
from consumer.errors import SetupError
from tests.brokers.certificates import write_certificates

POM = Path(__file__).parents[2] / "scripts" / "kafka" / "pom.xml"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
_LOG_TAIL_LINES = 40
# A small heap, the cheap collector and compiler: it starts faster and leaves the cores to the tests.
_JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)

WITH_AUTHORIZER: Mapping[str, str] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
"""Settings of a broker that asks what a user may do; who comes without a login may do everything."""

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True)
class User:
    """Somebody who may log in on `KafkaBroker.sasl_bootstrap` and `tls_bootstrap`."""

    name: str
    password: str
    mechanism: Mechanism


def jars_directory() -> Path:
    """Return where scripts/kafka/fetch puts the jars of the version that its pom.xml names."""
    version = re.search(r"<kafka.version>(.+)</kafka.version>", POM.read_text())
    assert version is not None
    return cache_directory() / f"kafka-{version[1]}"


def missing() -> str | None:
    """Return what this machine lacks to run the broker, as one sentence; None when nothing is missing."""
    if shutil.which("java") is None:
        return "There is no Java: run scripts/test, or install openjdk-17-jre-headless."
    if not jars_directory().is_dir():
        return "Apache Kafka has not been fetched: run scripts/test, or scripts/kafka/fetch."
    return None


class KafkaBroker:
    """A broker with its ports and data, as a context manager.

    It listens three times: `bootstrap` asks for no login (PLAINTEXT), `sasl_bootstrap` for that of a user
    (SASL_PLAINTEXT), `tls_bootstrap` too, with a certificate for 127.0.0.1 that `ca_file` vouches for
    (SASL_SSL). Topics are not created by themselves, unless `settings` says so.

    Args:
        directory: an empty directory for its data, its configuration and its log.
        users: who may log in.
        settings: further lines of server.properties; they win over those of this class.
    """

    def __init__(
        self, directory: Path, users: Sequence[User] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory
        self._users = tuple(users)
        self._settings = dict(settings or {})
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        plain, sasl, tls, controller = free_ports(4)
        self.bootstrap = f"127.0.0.1:{plain}"
        self.sasl_bootstrap = f"127.0.0.1:{sasl}"
        self.tls_bootstrap = f"127.0.0.1:{tls}"
        self._controller = f"127.0.0.1:{controller}"
        self.ca_file = directory / "ca.pem"

    def __enter__(self) -> Self:
        """Format the data directory, start the broker and wait until it is ready."""
        self.format()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the broker at once; whoever cares about its data has called `stop`."""
        self.kill()

    def start(self) -> None:
        """Start the broker on its ports and data, and wait until it takes requests.

        Raises:
            SetupError: it ended, or did not answer within READY_SECONDS; with the end of its log.
        """
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> None:
        """Start the broker's process; `wait_until_ready` tells when it takes requests."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*dies_with_us(), *self._java("kafka.Kafka", str(self._properties))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the tests ends it through __exit__, not in the middle
            )

    def stop(self) -> None:
        """Stop the broker as a rolling update does: SIGTERM, and it writes down what it holds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a power cut does: SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again after `kill` or `stop`, on the same ports and data (about 3 s, 15 s after `kill`)."""
        assert self._process is None, "kill or stop it first"
        self.start()

    def freeze(self) -> None:
        """Let the broker answer nothing while its sockets stay open: SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on: SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the end of the broker's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])

    @property
    def _keystore(self) -> Path:
        return self._directory / "broker.pem"

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return ["java", *_JAVA_OPTIONS, "-cp", f"{jars_directory()}/*", main_class, *arguments]

    def _format_arguments(self) -> list[str]:
        """Return what StorageTool is told of the quorum: this node is all of it."""
        return ["--standalone"]

    def format(self) -> None:
        """Write the configuration and an empty data directory.

        Raises:
            SetupError: Kafka's own tool could not; with what it said.
        """
        lines = self._server_properties() | self._settings
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        scram = [
            option
            for user in self._users
            if user.mechanism != "PLAIN"
            for option in ("--add-scram", f"{user.mechanism}=[name={user.name},password={user.password}]")
        ]
        command = self._java("kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID)
        done = subprocess.run(
            [*command, *self._format_arguments(), "--config", str(self._properties), *scram],
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(f"The storage could not be formatted:\n{done.stdout}{done.stderr}")
        write_certificates(self.ca_file, self._keystore)

    def _server_properties(self) -> dict[str, str]:
        login = "org.apache.kafka.common.security"
        users = "".join(
            f' user_{user.name}="{user.password}"' for user in self._users if user.mechanism == "PLAIN"
        )
        modules = {
            "plain": f"{login}.plain.PlainLoginModule required{users};",
            "scram-sha-256": f"{login}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{login}.scram.ScramLoginModule required;",
        }
        jaas = {
            f"listener.name.{listener}.{mechanism}.sasl.jaas.config": module
            for listener in ("login", "tls")
            for mechanism, module in modules.items()
        }
        outside = f"PLAIN://{self.bootstrap},LOGIN://{self.sasl_bootstrap},TLS://{self.tls_bootstrap}"
        return jaas | {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": self._controller,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": f"{outside},CONTROLLER://{self._controller}",
            "advertised.listeners": outside,
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SASL_SSL,"
            "CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keystore),
            "log.dirs": str(self._directory / "data"),
            "auto.create.topics.enable": "false",
            # A single node: its own topics cannot have the three copies that are the default.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # Tests would only wait: for more members of a group, and for timeouts of dead ones.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }

    def wait_until_ready(self) -> None:
        """Wait until the broker takes requests.

        Raises:
            SetupError: it ended, or did not answer within READY_SECONDS; with the end of its log.
        """
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if _answers(self.bootstrap):
                return
        end = self._process.poll()
        self.kill()
        how = f"did not answer within {READY_SECONDS:g} s" if end is None else f"ended with status {end}"
        raise SetupError(f"The broker {how}:\n{self.log_tail()}")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process = None


_CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"  # any UUID in base64; Kafka's documentation uses this one


_given: set[int] = set()
"""Ports that somebody here has been given: he may listen there only later."""


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, and that this process has given to nobody else.

    They lie below the range that the kernel gives to outgoing connections (32768 and up on Linux): a client
    that retries while the broker is down could otherwise be given the broker's own port, and keep it.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
            _given.add(port)
        if len(found) == count:
            return found
    raise SetupError("There are no free ports on 127.0.0.1 between 20000 and 32000.")


def _answers(bootstrap: str) -> bool:
    """Return whether a broker there lists itself as alive, after waiting a moment for it."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
    try:
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def dies_with_us() -> list[str]:
    """Return the prefix that ends a process when the tests are killed; `setpriv` is part of util-linux.

    The kernel means the thread that starts it: do so from one that lasts as long as the process shall.
    """
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
