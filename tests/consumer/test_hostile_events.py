"""A hostile event has its outcome within limits of time and memory, and reaches nothing but a header."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.errors import EventMalformed
from consumer.events import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_VALUES,
    MalformedEvent,
    RecordingEvent,
    parse_message,
)
from consumer.vault import VaultClient, VaultSettings
from tests.fakes.faulty_vault import FaultyVault
from tests.fakes.recorded_events import README_EVENT

GOOD = json.dumps(README_EVENT).encode()


def _refused(value: bytes) -> MalformedEvent:
    (entry,) = parse_message(value)
    assert isinstance(entry, MalformedEvent)
    assert isinstance(entry.error, EventMalformed)
    return entry


def _with(more: bytes) -> bytes:
    return b'{"payload": {"key": "u/a.mp4"}, "more": ' + more + b"}"


def _fifty_megabytes(piece: bytes) -> bytes:
    return piece * (50_000_000 // len(piece))


@pytest.mark.parametrize(
    "build",
    [
        lambda: b"[" + _fifty_megabytes(GOOD + b",") + GOOD + b"]",
        lambda: b"[" + _fifty_megabytes(b"[],") + b"1]",
        lambda: _with(b"[" + _fifty_megabytes(b"{},") + b"1]"),
        lambda: _with(_fifty_megabytes(b"9")),
        lambda: _with(b'"' + _fifty_megabytes(b"\\u0041") + b'"'),
        lambda: json.dumps({"payload": {"key": "a" * 50_000_000}}).encode(),
        lambda: _fifty_megabytes(b"["),
        lambda: _fifty_megabytes(b'"'),
        lambda: _fifty_megabytes(b"\xff"),
    ],
    ids=["events", "lists", "objects", "digits", "escapes", "key", "deep", "quotes", "no text"],
)
def test_fifty_megabytes_of_anything_are_refused_without_reading_them(build: Callable[[], bytes]) -> None:
    value = build()
    tracemalloc.start()
    try:
        entry = _refused(value)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(entry.error) == f"The message has {len(value)} bytes, and at most {MAX_BYTES} are read."
    assert value.startswith(entry.payload)
    assert peak_bytes < 3 * MAX_BYTES


def test_a_message_of_the_largest_size_is_read() -> None:
    padding = MAX_BYTES - len(_with(b'""'))
    (entry,) = parse_message(_with(b'"' + b"a" * padding + b'"'))
    assert isinstance(entry, RecordingEvent)


def test_what_is_cut_off_ends_between_two_values() -> None:
    value = _with(b'"secret-to-come", ' * 300_000)
    assert _refused(value).payload.endswith(b'"secret-to-come"')


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (json.dumps({"payload": {"key": "u/a\0.mp4"}}).encode(), "control characters"),
        (json.dumps({"payload": {"key": "u/a\n.mp4"}}).encode(), "control characters"),
        (json.dumps({"payload": {"key": "u/a\r\nX-Directory: b"}}).encode(), "control characters"),
        (json.dumps({"payload": {"key": "u/a\x7f.mp4"}}).encode(), "control characters"),
        (json.dumps({"payload": {"key": "a" * 1_000_000}}).encode(), "longer than 2048 bytes"),
        (json.dumps({"payload": {"key": "ü" * 1025}}).encode(), "longer than 2048 bytes"),
        (json.dumps({"payload": {"key": "a"}, "source": "s" * 256}).encode(), "longer than 255 bytes"),
        (_with(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH), f"deeper than {MAX_DEPTH} levels"),
        (_with(b"[" * 50_000), f"deeper than {MAX_DEPTH} levels"),
        (_with(b'{"a":' * 50_000), f"deeper than {MAX_DEPTH} levels"),
        (b'{"payload": {"key": "a"}, "payload": {"key": "b"}}', "'payload' twice"),
        (b'{"payload": {"key": "a", "key": "b"}}', "'key' twice"),
        (_with(b"1e999"), "a number that is too large"),
        (_with(b"-1e999"), "a number that is too large"),
        (_with(b"9" * 5000), "a number with too many digits"),
        (_with(b"NaN"), "NaN, which is not JSON"),
        (_with(b'"\\ud800"'), "half a character"),
        (b'{"payload": {"key": "\\udfff"}}', "half a character"),
        (b'{"payload": {"key": "\xed\xa0\x80"}}', "not UTF-8"),
        (GOOD.decode().encode("utf-16"), "not UTF-8"),
        (_with(b"[" + b"{}," * MAX_VALUES + b"{}]"), f"at most {MAX_VALUES} are read"),
        (b"[" + (GOOD + b",") * MAX_ENTRIES + GOOD + b"]", f"more than {MAX_ENTRIES} events"),
    ],
    ids=[
        "NUL", "newline", "header", "DEL", "long key", "long key of two bytes each", "long source", "deep",
        "deep and open", "deep objects", "two payloads", "two keys",
        "infinite", "minus infinite", "digits", "NaN",
        "surrogate", "surrogate in the key", "surrogate as bytes", "UTF-16", "values", "entries",
    ],
)  # fmt: skip
def test_each_trick_has_a_limit_and_a_sentence(value: bytes, says: str) -> None:
    assert says in str(_refused(value).error)


@pytest.mark.parametrize("claimed", [5, 0, 10**18, -1, "many", 1.5, None, True, [10**18]])
def test_a_file_size_that_lies_is_only_a_claim(claimed: object) -> None:
    event = json.loads(GOOD)
    event["payload"]["fileSize"] = claimed
    (entry,) = parse_message(json.dumps(event).encode())
    assert isinstance(entry, RecordingEvent)
    assert entry.skip_reason is None


@pytest.mark.parametrize(
    "key",
    ["../../etc/passwd", "/etc/passwd", "u/../../a.mp4", "..", "..\\a.mp4", "%2e%2e/a", "a?b=c#d", "-rf"],
)
def test_a_key_is_a_header_and_never_a_path(key: str, tmp_path: Path) -> None:
    # So nothing in it needs to be refused: where Vault keeps a recording of that name is Vault's affair.
    (entry,) = parse_message(json.dumps({"payload": {"key": key}}).encode())
    assert isinstance(entry, RecordingEvent)
    stored, downloads = tmp_path / "stored", tmp_path / "downloads"
    stored.write_bytes(b"a recording")
    downloads.mkdir()
    with FaultyVault(recordings={key: stored}, access_key="the-access-key", secret_key="the-secret") as vault:
        settings = VaultSettings(api_url=vault.url, access_key="the-access-key", secret_key="the-secret")
        with VaultClient(settings) as client, client.fetch(entry, downloads) as media:
            assert list(downloads.iterdir()) == [], "the file has no name"
            with media.open() as file:
                assert file.read() == b"a recording"
    asked = {path: headers for path, headers in vault.seen if path in ("GET /api/storage", "POST /api/ping")}
    others = {path.partition("?")[0] for path, _ in vault.seen} - asked.keys()
    assert others == {"GET /api/storage/signed"}, "the link that Vault made for it"
    assert asked["GET /api/storage"]["X-Kerberos-Storage-FileName"] == key
