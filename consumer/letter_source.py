"""Events of dead letters that do not hold them whole, read once more from the topic that they came from."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from consumer.credentials import mask_payload
from consumer.dead_letter import SERVICE, identity, of_event
from consumer.events import RecordingEvent, parse_message
from consumer.letters import Letter
from consumer.messages import Position
from consumer.past import Past, Stretch


def made_whole(letters: Sequence[Letter], source: Past, secrets: Collection[str] = ()) -> list[Letter]:
    """Return the letters, those that are not whole with the event that their source topic still holds.

    Where it does not, `left_out` says so too. Credentials are masked as in any letter.

    Args:
        letters: of which ours alone are completed.
        source: of QUEUE_NAME. Letters of events from elsewhere are not followed: whoever may write to the
            topic of letters could have any topic read that way.
        secrets: values of our own settings.

    Raises:
        StreamSetupError, BrokerAway: see `Past.read`.
    """
    stretches = {each.partition: each for each in source.stretches()}
    return [
        letter
        if letter.whole or letter.service != SERVICE or letter.stood_at is None
        else _made_whole(letter, letter.stood_at, source, stretches, secrets)
        for letter in letters
    ]


def _made_whole(
    letter: Letter,
    position: Position,
    source: Past,
    stretches: Mapping[int, Stretch],
    secrets: Collection[str],
) -> Letter:
    if position.topic != source.topic:
        return _not_found(letter, f"and it came from topic {position.topic!r}, which is not QUEUE_NAME")
    value = _message_at(position, source, stretches)
    if value is None:
        return _not_found(letter, f"and topic {position.topic!r} holds {position} no longer")
    entries = parse_message(value)
    event = next((each for each in entries if each.index == position.index), None)
    if not isinstance(event, RecordingEvent) or identity(event, position) != letter.id:
        return _not_found(letter, f"and at {position} no such recording's event is found")
    told = of_event(event, secrets)
    # An event out of a list comes alone, as in any letter.
    payload = value if len(entries) == 1 else json.dumps(event.raw).encode()
    return replace(
        letter, payload=mask_payload(payload, secrets), key=told["key"], left_out=told.get("payload", "")
    )


def _not_found(letter: Letter, why: str) -> Letter:
    return replace(letter, left_out=f"{letter.left_out}, {why}")


def _message_at(position: Position, source: Past, stretches: Mapping[int, Stretch]) -> bytes | None:
    """Return the value of a message; None where the topic does not hold it any more."""
    kept, offset = stretches.get(position.partition), position.offset
    if kept is None or not kept.begin <= offset < kept.end:
        return None
    wanted = Stretch(position.partition, offset, offset + 1, kept.oldest)
    values = [each.record.value for each in source.read([wanted]) if each.record.offset == offset]
    return values[0] if values else None
