"""Dead letters sent again: their events go back to the source topic, with a mark, once each.

What was sent is noted in a topic of its own, in the same transaction as the event. So a letter is not sent a
second time by an oversight, and one whose event fails again does not go round in circles
(docs/adr/0016-replays.md).
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from consumer.connection import KafkaConnection
from consumer.credentials import MASK, is_secret_name
from consumer.dead_letter import SERVICE
from consumer.errors import BrokerAway, ProducerFenced, StreamSetupError, VaultMLError
from consumer.events import RecordingEvent, parse_message
from consumer.letters import Letter
from consumer.messages import OutgoingMessage
from consumer.moments import in_words
from consumer.past import Past
from consumer.provision import ensure_topic
from consumer.replay_mark import ReplayMark
from consumer.results import to_utf8
from consumer.sink import ResultSink
from consumer.transactional_producer import Batch, NotWritten, TransactionalProducer

BATCH_LETTERS = 500
LARGEST_EVENT_BYTES = 100 * 1024**2
"""Whether a topic takes an event is for its own limit to say: it took that event before."""

_WRITE_SECONDS = 60.0
_SLICE_SECONDS = 0.2


def notes_topic(letters_topic: str) -> str:
    """Return the topic that says which letters were sent again."""
    return f"{letters_topic}.replayed"


@dataclass(frozen=True)
class Sending:
    """One event to be sent again.

    older: positions of older letters of the same recording, which are done with it too.
    """

    letter: Letter
    topic: str
    event: bytes = field(repr=False)
    mark: ReplayMark
    older: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is sent, oldest first, and which letters are not, each with a sentence that says why."""

    sendings: tuple[Sending, ...]
    left_out: tuple[tuple[Letter, str], ...]


def plan(
    letters: Iterable[Letter],
    marks: Mapping[str, ReplayMark],
    *,
    topic: str | None = None,
    again: bool = False,
    now: datetime,
) -> Plan:
    """Decide which letters are sent again, and as what.

    Args:
        letters: that were chosen; of several of one recording the newest is sent.
        marks: of letters that were sent before, by position.
        topic: where to; None for the topic that each letter names.
        again: also those that were sent before, or whose event was.
        now: the time that the marks say.
    """
    sendings: dict[str, Sending] = {}
    left_out = []
    for letter in sorted(letters, key=attrgetter("age")):
        event = event_again(letter)
        reason = _why_not(letter, marks.get(letter.position), event, topic=topic, again=again)
        if reason is not None:
            left_out.append((letter, reason))
            continue
        sent = marks.get(letter.position)
        count = max(letter.replays, 0 if sent is None else sent.count) + 1
        mark = ReplayMark("dead-letter", letter.id or letter.position, count, in_words(now))
        identity = letter.id or letter.position
        before = sendings.pop(identity, None)
        older = (*before.older, before.letter.position) if before else ()
        sendings[identity] = Sending(letter, topic or letter.destination, event or b"", mark, older)
    return Plan(tuple(sendings.values()), tuple(left_out))


def event_again(letter: Letter) -> bytes | None:
    """Return the event of a letter as it can be sent; None where what is masked in it cannot be taken out.

    Credentials that were masked are left out: the consumer asks Vault with its own keys. Nothing else is
    touched; an event without masks goes back byte for byte.
    """
    masked = MASK.encode() in letter.payload
    if not masked and _key_of(letter.payload) in ("", letter.key):
        return letter.payload
    try:
        event = json.loads(letter.payload)
    except (ValueError, RecursionError):
        return None
    event = _without_masks(event)
    inner = event.get("message") if isinstance(event, dict) and "payload" not in event else event
    about = inner.get("payload") if isinstance(inner, dict) else None
    if not isinstance(about, dict):
        return None
    if letter.key:
        about["key"] = letter.key  # masking takes `token=…` in a recording's name for a credential
    return to_utf8(event)


