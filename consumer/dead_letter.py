"""Dead letters: a message that could not become a result, kept so that it can be read and sent again.

The envelope is the ecosystem's own, `uug.ai/dead-letter/v1` (github.com/uug-ai/queue, pkg/queue/
deadletter.go): its tools list these topics and send the payloads back to `replayDestination`.
An example: docs/messages.md.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Literal

from consumer import __version__
from consumer.credentials import mask_payload
from consumer.errors import BrokerAway, EventMalformed, MessageTooLarge, RecordingError, VaultMLError
from consumer.events import RecordingEvent, parse_message
from consumer.messages import OutgoingMessage, Position
from consumer.moments import in_words
from consumer.replay_mark import ReplayMark
from consumer.results import RECORD_OVERHEAD_BYTES, Header, readme_event, result_id, to_utf8
from consumer.secret_fields import mask_identifier

SCHEMA = "uug.ai/dead-letter/v1"
SERVICE = "vault-ml"
REASON_HEADER = "vault-ml-reason"

EnvelopeReason = Literal["unspecified", "malformed", "handler_error", "retry_exhausted", "publish_failed"]

REDUCED = "reduced to what names the recording"
"""The attribute `payload` of a letter whose payload is not the whole event, and can be sent again."""

LARGEST_PAYLOAD_BYTES = 1024 * 1024
"""Of a letter, however much its topic takes: a megabyte made to be slow is masked in half a second."""

_CUT_CREDENTIAL_BYTES = 1024
"""Left out at a cut, as half a credential is not known for one; those without a name in front are short."""

_SENTENCE_BYTES = 1000
_CAMERA_BYTES = 128
_CUT_KEY_BYTES = 256
"""Of a recording's key, in a letter that is as small as can be."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_EVENT_SECONDS = re.compile(r"[0-9]{1,11}")


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
    replay: ReplayMark | None = None,
    timestamp: datetime | None = None,
) -> OutgoingMessage:
    """Return the dead letter of one event, not larger than `max_bytes`, with its credentials masked.

    A payload that is too large is reduced to what names the recording, which is enough to send it again; one
    that is no recording event is cut off, before it is masked, so that its size costs nothing. Where there is
    no room for that either, it is left out, and a long key is cut. The attribute `payload` then says so.

    Args:
        payload: the event alone: the message, or its entry in a list.
        error: why; its reason and sentence become attributes.
        position: where the event stood.
        destination: the dead-letter topic.
        attempts: how often it was tried.
        exhausted: the error might have healed, and did not in time.
        max_bytes: of the dead-letter topic; 0 for a letter without its payload, as small as can be.
        secrets: values of our own settings, masked wherever they stand.
        replay: the mark of an event that had been sent again.
        timestamp: now, unless given; with a time zone.
    """
    event = next((entry for entry in parse_message(payload) if isinstance(entry, RecordingEvent)), None)
    key = identity(event, position)
    headers = {
        Header.ID: key,
        Header.SOURCE: str(position),
        Header.OUTCOME: "dead-letter",
        REASON_HEADER: error.reason,
    }
    attributes = {
        "reason": error.reason,
        "sentence": _line(str(error), _SENTENCE_BYTES, secrets),
        "position": str(position),
        "version": __version__,
    }
    if event is not None and event.key:
        attributes |= of_event(event, secrets)
    if replay is not None:
        headers[Header.REPLAY] = replay.to_json()
        attributes["replay"] = str(replay.count)
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
            "timestamp": in_words(timestamp or datetime.now(UTC)),
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
    if room == 0 and "key" in attributes:
        attributes["key"] = attributes["key"].encode()[:_CUT_KEY_BYTES].decode("utf-8", "ignore")
    masked, note = _fitting(event, payload, min(room, LARGEST_PAYLOAD_BYTES), secrets)
    if note:
        attributes.setdefault("payload", note)
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


def identity(event: RecordingEvent | None, position: Position) -> str:
    """Return a letter's id: one for all letters of a recording; what is no event is known by its place."""
    if event is not None:
        return result_id(event, "", position)
    return hashlib.sha256(str(position).encode()).hexdigest()


def of_event(event: RecordingEvent, secrets: Collection[str]) -> dict[str, str]:
    """Return the attributes that name the recording, so that nobody need decode payloads to choose."""
    told = {
        "key": mask_identifier(event.key, secrets),
        "provider": mask_identifier(event.source, secrets),
    }
    if told["key"] != event.key:
        told["payload"] = "the recording's key held a secret, which is masked"
    if event.camera:
        told["camera"] = _one_line(mask_identifier(event.camera, secrets), _CAMERA_BYTES)
    recorded_at = _recorded_at(event)
    if recorded_at is not None:
        told["recorded"] = in_words(recorded_at)
    return told


def _recorded_at(event: RecordingEvent) -> datetime | None:
    """Return when the recording began, as the event says: `event-timestamp`, or else its `date`."""
    payload = event.raw.get("payload")
    metadata = payload.get("metadata") if isinstance(payload, Mapping) else None
    told = metadata.get("event-timestamp") if isinstance(metadata, Mapping) else None
    for seconds in (told, event.raw.get("date")):
        if isinstance(seconds, str | int) and _EVENT_SECONDS.fullmatch(str(seconds)[:20]):
            return datetime.fromtimestamp(int(seconds), UTC)
    return None


def _line(text: str, most_bytes: int, secrets: Collection[str]) -> str:
    """Return a text as one line without secrets, not longer than that in UTF-8."""
    masked = mask_payload(text.encode("utf-8", "backslashreplace"), secrets)
    return _one_line(masked.decode("utf-8", "replace"), most_bytes)


def _one_line(text: str, most_bytes: int) -> str:
    return _CONTROL.sub(" ", text).encode()[:most_bytes].decode("utf-8", "ignore")


def _fitting(
    event: RecordingEvent | None, payload: bytes, room: int, secrets: Collection[str]
) -> tuple[bytes, str]:
    """Return a payload, masked, as far as there is room for it; and what was left out, if anything was."""
    if len(payload) <= room:
        masked = mask_payload(payload, secrets)
        if len(masked) <= room:
            return masked, ""
    if event is not None:
        reduced = mask_payload(to_utf8(readme_event(event)), secrets)
        if len(reduced) <= room:
            return reduced, REDUCED
    if room <= _CUT_CREDENTIAL_BYTES:
        return b"", f"its {len(payload)} bytes were left out"
    beginning = mask_payload(payload[:room], secrets)[:room][:-_CUT_CREDENTIAL_BYTES]
    return beginning, f"cut off after {len(beginning)} of {len(payload)} bytes"
