"""A world for pods: topics of its own on a real broker, a Triton, a Vault; and what is read back from it."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from consumer.comparison import Comparison
from consumer.standin_vault import StandinVault
from consumer.topics import Record, produce, read_topic
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import committed_offsets, create_topic
from tests.fakes.recorded_events import README_EVENT
from tests.pods import Pod

SECONDS = 60.0


@dataclass
class World:
    """What a pod lives in: topics of its own on the broker, a Triton, a Vault."""

    kafka: KafkaBroker
    triton_url: str
    vault: StandinVault
    directory: Path
    partitions: int = 1
    source: str = field(init=False)
    target: str = field(init=False)
    group: str = field(init=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.source = create_topic(self.kafka.bootstrap, "source", self.partitions)
        self.target = create_topic(self.kafka.bootstrap, "target")
        self.group = f"group-{self.source}"

    @property
    def letters_topic(self) -> str:
        return f"{self.source}.dead-letter"

    @property
    def comparisons_topic(self) -> str:
        return f"{self.source}.comparison"

    def comparisons(self, count: int, seconds: float = SECONDS) -> list[Comparison]:
        records = self.read(self.comparisons_topic, count, seconds)
        return [Comparison.from_json(record.value or b"") for record in records]

    def every_comparison(self) -> list[Comparison]:
        """Return all comparisons there are, after the pods have stopped."""
        records = read_topic(self.kafka.bootstrap, self.comparisons_topic, 10_000, timeout_seconds=2.0)
        return [Comparison.from_json(record.value or b"") for record in records]

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a pod, but for its name."""
        return {
            "QUEUE_SYSTEM": "KAFKA",
            "QUEUE_NAME": self.source,
            "QUEUE_TARGET": self.target,
            "KAFKA_BROKER": self.kafka.bootstrap,
            "KAFKA_GROUP": self.group,
            "KAFKA_SECURITY": "PLAINTEXT",
            "VAULT_API_URL": self.vault.url,
            "VAULT_ACCESS_KEY": self.vault.access_key,
            "VAULT_SECRET_KEY": self.vault.secret_key,
            "NUMBER_OF_PREDICTIONS": "2",
            "TRITON_URL": self.triton_url,
            "WORKERS": "1",
        }

    def pod(self, **changed: str) -> Pod:
        return Pod(self.directory, self.environ | {"POD_NAME": f"pod-{next(self._numbers)}"} | changed)

    def command(self, *arguments: str) -> Pod:
        """A command that works beside the pods, with their variables."""
        return Pod(self.directory, self.environ, arguments=arguments)

    def store(self, key: str, path: Path) -> dict[str, Any]:
        """Put a recording into Vault and return the event that Vault publishes of it."""
        self.vault.add(key, path)
        event: dict[str, Any] = json.loads(json.dumps(README_EVENT))
        event["payload"]["key"] = key
        event["source"] = self.vault.provider
        return event

    def send(self, *events: object, partition: int = -1) -> None:
        values = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
        produce(self.kafka.bootstrap, self.source, values, partition=partition)

    def results(self, count: int, seconds: float = SECONDS) -> list[Record]:
        return self.read(self.target, count, seconds)

    def letters(self, count: int, seconds: float = SECONDS) -> list[dict[str, Any]]:
        records = self.read(self.letters_topic, count, seconds)
        return [json.loads(record.value or b"{}") for record in records]

    def read(self, topic: str, count: int, seconds: float) -> list[Record]:
        """Return at least that many records; asks anew now and then, as the topic may come into being."""
        deadline = time.monotonic() + seconds
        records: list[Record] = []
        while len(records) < count and time.monotonic() < deadline:
            records = read_topic(self.kafka.bootstrap, topic, count, timeout_seconds=5.0)
        assert len(records) >= count, f"{len(records)} of {count} in {topic}"
        return records

    def everything(self) -> list[Record]:
        """Return all results there are, after the pods have stopped."""
        return read_topic(self.kafka.bootstrap, self.target, 10_000, timeout_seconds=2.0)

    def no_letters(self) -> bool:
        return not read_topic(self.kafka.bootstrap, self.letters_topic, 1, timeout_seconds=0.5)

    def committed(self) -> dict[int, int]:
        return committed_offsets(self.kafka.bootstrap, self.group, self.source)


def keys(records: list[Record]) -> list[str]:
    return [json.loads(record.value or b"{}")["payload"]["key"] for record in records]


class Load:
    """Recordings that keep coming from a thread of their own until it is stopped.

    Args:
        send: sends the recording of a number; says no where it must wait before that.
    """

    def __init__(self, send: Callable[[int], bool]) -> None:
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_of_a_failure: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End it; returns how many were sent."""
        self._stop.set()
        self._thread.join()
        return self.sent

    def _keep_sending(self) -> None:
        while not self._stop.wait(0.05):
            self.sent += self._send(self.sent)
