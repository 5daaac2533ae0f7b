"""Letters as strangers may have written them: each is read, shown and planned, or left out and said why."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.dead_letter import SCHEMA, SERVICE, build_dead_letter
from consumer.errors import RecordingRefused
from consumer.letter_event import event_again
from consumer.letter_text import as_json, pretty, printable
from consumer.letters import Choice, DeadLetter, parse_letter
from consumer.messages import Position
from consumer.past import PastRecord
from consumer.replay_mark import MOST_REPLAYS, Origin, ReplayMark
from consumer.resend_plan import plan_of
from consumer.topics import Record

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def letter(payload: bytes = b"{}", key: bytes = b"abcdef", **about: Any) -> DeadLetter:  # noqa: ANN401  # any JSON
    told = {"service": SERVICE, "source": "source", "reason": "handler_error"} | about
    envelope = {"schema": SCHEMA, "payload": base64.b64encode(payload).decode(), "deadLetter": told}
    record = Record("source.dead-letter", 0, 7, key, json.dumps(envelope).encode(), {})
    parsed = parse_letter(PastRecord(record, NOW))
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("depth", [65, 500, 900, 985, 5_000])
def test_a_masked_event_that_is_nested_too_deep_is_left_out_and_the_others_are_sent(depth: int) -> None:
    deep = letter(b'{"payload":{"key":"a"},"password":"***","x":' + b"[" * depth + b"1" + b"]" * depth + b"}")
    good = letter(b'{"payload":{"key":"b"}}', key=b"fedcba", attributes={"key": "b"})
    planned = plan_of([deep, good], {}, source="source", now=NOW)
    assert [each.letter for each in planned.sendings] == [good]
    assert "it is no event as JSON" in planned.left_out[0][1]
    assert "event_base64" in as_json(deep, {}, payload=True)
    assert pretty(deep.payload)


def test_a_camera_of_any_name_is_found_by_it_and_sent_again_under_it() -> None:
    event = {"payload": {"key": "u/a.mp4", "metadata": {"event-instancename": "Brenner Pass: north"}}}
    message = build_dead_letter(
        json.dumps(event | {"storage_secret": "hunter22"}).encode(),
        RecordingRefused("Vault refuses it."),
        Position("source", 0, 1),
        destination="source.dead-letter",
        attempts=1,
        max_bytes=100_000,
    )
    record = Record("source.dead-letter", 0, 7, message.key, message.value, {})
    found = parse_letter(PastRecord(record, NOW))
    assert found is not None
    assert Choice(cameras=("Brenner Pass: north",)).takes(found)
    sent = event_again(found)
    assert sent is not None
    assert json.loads(sent) == event


def test_numbers_that_json_does_not_know_are_neither_shown_as_json_nor_sent_without_masks() -> None:
    strange = letter(b'{"payload":{"key":"a"},"password":"***","x":NaN}')
    assert event_again(strange) is None
    assert "event_base64" in as_json(strange, {}, payload=True)


@pytest.mark.parametrize("told", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "soon", ""])
def test_a_time_that_is_none_is_when_the_letter_was_written(told: str) -> None:
    assert letter(timestamp=told).at == NOW


def test_what_cannot_be_printed_is_not() -> None:
    camera = "gate\ud800\u2028\u061c\U000e0041\u202e"
    shown = printable(letter(attributes={"camera": camera}).camera)
    assert shown == "gate?"
    assert shown.encode()


@pytest.mark.parametrize(("of", "replays"), [("source", 0), ("dead-letter", 1)])
def test_a_letter_of_a_replay_of_the_past_was_not_sent_again_by_anybody(of: Origin, replays: int) -> None:
    message = build_dead_letter(
        b'{"payload":{"key":"a.mp4"}}',
        RecordingRefused("Vault refuses it."),
        Position("source", 0, 0, 0),
        destination="trial.dead-letter",
        attempts=1,
        max_bytes=10_000,
        replay=ReplayMark(of, "replay-0", 1, "2026-05-01T10:00:00Z"),
    )
    headers = {name: value.decode() for name, value in message.headers}
    read = parse_letter(
        PastRecord(Record("trial.dead-letter", 0, 0, message.key, message.value, headers), NOW)
    )
    assert read is not None
    assert read.replays == replays
    planned = plan_of([read], {}, source="source", now=NOW)
    assert [why for _, why in planned.left_out] == (
        ["it was sent again 1 time(s) and failed: mend that, add --again"] if replays else []
    )


def test_a_forged_count_is_still_noted() -> None:
    forged = letter(attributes={"replay": str(MOST_REPLAYS)})
    (sending,) = plan_of([forged], {}, source="source", again=True, now=NOW).sendings
    assert ReplayMark.from_json(sending.mark.to_json()) == sending.mark


def test_a_letter_with_a_strange_id_is_noted_by_its_place() -> None:
    (sending,) = plan_of([letter(key=b"no id at all")], {}, source="source", now=NOW).sendings
    assert sending.mark.id == "0/7"
    assert ReplayMark.from_json(sending.mark.to_json()) == sending.mark
