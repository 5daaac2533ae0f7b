"""Every entry of a message ends as one outcome, whatever it holds."""

import json
from typing import Any

import pytest

from consumer.events import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MalformedEvent,
    RecordingEvent,
    parse_message,
)
from tests.fakes.recorded_events import (
    EVENT_2020,
    EVENT_2026,
    README_EVENT,
    SECRETS,
    VERSIONS,
    WORKFLOW_RUN,
)


def _one(value: object) -> RecordingEvent | MalformedEvent:
    entries = parse_message(value if isinstance(value, bytes) else json.dumps(value).encode())
    assert len(entries) == 1
    return entries[0]


def _event(value: object) -> RecordingEvent:
    entry = _one(value)
    assert isinstance(entry, RecordingEvent), entry
    return entry


def _sentence(value: object) -> str:
    entry = _one(value)
    assert isinstance(entry, MalformedEvent), entry
    return str(entry.error)


def _with_key(key: object) -> dict[str, Any]:
    return {"payload": {"key": key}}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_event_since_2020_is_read(version: str) -> None:
    raw = VERSIONS[version]
    event = _event(raw)
    assert event.raw == raw
    assert event.key == raw["payload"]["key"]
    assert event.source == raw["source"]
    assert event.file_size_bytes == raw["payload"]["fileSize"]
    assert event.camera == raw["payload"]["metadata"]["event-instancename"]
    assert event.skip_reason is None


def test_only_the_key_is_required() -> None:
    event = _event(_with_key("u/a.mp4"))
    assert (event.key, event.source, event.signed_url, event.camera) == ("u/a.mp4", "", "", "")
    assert event.file_size_bytes is None


def test_the_signed_link_is_taken_from_the_payload() -> None:
    assert _event(EVENT_2026).signed_url == EVENT_2026["payload"]["signedUrl"]


def test_an_event_does_not_show_its_credentials() -> None:
    for entry in (_one(EVENT_2026), _one(WORKFLOW_RUN)):
        assert not any(secret in repr(entry) for secret in SECRETS)


def test_hubs_wrapping_is_taken_off() -> None:
    assert _event({"message": README_EVENT}).raw == README_EVENT


def test_a_byte_order_mark_is_no_harm() -> None:
    assert _event(b"\xef\xbb\xbf" + json.dumps(README_EVENT).encode()).raw == README_EVENT


def test_a_list_gives_each_event_its_own_outcome() -> None:
    entries = parse_message(json.dumps([README_EVENT, {"no": "key"}, EVENT_2020]).encode())
    assert [entry.index for entry in entries] == [0, 1, 2]
    assert [type(entry) for entry in entries] == [RecordingEvent, MalformedEvent, RecordingEvent]


@pytest.mark.parametrize(
    "bad",
    [
        '{"payload": {"key": "a.mp4", "fileSize": NaN}}',
        '{"a": 1, "a": 2, "payload": {"key": "a.mp4"}}',
        '{"payload": {"key": "a.mp4"} "comma": 1}',
        "[" * 5000 + "]" * 5000,
        '{"payload": {"key": "a.mp4"}, "number": ' + "9" * 5000 + "}",
        '{"payload": {"key": "a\\ud800.mp4"}}',
        '"a text with ] and , in it"',
        "null",
    ],
    ids=["nan", "twice", "syntax", "deep", "huge", "surrogate", "text", "null"],
)
def test_a_bad_entry_does_not_spoil_the_others(bad: str) -> None:
    good = json.dumps(README_EVENT)
    before, entry, after = parse_message(f"[{good}, {bad} , {good}]".encode())
    assert isinstance(before, RecordingEvent)
    assert isinstance(after, RecordingEvent)
    assert isinstance(entry, MalformedEvent)
    assert entry.payload == bad.encode()


@pytest.mark.parametrize("value", [None, b""], ids=["none", "empty"])
def test_a_tombstone_is_skipped(value: bytes | None) -> None:
    (entry,) = parse_message(value)
    assert isinstance(entry, RecordingEvent)
    assert entry.skip_reason == "tombstone"


def test_an_empty_list_is_skipped_and_not_lost() -> None:
    assert _event(b" [ ] ").skip_reason == "empty_list"


def test_a_recording_that_is_not_there_yet_is_skipped() -> None:
    assert _event({**README_EVENT, "request": "ondemand"}).skip_reason == "ondemand"


