"""Intake: from a message of the source topic to the recordings that it tells of."""

import json
from collections.abc import Iterator

from consumer.backlog import InHand
from consumer.errors import NeverHeals
from consumer.events import MalformedEvent, RecordingEvent, count_values, parse_message
from consumer.messages import Position
from consumer.prefetch import SourceMessage
from consumer.replay_mark import ReplayMark

_VALUE_BYTES = 232
"""Of an object with one entry in CPython 3.11, the largest of what one bracket or comma can stand for."""


def recordings_of(message: SourceMessage, now: float) -> Iterator[tuple[InHand, NeverHeals | None]]:
    """Take a message into hand; give its recordings, each with what is wrong with its event, if anything.

    Args:
        message: of the source topic; its progress notes how many outcomes it will have.
        now: on the service's clock.
    """
    progress, entries = message.progress, parse_message(message.value)
    replay = ReplayMark.from_headers(message.headers)
    progress.fetched(message.offset, len(entries))
    for entry in entries:
        position = Position(progress.topic, progress.partition, message.offset, entry.index)
        if isinstance(entry, MalformedEvent):
            nameless = RecordingEvent(raw={}, key="")
            yield InHand(nameless, position, progress, now, entry.payload, replay=replay), entry.error
            continue
        payload = message.value or b""
        if len(entries) > 1:
            payload = json.dumps(entry.raw).encode()  # a dead letter is about this one alone
        size_bytes = 2 * len(payload) + _VALUE_BYTES * count_values(payload)
        yield InHand(entry, position, progress, now, payload, size_bytes, replay=replay), None
