"""Dead letters keep to the ecosystem's envelope, can be sent again, and hold nothing secret."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.dead_letter import LARGEST_PAYLOAD_BYTES, build_dead_letter, envelope_reason
from consumer.errors import (
    BrokerAway,
    ContractError,
    EventMalformed,
    MessageTooLarge,
    RecordingRefused,
    RecordingUnavailable,
    RecordingUndecodable,
    VaultMLError,
)
from consumer.events import MAX_KEY_BYTES, RecordingEvent, parse_message
from consumer.messages import OutgoingMessage, Position
from consumer.replay_mark import ReplayMark
from consumer.results import RECORD_OVERHEAD_BYTES
from tests.fakes.recorded_events import EVENT_2024, EVENT_2026, README_EVENT, SECRETS, VERSIONS

MAX_BYTES = 1_000_012
POSITION = Position("source_topic", 1, 99, 2)
ERROR = RecordingUndecodable("a.mp4 has no video track: nothing can be looked at.")


def _letter(payload: bytes, error: VaultMLError = ERROR, **more: Any) -> OutgoingMessage:  # noqa: ANN401  # handed on
    options: dict[str, Any] = {
        "destination": "source_topic.dead-letter",
        "attempts": 3,
        "max_bytes": MAX_BYTES,
    }
    return build_dead_letter(payload, error, POSITION, **options | more)


def _envelope(message: OutgoingMessage) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(message.value)
    return envelope


def _payload(message: OutgoingMessage) -> bytes:
    return base64.b64decode(_envelope(message)["payload"], validate=True)


def test_the_envelope_is_the_ecosystems_own() -> None:
    message = _letter(json.dumps(README_EVENT).encode(), timestamp=datetime(2026, 5, 1, 12, tzinfo=UTC))
    envelope = _envelope(message)
    attributes = envelope["deadLetter"].pop("attributes")
    assert list(envelope) == ["schema", "payload", "deadLetter"]
    assert envelope["schema"] == "uug.ai/dead-letter/v1"
    assert envelope["deadLetter"] == {
        "source": "source_topic",
        "destination": "source_topic.dead-letter",
        "replayDestination": "source_topic",
        "service": "vault-ml",
        "reason": "handler_error",
        "attempts": 3,
        "timestamp": "2026-05-01T12:00:00Z",
    }
    assert attributes["reason"] == "undecodable"
    assert attributes["sentence"] == str(ERROR)
    assert attributes["position"] == "source_topic/1/99/2"
    assert attributes["key"] == README_EVENT["payload"]["key"]
    # The envelope's Go type is map[string]string: anything else would not be read.
    assert all(isinstance(value, str) for value in attributes.values())


def test_the_headers_say_where_it_came_from_and_why() -> None:
    message = _letter(json.dumps(README_EVENT).encode())
    assert {name: value.decode() for name, value in message.headers} == {
        "vault-ml-id": message.key.decode(),
        "vault-ml-source": "source_topic/1/99/2",
        "vault-ml-outcome": "dead-letter",
        "vault-ml-reason": "undecodable",
    }


@pytest.mark.parametrize(
    ("error", "exhausted", "reason"),
    [
        (EventMalformed("x"), False, "malformed"),
        (RecordingRefused("x"), False, "handler_error"),
        (RecordingUnavailable("x"), True, "retry_exhausted"),
        (MessageTooLarge("x"), False, "publish_failed"),
        (BrokerAway("x"), False, "publish_failed"),
        (ContractError("x"), False, "unspecified"),
    ],
)
def test_each_error_has_one_of_the_envelopes_five_reasons(
    error: VaultMLError, exhausted: bool, reason: str
) -> None:
    assert envelope_reason(error, exhausted=exhausted) == reason


@pytest.mark.parametrize("version", VERSIONS)
def test_a_payload_can_be_sent_again_and_holds_no_credentials(version: str) -> None:
    message = _letter(json.dumps(VERSIONS[version]).encode())
    (again,) = parse_message(_payload(message))
    assert isinstance(again, RecordingEvent)
    assert again.key == VERSIONS[version]["payload"]["key"]
    assert again.raw["payload"]["metadata"] == VERSIONS[version]["payload"]["metadata"]
    assert not any(secret in _payload(message).decode() for secret in SECRETS)


def test_a_payload_without_credentials_is_kept_byte_for_byte() -> None:
    for payload in (b"\xff\x00 no JSON at all", json.dumps(README_EVENT, indent=3).encode()):
        assert _payload(_letter(payload)) == payload


def test_our_own_secrets_are_masked_in_payload_and_sentence() -> None:
    error = RecordingRefused("Vault refuses our-own-secret here.")
    message = _letter(b'{"x": "our-own-secret"}', error, secrets=("our-own-secret",))
    assert b"our-own-secret" not in message.value + _payload(message)


def test_a_list_of_letters_needs_no_payload_decoded() -> None:
    attributes = _envelope(_letter(json.dumps(README_EVENT).encode()))["deadLetter"]["attributes"]
    assert attributes["camera"] == "highway4"
    assert attributes["recorded"] == "2021-09-03T04:31:08Z"
    hostile = json.loads(json.dumps(README_EVENT))
    hostile["payload"]["metadata"] |= {"event-instancename": "x\x1b" * 500, "event-timestamp": "9" * 400}
    hostile["date"] = 10**400
    attributes = _envelope(_letter(json.dumps(hostile).encode()))["deadLetter"]["attributes"]
    assert len(attributes["camera"]) <= 128
    assert "\x1b" not in attributes["camera"]
    assert "recorded" not in attributes


@pytest.mark.parametrize("camera", ["Brenner Pass: north", "Token: 3", "Auth=Lobby", "Gate <Pass>2"])
def test_a_camera_keeps_its_name_in_the_letter_and_in_its_event(camera: str) -> None:
    event = json.loads(json.dumps(EVENT_2024)) | {"fileName": camera}  # it holds credentials, and is masked
    event["payload"]["metadata"]["event-instancename"] = camera
    message = _letter(json.dumps(event).encode())
    (again,) = parse_message(_payload(message))
    assert isinstance(again, RecordingEvent)
    assert _envelope(message)["deadLetter"]["attributes"]["camera"] == again.camera == camera
    assert again.raw["fileName"] == camera


def test_publickey_and_productid_stay_where_credentials_are_masked() -> None:
    event = json.loads(json.dumps(EVENT_2026))
    event["payload"]["metadata"]["password"] = "hunter22"  # the event has to be written anew for that
    kept = json.loads(_payload(_letter(json.dumps(event).encode())))["payload"]["metadata"]
    assert kept == EVENT_2026["payload"]["metadata"] | {"password": "***"}
    assert {"publickey", "productid"} <= kept.keys()


def test_a_letter_says_how_often_its_event_was_sent_again() -> None:
    mark = ReplayMark("dead-letter", "a" * 64, 3, "2026-05-01T12:00:00Z")
    message = _letter(json.dumps(README_EVENT).encode(), replay=mark)
    assert _envelope(message)["deadLetter"]["attributes"]["replay"] == "3"
    assert ReplayMark.from_headers(message.headers) == mark


def test_a_secret_in_a_recordings_name_is_masked_there_too_and_said() -> None:
    event = json.loads(json.dumps(README_EVENT))
    event["payload"]["key"] = "cam/our-own-secret.mp4"
    message = _letter(json.dumps(event).encode(), secrets=("our-own-secret",))
    assert b"our-own-secret" not in message.value + _payload(message)
    assert "masked" in _envelope(message)["deadLetter"]["attributes"]["payload"]


def test_a_login_in_a_recordings_name_is_masked_there_too_and_said() -> None:
    event = json.loads(json.dumps(README_EVENT))
    event["payload"]["key"] = "rtsp://admin:hunter22@cam/x.mp4"
    message = _letter(json.dumps(event).encode())
    attributes = _envelope(message)["deadLetter"]["attributes"]
    assert b"hunter22" not in message.value + _payload(message)
    assert attributes["key"] == "rtsp://***@cam/x.mp4"
    assert "masked" in attributes["payload"]


def test_half_a_credential_at_a_cut_is_left_out() -> None:
    secret, login = "our-own-secret", "rtsp://admin:our-own-hunter22@cam"
    told = _envelope(_letter(b" " * 90_000, max_bytes=20_000))["deadLetter"]["attributes"]["payload"]
    cut = int(told.split()[3]) + 1024
    for planted in (login, secret):
        for inside in range(1, len(planted)):
            payload = b" " * (cut - inside) + planted.encode() + b" " * 90_000
            message = _letter(payload, max_bytes=20_000, secrets=(secret,))
            assert b"our-own" not in _payload(message), inside


def test_a_payload_is_kept_up_to_a_megabyte_however_much_the_topic_takes() -> None:
    for payload in (b"a" * 4_000_000, b'{"payload": {"key": "a.mp4"}, "x": [' + b"1," * 2_000_000 + b"1]}"):
        message = _letter(payload, max_bytes=50_000_000)
        assert len(_payload(message)) <= LARGEST_PAYLOAD_BYTES
        assert "payload" in _envelope(message)["deadLetter"]["attributes"]


def test_the_same_event_has_the_same_key_when_it_fails_again() -> None:
    payload = json.dumps(README_EVENT).encode()
    again = build_dead_letter(
        payload, ERROR, Position("source_topic", 0, 1), destination="d", attempts=1, max_bytes=MAX_BYTES
    )
    assert _letter(payload).key == again.key
    assert _letter(b"not json").key != again.key


def test_an_event_that_is_too_large_is_reduced_to_what_names_the_recording() -> None:
    payload = json.dumps({**EVENT_2026, "monitorStage": {"plans": "x" * 900_000}}).encode()
    message = _letter(payload)
    assert message.size_bytes + RECORD_OVERHEAD_BYTES <= MAX_BYTES
    (again,) = parse_message(_payload(message))
    assert isinstance(again, RecordingEvent)
    assert (again.key, again.source) == (EVENT_2026["payload"]["key"], EVENT_2026["source"])
    assert "reduced" in _envelope(message)["deadLetter"]["attributes"]["payload"]


def test_what_is_no_event_and_too_large_is_cut_off_and_says_so() -> None:
    message = _letter(b"\xff" * 990_000, EventMalformed("not UTF-8."))
    assert message.size_bytes + RECORD_OVERHEAD_BYTES <= MAX_BYTES
    assert _payload(message).startswith(b"\xff" * 700_000)
    assert "of 990000 bytes" in _envelope(message)["deadLetter"]["attributes"]["payload"]


def test_a_letter_without_room_for_its_payload_names_the_recording_and_what_is_missing() -> None:
    event = json.loads(json.dumps(README_EVENT))
    event["payload"]["key"] = "cam/" + "ä" * 1000
    message = _letter(json.dumps(event).encode(), max_bytes=0)
    attributes = _envelope(message)["deadLetter"]["attributes"]
    assert _payload(message) == b""
    assert attributes["payload"] == f"its {len(json.dumps(event))} bytes were left out"
    assert event["payload"]["key"].startswith(attributes["key"])
    assert 250 < len(attributes["key"].encode()) <= 256
    assert (attributes["provider"], attributes["camera"]) == (README_EVENT["source"], "highway4")
    assert attributes["recorded"] == "2021-09-03T04:31:08Z"
    assert message.key == _letter(json.dumps(event).encode()).key, "it is still a letter of this recording"


def test_an_empty_payload_is_a_dead_letter_too() -> None:
    assert _payload(_letter(b"")) == b""


@settings(deadline=None)
@example(json.dumps({"payload": {"key": '"' * MAX_KEY_BYTES}}).encode(), '"' * 9999, 0)
@given(st.binary(max_size=300) | st.just(json.dumps(EVENT_2024).encode()), st.text(), st.integers(0, 20_000))
def test_no_dead_letter_is_larger_than_allowed(payload: bytes, sentence: str, filling: int) -> None:
    message = _letter(payload + b" " * filling, RecordingRefused(sentence), max_bytes=10_000)
    assert message.size_bytes + RECORD_OVERHEAD_BYTES <= 10_000
    assert _envelope(message)["schema"] == "uug.ai/dead-letter/v1"