@pytest.mark.parametrize(
    "name", ["a_thumbnail.jpg", "a_sprite.JPG", "a.json", "a.m3u8", "a.mp4.sha256", "a.txt", "a.wav"]
)
def test_what_is_known_to_be_no_video_is_skipped(name: str) -> None:
    assert _event(_with_key(f"u/{name}")).skip_reason == "not_a_video"


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        "a.MP4",
        "a_redacted.mp4",
        "a.mkv",
        "a.ts",
        "a",
        "a.new-format",
        "cam.jpg/a",
        "json",
        "1.5_cam",
    ],
)
def test_what_may_be_a_video_is_looked_at(name: str) -> None:
    assert _event(_with_key(f"u/{name}")).skip_reason is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"\xff\xfe", "not UTF-8 (byte 0)"),
        (b"not json", "not JSON"),
        (b"   ", "not JSON"),
        (b"[1, 2", "does not end where its list ends"),
        (b"[1] [2]", "does not end where its list ends"),
        (b'["a]', "does not end where its list ends"),
        (b"42", "a JSON int"),
        (b'{"payload": {"key": "a"}, "x": 1e999}', "too large"),
        (b'{"payload": {"key": "a"}, "x": -Infinity}', "-Infinity"),
        ({}, "no payload.key"),
        ({"payload": []}, "no payload.key"),
        ({"payload": {"key": None}}, "not a string"),
        ({"payload": {"key": 7}}, "not a string"),
        ({"payload": {"key": ""}}, "empty"),
        ({"payload": {"key": "a\r\nX-Evil: 1"}}, "control characters"),
        ({"payload": {"key": " a.mp4"}}, "spaces"),
        ({"payload": {"key": "a" * (MAX_KEY_BYTES + 1)}}, "longer than"),
        ({"payload": {"key": "a.mp4"}, "source": ["storj"]}, "source is not a string"),
        ({"payload": {"key": "a.mp4"}, "source": "sto\nrj"}, "source has control characters"),
        (WORKFLOW_RUN, "workflow run"),
    ],
)  # fmt: skip
def test_a_malformed_message_says_what_is_wrong(value: object, says: str) -> None:
    assert says in _sentence(value)


@pytest.mark.parametrize("source", [None, ""])
def test_a_missing_source_is_empty(source: str | None) -> None:
    assert _event({**README_EVENT, "source": source}).source == ""


def test_optional_fields_of_the_wrong_type_are_as_if_they_were_missing() -> None:
    event = _event({"payload": {"key": "a.mp4", "fileSize": "12", "signedUrl": 1, "metadata": ["x"]}})
    assert (event.file_size_bytes, event.signed_url, event.camera) == (None, "", "")
    assert _event({"payload": {"key": "a.mp4", "fileSize": True}}).file_size_bytes is None
    assert _event({"payload": {"key": "a.mp4", "fileSize": -1}}).file_size_bytes is None


def test_a_malformed_message_goes_back_as_the_very_bytes_that_came() -> None:
    value = b'\xef\xbb\xbf {"a": 1.10, "b": "\\u00e9"} \n'
    entry = _one(value)
    assert isinstance(entry, MalformedEvent)
    assert entry.payload == value


def test_a_list_of_too_many_events_is_one_dead_letter() -> None:
    assert str(MAX_ENTRIES) in _sentence(b"[" + b"0," * MAX_ENTRIES + b"0]")
    assert len(parse_message(b"[" + b"0," * (MAX_ENTRIES - 1) + b"0]")) == MAX_ENTRIES


def test_nesting_is_bounded_where_it_says() -> None:
    def nested(levels: int) -> bytes:
        return b'{"payload": {"key": "a.mp4"}, "x": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert _event(nested(MAX_DEPTH)).key == "a.mp4"
    assert "deeper" in _sentence(nested(MAX_DEPTH + 1))
    assert "deeper" in _sentence(b'{"x": ' + b'{"x": ' * 50_000 + b"1" + b"}" * 50_001)


@pytest.mark.timeout(60)  # quadratic behaviour would take hours
@pytest.mark.parametrize(
    "value",
    [
        b"[" * 1_000_000,
        b'"\\"' * 400_000,
        b'["' + b"\\" * 1_000_001,
        b"[" + b'"",' * 300_000,
        b"9" * 1_000_000,
        b"{" + b",".join(b'"%d":0' % number for number in range(90_000)) + b',"7":0}',
    ],
    ids=["brackets", "quotes", "backslashes", "list", "digits", "names"],
)
def test_a_hostile_megabyte_is_malformed_and_costs_no_more_than_its_length(value: bytes) -> None:
    assert isinstance(_one(value), MalformedEvent)
