"""Results: what goes onto the target topic, and what `detect` prints.

The value of a `classification` result has the keys, the nesting and the types of the vault-ml README, which
its users parse today; everything it has no room for travels in headers. Both formats: docs/messages.md.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from consumer import replay_mark
from consumer.analysis import Analysis, Detection, FrameResult
from consumer.credentials import remove_credentials
from consumer.events import RecordingEvent
from consumer.links import mask_links
from consumer.messages import OutgoingMessage, Position
from consumer.replay_mark import ReplayMark

Format = Literal["frames", "classification"]
"""What a line of `vault-ml detect` says."""

RECORD_OVERHEAD_BYTES = 512
"""What Kafka adds to a message: the batch's header, lengths and counts; generously."""

_SMALL_BYTES = 256
_LISTED = 100
_REASONS, _REASON_LENGTH = 5, 100
"""Entries in a header that lists frames or reasons: a hint for a person, not the data."""

_README_NAMES = frozenset({"date", "events", "provider", "source", "request", "payload"})


class Header:
    """Names of the Kafka headers of a result."""

    ID = "vault-ml-id"
    SOURCE = "vault-ml-source"
    OUTCOME = "vault-ml-outcome"
    MODEL = "vault-ml-model"
    DIGEST = "vault-ml-digest"
    FRAMES = "vault-ml-frames"
    LEDGER = "vault-ml-ledger"
    REASONS = "vault-ml-reasons"
    SATURATED = "vault-ml-saturated"
    TRUNCATED = "vault-ml-truncated"
    REPLAY = replay_mark.HEADER
    FIRST = "vault-ml-first"


def build_result(
    event: RecordingEvent,
    analysis: Analysis,
    position: Position,
    max_bytes: int,
    replay: ReplayMark | None = None,
    *,
    duplicate_of: Position | None = None,
    secrets: Collection[str] = (),
) -> OutgoingMessage:
    """Return the `classification` result of one event, not larger than `max_bytes`.

    What does not fit is left out and said so in `vault-ml-truncated`: first the lowest scores of the whole
    recording, then, with no detection left, what the event carries beyond the README's names.

    Args:
        event: as it came; its credentials are left out of the result.
        analysis: the outcome; for a skipped recording the lists are empty.
        position: where the event stood.
        max_bytes: the topic's `message.max.bytes`; 10,000 or more.
        replay: the mark of an event that was sent again; goes into a header.
        duplicate_of: where the same event stood before; goes into a header.
        secrets: values of our own settings, masked in what is echoed of the event; but not in the recording's
            key, without which nobody could tell whose result it is.
    """
    echoed = _echoed(event, secrets)
    ranked = sorted((d.score for frame in analysis.frames for d in frame.detections), reverse=True)

    def message(kept: int) -> OutgoingMessage:
        frames = _best(analysis.frames, kept, ranked)
        truncation = _truncation(kept, len(ranked), whole_event=whole)
        return _message(
            event, analysis, position, echoed=echoed, frames=frames, truncation=truncation, replay=replay,
            duplicate_of=duplicate_of,
        )  # fmt: skip

    def fits(kept: int) -> bool:
        return message(kept).size_bytes + RECORD_OVERHEAD_BYTES <= max_bytes

    whole = True
    if fits(len(ranked)):
        return message(len(ranked))
    if not fits(0):
        whole, echoed = False, readme_event(event, secrets)
    enough, too_many = 0, len(ranked) + 1
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        enough, too_many = (middle, too_many) if fits(middle) else (enough, middle)
    return message(enough)


