"""Dead letters sent again: their events go back to the source topic, with a mark, once each.

What was sent is noted in a topic of its own, in the same transaction as the event. So a letter is not sent a
second time by an oversight, and one whose event fails again does not go round in circles
(docs/adr/0016-replays.md).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from consumer.connection import KafkaConnection
from consumer.errors import BrokerAway, MessageTooLarge, ProducerFenced, StreamSetupError, VaultMLError
from consumer.kafka_fields import TopicSettings
from consumer.letters import mark_of, read_marks
from consumer.messages import OutgoingMessage
from consumer.past import Past
from consumer.provision import ensure_topic
from consumer.resend_plan import Sending
from consumer.sink import ResultSink
from consumer.transactional_producer import Batch, NotWritten, TransactionalProducer

BATCH_LETTERS = 500
BATCH_BYTES = 16 * 1024**2
"""Of events in one transaction, or of one that is larger."""
LARGEST_EVENT_BYTES = 100 * 1024**2
"""Whether a topic takes an event is for its own limit to say: it took that event before."""

_WRITE_SECONDS = 60.0
_SLICE_SECONDS = 0.2
_TRIES = 3


def notes_topic(letters_topic: str) -> str:
    """Return the topic that says which letters were sent again."""
    return f"{letters_topic}.replayed"


def topics_written(settings: TopicSettings) -> dict[str, str]:
    """Return the topics that pods and these commands write to, with how they are called in a sentence."""
    called = {
        settings.queue_target: "QUEUE_TARGET",
        settings.queue_dead_letter: "QUEUE_DEAD_LETTER",
        notes_topic(settings.queue_dead_letter): "the notes beside QUEUE_DEAD_LETTER",
        settings.queue_comparison: "QUEUE_COMPARISON",
    }
    return {topic: name for topic, name in called.items() if topic is not None}


@dataclass(frozen=True)
class Sent:
    """How many events were sent so far, and how many letters somebody else had sent in the meantime.

    too_large: those of the last batch that their topic does not take.
    """

    done: int
    by_others: int
    too_large: tuple[Sending, ...] = ()


def check(sendings: Sequence[Sending], connection: KafkaConnection, written: Mapping[str, str]) -> None:
    """See to it that what is planned can be sent, before anybody is asked whether to.

    Args:
        sendings: of a plan.
        connection: to the brokers.
        written: topics that hold no events, as `topics_written` gives them.

    Raises:
        StreamSetupError: a topic is missing, not for us, or one that holds no events.
        BrokerAway: no broker answers.
    """
    for topic in sorted({each.topic for each in sendings}):
        if topic in written:
            raise StreamSetupError(
                f"Events cannot be sent to {topic!r}, which is {written[topic]}: give another topic."
            )
        with Past(connection, topic) as past:
            if not past.stretches():
                raise StreamSetupError(
                    f"Topic {topic!r} does not exist: create it, or give another with --topic-to."
                )
        ensure_topic(connection, topic, like=1)  # it is there: whether we may write to it


def send(
    sendings: Sequence[Sending],
    connection: KafkaConnection,
    letters_topic: str,
    transactional_id: str | None,
) -> Iterator[Sent]:
    """Send events again and note it; yields how many are done, batch after batch.

    The notes are read once more at the beginning: while somebody looked at the plan, another may have sent
    some of it. Nobody can in between, as who takes the transactional id later ends our sending.

    Args:
        sendings: of a plan that was checked.
        connection: to the brokers.
        letters_topic: QUEUE_DEAD_LETTER.
        transactional_id: None for at-least-once: the note follows the event, and a crash between them lets
            the event be sent once more, as do two who send at the same moment.

    Raises:
        StreamSetupError: a topic is missing or not for us, or somebody else sends letters again now.
        BrokerAway: Kafka did not take them in time. What was not yielded was not sent, or not noted.
    """
    notes = notes_topic(letters_topic)
    ensure_topic(connection, notes, like=1)
    write: _Transacted | _Confirmed
    if transactional_id is None:
        write = _Confirmed(connection, notes)
    else:
        write = _Transacted(connection, notes, transactional_id)
    try:
        with Past(connection, notes) as past:
            marks = read_marks(past)
        due = [each for each in sendings if mark_of(each.letter, marks) == each.noted]
        done, by_others = 0, len(sendings) - len(due)
        if not due:
            yield Sent(done, by_others)
        for batch in _batches(due):
            too_large = write(batch)
            done += len(batch) - len(too_large)
            yield Sent(done, by_others, tuple(too_large))
    finally:
        write.close()


def _batches(sendings: Iterable[Sending]) -> Iterator[list[Sending]]:
    """Yield them by so many letters or bytes as a transaction takes in its time."""
    batch: list[Sending] = []
    size_bytes = 0
    for each in sendings:
        if batch and (len(batch) == BATCH_LETTERS or size_bytes + len(each.event) > BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(each)
        size_bytes += len(each.event)
    if batch:
        yield batch


def _event(sending: Sending) -> tuple[str, OutgoingMessage]:
    key = (sending.letter.id or "").encode()
    return sending.topic, OutgoingMessage(key, sending.event, [sending.mark.to_header()])


def _notes(sending: Sending, topic: str) -> Iterator[tuple[str, OutgoingMessage]]:
    for position in (*sending.older, sending.letter.position):
        yield topic, OutgoingMessage(position.encode(), sending.mark.to_json().encode(), [])


class _Transacted:
    """Events and notes of a batch in one transaction; who begins ends the one of anybody else."""

    def __init__(self, connection: KafkaConnection, notes: str, transactional_id: str) -> None:
        self._notes = notes
        self._producer = TransactionalProducer(
            connection, transactional_id=transactional_id, max_message_bytes=LARGEST_EVENT_BYTES
        )
        self._producer.begin()

    def __call__(self, batch: Sequence[Sending]) -> list[Sending]:
        """Write a batch; returns what its topic does not take, which keeps back nothing else."""
        events = [_event(each) for each in batch]
        messages = (*events, *(note for each in batch for note in _notes(each, self._notes)))
        fate, tries = self._write(messages), 1
        while fate is not None and not (fate.nowhere or fate.too_large) and tries < _TRIES:
            # Nothing says what is at fault: it may be what the transaction before has left behind.
            fate, tries = self._write(messages), tries + 1
        if fate is None:
            return []
        if fate.nowhere:
            raise _refused(fate, messages)
        if len(batch) > 1:
            # The topic's limit holds for what travels together: fewer do, until the one at fault is alone.
            half = len(batch) // 2
            return self(batch[:half]) + self(batch[half:])
        if 0 in fate.too_large:
            return list(batch)
        raise _refused(fate, messages)

    def _write(self, messages: tuple[tuple[str, OutgoingMessage], ...]) -> NotWritten | None:
        """Write one transaction; returns why it came to nothing, or None."""
        self._producer.write(Batch(messages=messages, offsets=(), group=None))
        fate = self._producer.take(_WRITE_SECONDS)
        if isinstance(fate, ProducerFenced):
            raise StreamSetupError(
                "Somebody else sends dead letters again at this moment, and took over: look what is left "
                "with 'vault-ml dead-letter list'."
            ) from fate
        if isinstance(fate, StreamSetupError):
            raise fate
        if fate is None:
            raise BrokerAway("Kafka did not take the events in time: look what is left, and try again.")
        return fate if isinstance(fate, NotWritten) else None

    def close(self) -> None:
        self._producer.close()


def _refused(fate: NotWritten, messages: Sequence[tuple[str, OutgoingMessage]]) -> VaultMLError:
    if fate.nowhere:
        topics = ", ".join(sorted({repr(messages[index][0]) for index in fate.nowhere}))
        return StreamSetupError(
            f"Kafka does not let us write to {topics} ({fate.why}); grant WRITE and DESCRIBE. None of this "
            "batch was sent."
        )
    return BrokerAway(f"Kafka did not take the events ({fate.why}); none of this batch was sent.")


class _Confirmed:
    """Events first, then their notes, each confirmed."""

    def __init__(self, connection: KafkaConnection, notes: str) -> None:
        self._notes = notes
        self._sink = ResultSink(connection, max_message_bytes=LARGEST_EVENT_BYTES)

    def __call__(self, batch: Sequence[Sending]) -> list[Sending]:
        """Write a batch; returns what its topic does not take, which keeps back nothing else."""
        suspects = [batch[index] for index in self._send([_event(each) for each in batch])]
        # The topic's limit holds for what travels together: of several, the small ones are taken alone.
        too_large = [each for each in suspects if self._send([_event(each)])]
        sent = [each for each in batch if each not in too_large]
        if refused := self._send([note for each in sent for note in _notes(each, self._notes)]):
            raise next(iter(refused.values()))
        return too_large

    def _send(self, messages: Sequence[tuple[str, OutgoingMessage]]) -> dict[int, MessageTooLarge]:
        """Send messages until each is confirmed; returns those that their topic does not take, by index."""
        refused: dict[int, MessageTooLarge] = {}
        failures: list[VaultMLError] = []
        confirmed = 0

        def delivered(index: int, failure: VaultMLError | None) -> None:
            nonlocal confirmed
            confirmed += 1
            if isinstance(failure, MessageTooLarge):
                refused[index] = failure
            elif failure is not None:
                failures.append(failure)

        for index, (topic, message) in enumerate(messages):
            self._sink.send(topic, message, partial(delivered, index))
        deadline = time.monotonic() + _WRITE_SECONDS
        while confirmed < len(messages) and time.monotonic() < deadline:
            self._sink.poll(_SLICE_SECONDS)
        if failures:
            raise failures[0]
        if confirmed < len(messages):
            raise BrokerAway("Kafka did not confirm the events in time: look what is left, and try again.")
        return refused

    def close(self) -> None:
        """Nothing is held."""
