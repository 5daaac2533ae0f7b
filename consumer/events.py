"""The events that Vault puts on Kafka: from the bytes of one message to the recordings it names.

The format and its versions since 2020: docs/messages.md. Only `payload.key` is required.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from consumer.errors import EventMalformed

MAX_BYTES = 4 * 1024 * 1024
"""Of one message; brokers take 1 MB unless somebody raised that, and JSON takes fifty times its size."""
MAX_VALUES = 100_000
"""Commas and brackets of one message: parsed, a few bytes of `{},{},...` take many times their size."""
MAX_ENTRIES = 1000
"""Events in one message; a megabyte of `[0,0,0,...` must not become half a million dead letters."""
MAX_DEPTH = 64
"""Nesting of one event; real ones need six. Python, and what reads our results, recurse."""
MAX_KEY_BYTES = 2048
"""Object stores take names of 1024 characters; the key travels in HTTP headers."""
MAX_SOURCE_BYTES = 255
"""Of the name that somebody gave a storage provider."""

_NOT_VIDEO = re.compile(
    r"""\.(?:
        jpe?g|png|gif|webp|avif|bmp|tiff?|svg|heic|ico | mp3|wav|aac|m4a|og[ga]|opus|flac|wma
      | json|jsonl|ndjson|xml|ya?ml|csv|tsv|txt|log|md|html?|pdf|docx?|xlsx?|parquet
      | m3u8?|mpd|vtt|srt|ass|sub | zip|t?gz|tar|bz2|xz|zst|7z|rar | sha1|sha256|md5|sig|pem|key|crt
      | tmp|part|lock|db|sqlite|bin|onnx|pt
    )$""",
    re.IGNORECASE | re.VERBOSE,
)
"""File names that are known to be something else. An unknown ending is looked at: it may be a video."""

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?P<end>"?)|[\[\]{},]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class RecordingEvent:
    """One recording that was stored, as its event says.

    Args:
        raw: the whole event, unknown names included; may hold credentials, so it is not shown.
        key: the recording's name in the store; empty only when `skip_reason` is `tombstone` or `empty_list`.
        source: the storage provider's name in Vault; may be empty.
        signed_url: a link to the recording, which may have run out; may be empty. A credential, not shown.
        file_size_bytes: what the event claims; not to be trusted.
        camera: `event-instancename`; may be empty.
        skip_reason: why there is nothing to look at: `tombstone`, `empty_list`, `ondemand`, `not_a_video`.
        index: place among the events of one message, from 0.
    """

    raw: Mapping[str, Any] = field(repr=False)
    key: str
    source: str = ""
    signed_url: str = field(default="", repr=False)
    file_size_bytes: int | None = None
    camera: str = ""
    skip_reason: str | None = None
    index: int = 0


@dataclass(frozen=True)
class MalformedEvent:
    """An entry of a message that is no recording event; `payload` is that entry alone."""

    payload: bytes = field(repr=False)
    error: EventMalformed
    index: int = 0


def parse_message(value: bytes | None) -> list[RecordingEvent | MalformedEvent]:
    """Return the events of one Kafka message, each on its own; never empty, never raises.

    A message is one JSON object, or a list of them. One bad entry does not spoil the others.
    """
    if not value:
        return [RecordingEvent(raw={}, key="", skip_reason="tombstone")]
    if len(value) > MAX_BYTES:
        too_large = EventMalformed(f"The message has {len(value)} bytes, and at most {MAX_BYTES} are read.")
        beginning = value[:MAX_BYTES]
        # Cut between two values where there are any: half a credential would not be known for one.
        return [MalformedEvent(payload=beginning.rpartition(b",")[0] or beginning, error=too_large)]
    if (values := count_values(value)) > MAX_VALUES:
        too_many = EventMalformed(f"The message holds {values} values, and at most {MAX_VALUES} are read.")
        return [MalformedEvent(payload=value, error=too_many)]
    try:
        entries = _split(_decoded(value))
    except EventMalformed as error:
        return [MalformedEvent(payload=value, error=error)]
    if not entries:
        return [RecordingEvent(raw={}, key="", skip_reason="empty_list")]
    parsed: list[RecordingEvent | MalformedEvent] = []
    for index, entry in enumerate(entries):
        try:
            parsed.append(_event(_object(entry), index))
        except EventMalformed as error:
            # Alone in its message, an entry goes back as the very bytes that came.
            payload = value if len(entries) == 1 else entry.encode()
            parsed.append(MalformedEvent(payload=payload, error=error, index=index))
    return parsed


def count_values(text: bytes) -> int:
    """Return how many commas and brackets a JSON text has: the objects, lists and strings in it are no more.

    An upper bound in one fast pass; what stands inside a string counts too.
    """
    return sum(text.count(mark) for mark in (b",", b"{", b"["))


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs for `json.loads`; readers differ in which of two values they take.

    Raises:
        EventMalformed: a name stands there twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise EventMalformed(f"The event has the name {twice[:64]!r} twice in one object: say it once.")
    return found


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EventMalformed(
            f"The message is not UTF-8 (byte {error.start}): send a recording event as JSON."
        ) from None


def _split(text: str) -> list[str]:
    """Return the texts of the events: the entries of a list, or the whole; without recursion, in one pass."""
    text = text.strip()
    if not text.startswith("["):
        return [text]
    entries: list[str] = []
    depth, begin = 0, 1
    for token in _TOKEN.finditer(text):
        mark = token.group()[0]
        if mark == '"' and not token["end"]:
            break
        depth += (mark in "[{") - (mark in "]}")
        if (mark == "," and depth == 1) or depth == 0:
            entries.append(text[begin : token.start()].strip())
            begin = token.end()
        if len(entries) > MAX_ENTRIES:
            raise EventMalformed(f"The message is a list of more than {MAX_ENTRIES} events: split it.")
        if depth == 0:
            break
    if depth != 0 or begin != len(text):
        raise EventMalformed("The message is not JSON: it does not end where its list ends.")
    return [] if entries == [""] else entries


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object of one event, or raise EventMalformed with what is wrong about it."""
    if _depth(text) > MAX_DEPTH:
        raise EventMalformed(f"The event is nested deeper than {MAX_DEPTH} levels: send it without.")
    try:
        parsed = json.loads(
            text, object_pairs_hook=unique_names, parse_constant=_no_constant, parse_float=_finite
        )
        json.dumps(parsed, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise EventMalformed(f"The event is not JSON ({error.msg}, character {error.pos}).") from None
    except UnicodeEncodeError:
        raise EventMalformed(
            "The event holds half a character (a lone surrogate): send valid text."
        ) from None
    except ValueError as error:
        # Python refuses to turn thousands of digits into a number, and says so with a bare ValueError.
        raise EventMalformed("The event holds a number with too many digits.") from error
    if not isinstance(parsed, dict):
        kind = type(parsed).__name__
        raise EventMalformed(f"The event is a JSON {kind}, not an object: send a recording event.")
    return parsed


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        mark = token.group()[0]
        depth += (mark in "[{") - (mark in "]}")
        deepest = max(deepest, depth)
    return deepest


def _no_constant(constant: str) -> NoReturn:
    raise EventMalformed(f"The event holds {constant}, which is not JSON: send a number or null.")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise EventMalformed("The event holds a number that is too large.")
    return number


def _event(raw: dict[str, Any], index: int) -> RecordingEvent:
    wrapped = raw.get("message")
    if isinstance(wrapped, dict) and "payload" not in raw:
        raw = wrapped  # Hub's HTTP transport: {"message": <event>}
    payload = raw.get("payload")
    if not isinstance(payload, dict) or "key" not in payload:
        if isinstance(raw.get("key"), str) and "runId" in raw:
            raise EventMalformed(
                "The message is a workflow run of Hub (runId), not a recording event: it wants its answer on "
                "hub-workflows-queue, so point QUEUE_NAME at the topic of the Vault integration."
            )
        raise EventMalformed("The event has no payload.key, so it names no recording.")
    key = _header_text(payload["key"], "payload.key", MAX_KEY_BYTES)
    if not key:
        raise EventMalformed("The event's payload.key is empty, so it names no recording.")
    source = _header_text(raw.get("source") or "", "source", MAX_SOURCE_BYTES)
    metadata = payload.get("metadata")
    camera = metadata.get("event-instancename") if isinstance(metadata, dict) else None
    size, link = payload.get("fileSize"), payload.get("signedUrl")
    return RecordingEvent(
        raw=raw,
        key=key,
        source=source,
        signed_url=link if isinstance(link, str) else "",
        file_size_bytes=size if type(size) is int and size >= 0 else None,
        camera=camera if isinstance(camera, str) else "",
        skip_reason=_skip_reason(raw, key),
        index=index,
    )


def _header_text(text: object, name: str, max_bytes: int) -> str:
    """Return the text if a HTTP header can carry it (Vault takes key and source there), or raise."""
    if not isinstance(text, str):
        raise EventMalformed(f"The event's {name} is not a string.")
    if _CONTROL.search(text) or text != text.strip():
        raise EventMalformed(f"The event's {name} has control characters or spaces around it.")
    if len(text.encode()) > max_bytes:
        raise EventMalformed(f"The event's {name} is longer than {max_bytes} bytes.")
    return text


def _skip_reason(raw: Mapping[str, Any], key: str) -> str | None:
    if raw.get("request") == "ondemand":
        return "ondemand"
    return "not_a_video" if _NOT_VIDEO.search(key) else None