def result_id(event: RecordingEvent, model_digest: str, position: Position) -> str:
    """Return the id of a result: the same for every replay of the same recording through the same model.

    SHA-256 in hex over source, recording key and model digest; an event without a key is known by its place.
    """
    identity = [event.source, event.key, model_digest] if event.key else [str(position)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def readme_event(event: RecordingEvent, secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return an event without its bulk: the README's names where small, and of the payload the key."""
    clean = remove_credentials(event.raw, secrets)
    kept = {
        name: value
        for name, value in clean.items()
        if name in _README_NAMES and len(_json(value)) <= _SMALL_BYTES
    }
    source = clean.get("source", event.source)
    return {**kept, "source": source, "payload": {"key": mask_links(event.key)}}


def frames_value(recording_name: str, analysis: Analysis) -> dict[str, Any]:
    """Return the `frames` format of `detect`: every frame looked at, boxes as floats in source pixels."""
    return {
        "recording": recording_name,
        "model": {"name": analysis.model_name, "version": analysis.model_version},
        "frames": [
            {
                "index": frame.index,
                "time": frame.time_seconds,
                "detections": [
                    {"label": found.label, "score": found.score, "box": list(found.box_xyxy)}
                    for found in frame.detections
                ],
            }
            for frame in analysis.frames
        ],
        "ledger": analysis.ledger,
    }


def classification_data(analysis: Analysis, frames: Sequence[FrameResult]) -> dict[str, Any]:
    """Return the README's `data`: lists nested [frame][detection], frames without detections left out."""
    shown = [frame for frame in frames if frame.detections]
    return {
        "probabilities": [[float(found.score) for found in frame.detections] for frame in shown],
        "labels": [[found.label for found in frame.detections] for frame in shown],
        "boxes": [
            [
                whole_pixels(found.box_xyxy, frame.width or analysis.width, frame.height or analysis.height)
                for found in frame.detections
            ]
            for frame in shown
        ],
    }


def to_utf8(value: object) -> bytes:
    """Return a value as JSON in UTF-8; what is no text (names of files can be such) as escapes."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def whole_pixels(box_xyxy: tuple[float, float, float, float], width: int, height: int) -> list[int]:
    """Return a box as integers inside the picture (0: unbounded), at least one pixel wide and high."""
    x1, x2 = _whole_span(box_xyxy[0], box_xyxy[2], width)
    y1, y2 = _whole_span(box_xyxy[1], box_xyxy[3], height)
    return [x1, y1, x2, y2]


def _whole_span(low: float, high: float, limit: int) -> tuple[int, int]:
    first, last = max(0, round(low)), max(0, round(high))
    if limit:
        first, last = min(first, limit), min(last, limit)
    if last > first:
        return first, last
    # Thinner than a pixel: a detection is never dropped for that, nor does a box turn inside out.
    return (first, first + 1) if not limit or first < limit else (limit - 1, limit)


def _best(frames: Sequence[FrameResult], kept: int, ranked: Sequence[float]) -> list[FrameResult]:
    """Return the frames with the `kept` highest scores of all; among equal scores the earlier frames win."""
    if kept >= len(ranked):
        return list(frames)
    lowest = ranked[kept - 1] if kept else float("inf")
    equal_left = kept - sum(score > lowest for score in ranked)
    best: list[FrameResult] = []
    for frame in frames:
        stay: list[Detection] = []
        for found in frame.detections:
            if found.score == lowest and equal_left > 0:
                equal_left -= 1
                stay.append(found)
            elif found.score > lowest:
                stay.append(found)
        best.append(FrameResult(frame.index, frame.time_seconds, tuple(stay), frame.width, frame.height))
    return best


def _message(
    event: RecordingEvent,
    analysis: Analysis,
    position: Position,
    *,
    echoed: Mapping[str, Any],
    frames: Sequence[FrameResult],
    truncation: str | None,
    replay: ReplayMark | None,
    duplicate_of: Position | None,
) -> OutgoingMessage:
    own_data = echoed.get("data")
    data = classification_data(analysis, frames)
    value = {
        **echoed,
        "operation": "classification",
        # Peers of Hub merge into what stages before them have found.
        "data": {**own_data, **data} if isinstance(own_data, Mapping) else data,
    }
    key = result_id(event, analysis.model_digest, position)
    headers = {
        Header.ID: key,
        Header.SOURCE: str(position),
        Header.OUTCOME: analysis.outcome,
        Header.FIRST: None if duplicate_of is None else str(duplicate_of),
        Header.MODEL: f"{analysis.model_name}/{analysis.model_version}" if analysis.model_name else None,
        Header.DIGEST: analysis.model_digest or None,
        Header.FRAMES: _json(
            [[frame.index, round(frame.time_seconds * 1000)] for frame in frames if frame.detections]
        ),
        Header.LEDGER: None if analysis.ledger is None else _json(analysis.ledger),
        Header.REASONS: _json([text[:_REASON_LENGTH] for text in analysis.partial_reasons[:_REASONS]])
        if analysis.partial_reasons
        else None,
        Header.SATURATED: _json(analysis.saturated_frames[:_LISTED]) if analysis.saturated_frames else None,
        Header.TRUNCATED: truncation,
        Header.REPLAY: replay.to_json() if replay is not None else None,
    }
    return OutgoingMessage(
        key=key.encode(),
        value=to_utf8(value),
        headers=[(name, text.encode()) for name, text in headers.items() if text is not None],
    )


def _truncation(kept: int, found: int, *, whole_event: bool) -> str | None:
    if kept == found and whole_event:
        return None
    return _json({"detections": kept, "of": found, "event": "whole" if whole_event else "reduced"})


def _echoed(event: RecordingEvent, secrets: Collection[str]) -> dict[str, Any]:
    echoed = remove_credentials(event.raw, secrets)
    payload = echoed.get("payload")
    if event.key and isinstance(payload, Mapping):
        echoed["payload"] = {**payload, "key": mask_links(event.key)}
    return echoed


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
