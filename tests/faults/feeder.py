"""Recordings keep coming: a producer in a thread of its own, at a steady rate."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Message, Producer

from tests.faults.recordings import RECIPE_HEADER, Recipe

_TURN_SECONDS = 0.02
_FLUSH_SECONDS = 180.0


@dataclass(frozen=True)
class Sent:
    """One message that Kafka has confirmed; `at` is when it was sent, by time.monotonic()."""

    partition: int
    offset: int
    recipe: str
    at: float


def send_once(bootstrap: str, topic: str, recipes: Iterable[Recipe]) -> None:
    """Send a message of each recipe and wait until Kafka has them."""
    producer = _producer(bootstrap)
    for number, recipe in enumerate(recipes):
        producer.produce(topic, recipe.message(number), headers=_headers(recipe))
    assert producer.flush(60.0) == 0, "Kafka did not take the messages"


class Feeder:
    """Sends messages to a topic until it is stopped.

    Args:
        bootstrap: the brokers, reached without faults.
        topic: where to.
        partitions: of the topic; they take turns, so that every one always has work. What takes long to end
            goes to the last one, where others wait for it (docs/messages.md).
        recipes: what to send, one after the other.
        per_second: how many.
        held_back: asked before each; while it says yes, nothing is sent.
        seconds_left: how long it goes on; what takes longer than that to end is not sent any more.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        recipes: Iterator[Recipe],
        *,
        per_second: float,
        held_back: Callable[[], bool],
        seconds_left: Callable[[], float],
    ) -> None:
        self._topic, self._partitions = topic, partitions
        self._recipes, self._per_second = recipes, per_second
        self._held_back, self._seconds_left = held_back, seconds_left
        self._producer = _producer(bootstrap)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder")
        self.sent: list[Sent] = []
        """What was confirmed, in the order of the confirmations."""
        self.failures: list[str] = []
        self.finished = False
        """Whether its thread came to its end in good order."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send nothing more, and wait until all that was sent is confirmed."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number, due = 0, time.monotonic()
        while not self._stop.is_set():
            self._producer.poll(_TURN_SECONDS)
            now = time.monotonic()
            if self._held_back():
                due = now + 1.0 / self._per_second
            while due <= now:
                due += 1.0 / self._per_second
                recipe = next(self._recipes)
                if recipe.patience_seconds <= self._seconds_left():
                    self._send(recipe, number)
                    number += 1
        if unconfirmed := self._producer.flush(_FLUSH_SECONDS):
            self.failures.append(f"{unconfirmed} were not confirmed within {_FLUSH_SECONDS:g} s")
        self.finished = True

    def _send(self, recipe: Recipe, number: int) -> None:
        at = time.monotonic()
        slow = recipe.patience_seconds > 0

        def confirmed(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None or partition is None or offset is None:
                self.failures.append(str(error))
            else:
                self.sent.append(Sent(partition, offset, recipe.name, at))

        self._producer.produce(
            self._topic,
            recipe.message(number),
            partition=self._partitions - 1 if slow else number % self._partitions,
            headers=_headers(recipe),
            on_delivery=confirmed,
        )


def _producer(bootstrap: str) -> Producer:
    # Idempotent, and with patience: what it was asked to send lies in the topic once.
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "message.timeout.ms": 600_000,
            "linger.ms": 2,
            "log_level": 0,
        }
    )


def _headers(recipe: Recipe) -> list[tuple[str, str | bytes | None]]:
    return [(RECIPE_HEADER, recipe.name.encode())]
