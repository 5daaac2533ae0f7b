"""Events of dead letters that do not hold them whole, read once more from the topic that they came from."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property

from consumer.credentials import mask_payload
from consumer.dead_letter import SERVICE, identity, of_event
from consumer.events import RecordingEvent, parse_message
from consumer.letters import DeadLetter
from consumer.messages import Position
from consumer.past import Past, Stretch


class SourceEvents:
    """What the source topic still holds of events that letters do not hold whole.

    Args:
        source: of QUEUE_NAME. Letters of events from elsewhere are not followed: whoever may write to the
            topic of letters could have any topic read that way.
        secrets: values of our own settings.
    """

    def __init__(self, source: Past, secrets: Collection[str] = ()) -> None:
        self._source, self._secrets = source, secrets

    @cached_property
    def _stretches(self) -> Mapping[int, Stretch]:
        return {each.partition: each for each in self._source.stretches()}

    def may_hold(self, letter: DeadLetter) -> bool:
        """Tell, without reading it, whether the topic still has a message where a letter's event stood.

        Raises:
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        position = letter.stood_at
        if letter.service != SERVICE or position is None or position.topic != self._source.topic:
            return False
        kept = self._stretches.get(position.partition)
        return kept is not None and kept.begin <= position.offset < kept.end

    def made_whole(self, letter: DeadLetter) -> DeadLetter:
        """Return a letter that is not whole with the event that the topic still holds.

        Where it does not, `left_out` says so too. Credentials are masked as in any letter.

        Raises:
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        position = letter.stood_at
        if letter.whole or letter.service != SERVICE or position is None:
            return letter
        if position.topic != self._source.topic:
            return _not_found(letter, f"and it came from topic {position.topic!r}, which is not QUEUE_NAME")
        value = self._message_at(position) if self.may_hold(letter) else None
        if value is None:
            return _not_found(letter, f"and topic {position.topic!r} holds {position} no longer")
        entries = parse_message(value)
        event = next((each for each in entries if each.index == position.index), None)
        if not isinstance(event, RecordingEvent) or identity(event, position) != letter.id:
            return _not_found(letter, f"and at {position} no such recording's event is found")
        told = of_event(event, self._secrets)
        # An event out of a list comes alone, as in any letter.
        payload = mask_payload(value if len(entries) == 1 else json.dumps(event.raw).encode(), self._secrets)
        return replace(letter, payload=payload, key=told["key"], left_out=told.get("payload", ""))

    def _message_at(self, position: Position) -> bytes | None:
        """Return the value of a message; None where the topic does not hold it any more."""
        wanted = Stretch.of_one(position.partition, position.offset)
        values = [
            each.record.value for each in self._source.read([wanted]) if each.record.offset == position.offset
        ]
        return values[0] if values else None


def _not_found(letter: DeadLetter, why: str) -> DeadLetter:
    return replace(letter, left_out=f"{letter.left_out}, {why}")