def send(
    sendings: Sequence[Sending],
    connection: KafkaConnection,
    letters_topic: str,
    transactional_id: str | None,
) -> Iterator[int]:
    """Send events again and note it; yields how many are done, batch after batch.

    Args:
        sendings: of a plan.
        connection: to the brokers.
        letters_topic: QUEUE_DEAD_LETTER.
        transactional_id: None for at-least-once: the note follows the event, and a crash between them lets
            the event be sent once more.

    Raises:
        StreamSetupError: a topic is missing or not for us, or somebody else sends letters again now.
        BrokerAway: Kafka did not take them in time. What was not yielded was not sent, or not noted.
    """
    for topic in sorted({each.topic for each in sendings}):
        _check(connection, topic, letters_topic)
    notes = notes_topic(letters_topic)
    ensure_topic(connection, notes, like=1)
    write = _Confirmed(connection) if transactional_id is None else _Transacted(connection, transactional_id)
    try:
        done = 0
        for _, numbered in groupby(enumerate(sendings), lambda each: each[0] // BATCH_LETTERS):
            batch = [sending for _, sending in numbered]
            write(
                [(each.topic, _event(each)) for each in batch], [(notes, n) for s in batch for n in _notes(s)]
            )
            done += len(batch)
            yield done
    finally:
        write.close()


def _why_not(
    letter: Letter, sent: ReplayMark | None, event: bytes | None, *, topic: str | None, again: bool
) -> str | None:
    """Return why a letter is not sent, for the end of a sentence; None where it is."""
    writer, times = letter.service or "another service", f"{letter.replays} time(s)"
    obstacles = [
        (letter.service != SERVICE and topic is None, f"{writer} wrote it: use the tools of that one"),
        (not (topic or letter.destination), "it does not say where it came from: add --topic-to"),
        (not letter.whole, f"its event is not whole ({letter.left_out}): have its sender send it once more"),
        (not letter.payload, "it holds no event"),
        (event is None, "credentials in it are masked, and it is no event as JSON: ask its sender for it"),
        (
            sent is not None and not again,
            f"it was sent again at {sent and sent.at}: add --again to repeat it",
        ),
        (letter.replays > 0 and not again, f"it was sent again {times} and failed: mend that, add --again"),
    ]
    return next((sentence for stands, sentence in obstacles if stands), None)


def _key_of(payload: bytes) -> str:
    events = parse_message(payload)
    return events[0].key if len(events) == 1 and isinstance(events[0], RecordingEvent) else ""


def _without_masks(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, dict):
        return {
            name: _without_masks(item)
            for name, item in value.items()
            if not _is_masked(item) and not (is_secret_name(name) and MASK in str(item))
        }
    if isinstance(value, list):
        return [_without_masks(item) for item in value if not _is_masked(item)]
    return value


def _is_masked(value: object) -> bool:
    return isinstance(value, str) and (value == MASK or (MASK in value and "://" in value))


def _event(sending: Sending) -> OutgoingMessage:
    return OutgoingMessage((sending.letter.id or "").encode(), sending.event, [sending.mark.to_header()])


def _notes(sending: Sending) -> Iterator[OutgoingMessage]:
    for position in (*sending.older, sending.letter.position):
        yield OutgoingMessage(position.encode(), sending.mark.to_json().encode(), [])


def _check(connection: KafkaConnection, topic: str, letters_topic: str) -> None:
    if topic in (letters_topic, notes_topic(letters_topic)):
        raise StreamSetupError(
            f"Events cannot be sent to {topic!r}, which holds dead letters: give another topic."
        )
    with Past(connection, topic) as past:
        if not past.stretches():
            raise StreamSetupError(
                f"Topic {topic!r} does not exist: create it, or give another with --topic-to."
            )


class _Transacted:
    """Events and notes of a batch in one transaction; who begins ends the one of anybody else."""

    def __init__(self, connection: KafkaConnection, transactional_id: str) -> None:
        self._producer = TransactionalProducer(
            connection, transactional_id=transactional_id, max_message_bytes=LARGEST_EVENT_BYTES
        )
        self._producer.begin()

    def __call__(self, *parts: Sequence[tuple[str, OutgoingMessage]]) -> None:
        self._producer.write(
            Batch(messages=tuple(each for part in parts for each in part), offsets=(), group=None)
        )
        fate = self._producer.take(_WRITE_SECONDS)
        if isinstance(fate, ProducerFenced):
            raise StreamSetupError(
                "Somebody else sends dead letters again at this moment, and took over: look what is left "
                "with 'vault-ml dead-letter list'."
            ) from fate
        if fate is None:
            raise BrokerAway("Kafka did not take the events in time: look what is left, and try again.")
        if isinstance(fate, NotWritten):
            raise BrokerAway(f"Kafka did not take the events ({fate.why}); none of this batch was sent.")

    def close(self) -> None:
        self._producer.close()


class _Confirmed:
    """Events first, then their notes, each confirmed."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._sink = ResultSink(connection, max_message_bytes=LARGEST_EVENT_BYTES)

    def __call__(self, *parts: Sequence[tuple[str, OutgoingMessage]]) -> None:
        for part in parts:
            failures: list[VaultMLError] = []
            confirmed = 0

            def delivered(failure: VaultMLError | None) -> None:
                nonlocal confirmed
                confirmed += 1
                if failure is not None:
                    failures.append(failure)  # noqa: B023  # all are confirmed before the next part begins

            for topic, message in part:
                self._sink.send(topic, message, delivered)
            deadline = time.monotonic() + _WRITE_SECONDS
            while confirmed < len(part) and time.monotonic() < deadline:
                self._sink.poll(_SLICE_SECONDS)
            if failures:
                raise failures[0]
            if confirmed < len(part):
                raise BrokerAway(
                    "Kafka did not confirm the events in time: look what is left, and try again."
                )

    def close(self) -> None:
        """Nothing is held."""
