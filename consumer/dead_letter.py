"""Dead letters: a message that could not become a result, kept so that it can be read and sent again.

The envelope is the ecosystem's own, `uug.ai/dead-letter/v1` (github.com/uug-ai/queue, pkg/queue/
deadletter.go): its tools list these topics and send the payloads back to `replayDestination`.
An example: docs/messages.md.
"""

import base64
import hashlib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from consumer import __version__
from consumer.credentials import mask_payload
from consumer.errors import BrokerAway, EventMalformed, MessageTooLarge, RecordingError, VaultMLError
from consumer.events import RecordingEvent, parse_message
from consumer.messages import OutgoingMessage, Position
from consumer.results import RECORD_OVERHEAD_BYTES, Header, readme_event, result_id, to_utf8

SCHEMA = "uug.ai/dead-letter/v1"
SERVICE = "vault-ml"
REASON_HEADER = "vault-ml-reason"

EnvelopeReason = Literal["unspecified", "malformed", "handler_error", "retry_exhausted", "publish_failed"]

_SENTENCE_BYTES = 1000


def build_dead_letter(
    payload: bytes,
    error: VaultMLError,
    position: Position,
    *,
    destination: str,
    attempts: int,
    exhausted: bool = False,
    max_bytes: int,
    secrets: Collection[str] = (),
    timestamp: datetime | None = None,
) -> OutgoingMessage:
    """Return the dead letter of one event, not larger than `max_bytes`, with its credentials masked.

    A payload that is too large is reduced to what names the recording, which is enough to send it again; one
    that is no recording event is cut off. The attribute `payload` then says so.

    Args:
        payload: the event alone: the message, or its entry in a list.
        error: why; its reason and sentence become attributes.
        position: where the event stood.
        destination: the dead-letter topic.
        attempts: how often it was tried.
        exhausted: the error might have healed, and did not in time.
        max_bytes: of the dead-letter topic.
        secrets: values of our own settings, masked wherever they stand.
        timestamp: now, unless given; with a time zone.
    """
    event = next((entry for entry in parse_message(payload) if isinstance(entry, RecordingEvent)), None)
    key = _identity(event, position)
    headers = {
        Header.ID: key,
        Header.SOURCE: str(position),
        Header.OUTCOME: "dead-letter",
        REASON_HEADER: error.reason,
    }
    sentence = mask_payload(str(error).encode("utf-8", "backslashreplace"), secrets)
    attributes = {
        "reason": error.reason,
        "sentence": sentence[:_SENTENCE_BYTES].decode("utf-8", "ignore"),
        "position": str(position),
        "version": __version__,
    }
    if event is not None and event.key:
        attributes |= {"key": event.key, "provider": event.source}
    envelope = {
        "schema": SCHEMA,
        "payload": "",
        "deadLetter": {
            "source": position.topic,
            "destination": destination,
            "replayDestination": position.topic,
            "service": SERVICE,
            "reason": envelope_reason(error, exhausted=exhausted),
            "attempts": attempts,
            "timestamp": (timestamp or datetime.now(UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "attributes": attributes,
        },
    }
    empty = OutgoingMessage(
        key=key.encode(),
        value=to_utf8(envelope),
        headers=[(name, text.encode()) for name, text in headers.items()],
    )
    # 64 bytes for the attribute that says what was left out; base64 makes four bytes of three.
    room = max(0, max_bytes - RECORD_OVERHEAD_BYTES - empty.size_bytes - 64) // 4 * 3
    masked = mask_payload(payload, secrets)
    if len(masked) > room:
        masked, attributes["payload"] = _fitting(masked, event, room)
    envelope["payload"] = base64.b64encode(masked).decode()
    return OutgoingMessage(empty.key, to_utf8(envelope), empty.headers)


def envelope_reason(error: VaultMLError, *, exhausted: bool = False) -> EnvelopeReason:
    """Return the word that the envelope has for an error; our own finer one is among the attributes."""
    if exhausted:
        return "retry_exhausted"
    match error:
        case EventMalformed():
            return "malformed"
        case BrokerAway() | MessageTooLarge():
            return "publish_failed"
        case RecordingError():
            return "handler_error"
    return "unspecified"


def _identity(event: RecordingEvent | None, position: Position) -> str:
    if event is not None:
        return result_id(event, "", position)
    return hashlib.sha256(str(position).encode()).hexdigest()


def _fitting(masked: bytes, event: RecordingEvent | None, room: int) -> tuple[bytes, str]:
    if event is not None:
        reduced = to_utf8(readme_event(event))
        if len(reduced) <= room:
            return reduced, "reduced to what names the recording"
    return masked[:room], f"cut off after {room} of {len(masked)} bytes"
