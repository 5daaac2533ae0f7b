"""The event in a dead letter: read as JSON, and as it can be sent again, without the masks in it."""

import json
from typing import Any, NoReturn

from consumer.events import MAX_DEPTH, RecordingEvent, parse_message
from consumer.letters import DeadLetter
from consumer.results import to_utf8
from consumer.secret_names import MASK, is_secret_name


def parse_json(payload: bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Return the JSON value of an event.

    Raises:
        ValueError: it is none, or has numbers that JSON does not know (`NaN`), or is nested deeper than any
            event may be: what walks through it would not come back.
    """
    try:
        value = json.loads(payload, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    inner, levels = [value], 0
    while inner := [each for each in inner if isinstance(each, dict | list)]:
        levels += 1
        if levels > MAX_DEPTH:
            raise ValueError("nested too deep")
        inner = [child for each in inner for child in (each.values() if isinstance(each, dict) else each)]
    return value


def event_again(letter: DeadLetter) -> bytes | None:
    """Return the event of a letter as it can be sent; None where what is masked in it cannot be taken out.

    Credentials that were masked are left out: the consumer asks Vault with its own keys. Nothing else is
    touched; an event without masks goes back byte for byte.
    """
    masked = MASK.encode() in letter.payload
    if not masked and _key_of(letter.payload) in ("", letter.key):
        return letter.payload
    try:
        event = _without_masks(parse_json(letter.payload))
    except ValueError:
        return None
    inner = event.get("message") if isinstance(event, dict) and "payload" not in event else event
    about = inner.get("payload") if isinstance(inner, dict) else None
    if not isinstance(about, dict):
        return None
    if letter.key:
        about["key"] = letter.key  # which is gone from the event where a link in it was masked
    return to_utf8(event)


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


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
