"""Nothing secret leaves, and nothing else is touched."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.credentials import is_secret_name, mask_links, mask_payload, remove_credentials
from tests.fakes.recorded_events import README_EVENT, SECRETS, VERSIONS, WORKFLOW_RUN


@pytest.mark.parametrize(
    "name",
    [
        "storage_secret", "storage_access_key", "storage_uri", "signedUrl", "secretKey", "accessKey",
        "Password",
        "vaultOverrideSecretKey", "amazon_secret_access_key", "thumbnailSignedUrl", "X-Api-Key", "token",
        "access_token", "Authorization",
    ],
)  # fmt: skip
def test_a_name_that_says_secret_is_one(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["event-token", "publickey", "productid", "key", "monitorStage", "cloudkey", "signed", "user"]
)  # fmt: skip
def test_a_name_that_only_sounds_like_it_is_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("link", "masked"),
    [
        ("https://s3.example.com/b/k.mp4?X-Amz-Signature=abc&x=1", "https://s3.example.com/b/k.mp4?***"),
        ("https://storage.googleapis.com/b/k?X-Goog-Credential=abc", "https://storage.googleapis.com/b/k?***"),
        ("https://a.blob.core.windows.net/c/k?sv=1&sig=abc", "https://a.blob.core.windows.net/c/k?***"),
        ("http://vault/api/storage/signed?a=k&p=p&f=f&e=1&s=abc", "http://vault/api/storage/signed?***"),
        ("https://h/p?access%5Ftoken=abc", "https://h/p?***"),
        ("https://h/p#access_token=abc", "https://h/p#***"),
        ("rtsp://admin:pa?ss@camera:554/stream", "rtsp://***@camera:554/stream"),
        ("rtsp://admin:pa/ss@camera:554/stream", "rtsp://***@camera:554/stream"),
        ("see rtsp://admin:pass@camera/1, or https://h/p?page=2.", "see rtsp://***@camera/1, or https://h/p?page=2."),
        ("https://hub.example.com:8443/mail?to=a@b.c", "https://hub.example.com:8443/mail?to=a@b.c"),
        ("https://hub.example.com/recordings?id=7&sort=asc", "https://hub.example.com/recordings?id=7&sort=asc"),
        ("no link at all?token=1", "no link at all?token=1"),
    ],
)  # fmt: skip
def test_a_link_that_opens_a_door_is_masked_and_stays_a_link(link: str, masked: str) -> None:
    assert mask_links(link) == masked


def test_credentials_are_removed_at_any_depth_and_under_any_name() -> None:
    event = {
        "payload": {"key": "u/token=1.mp4", "parts": [{"secret": "x", "n": 1}]},
        "data": {"storage_secret": {"even": "an object"}},
        "camera": "rtsp://admin:pass@camera/1",
        "result": '{"password": "hunter2", "n": 1}',
    }
    assert remove_credentials(event) == {
        "payload": {"key": "u/token=1.mp4", "parts": [{"n": 1}]},
        "data": {},
        "camera": "rtsp://***@camera/1",
        "result": '{"password": "***", "n": 1}',
    }


def test_removing_leaves_the_event_itself_alone() -> None:
    event: dict[str, Any] = {"data": {"storage_secret": "x"}}
    remove_credentials(event)
    assert event == {"data": {"storage_secret": "x"}}


@pytest.mark.parametrize("raw", [*VERSIONS.values(), WORKFLOW_RUN], ids=[*VERSIONS, "workflow run"])
def test_a_masked_message_keeps_its_shape(raw: dict[str, Any]) -> None:
    masked = mask_payload(json.dumps(raw).encode())
    assert not any(secret in masked.decode() for secret in SECRETS)

    def names(value: object) -> object:
        return {name: names(inner) for name, inner in value.items()} if isinstance(value, dict) else None

    assert names(json.loads(masked)) == names(raw)


def test_a_message_without_credentials_comes_back_byte_for_byte() -> None:
    for value in (
        json.dumps(README_EVENT).encode(),
        b'{"a":  1.10, "secret": null, "token": ""}',
        b"\xff\x00 no",
    ):
        assert mask_payload(value) == value


@pytest.mark.parametrize(
    "value",
    [
        b'{"storage_secret": "hunter22", "payload": {"key"',
        b"{'storage_secret': 'hunter22'}",
        b"storage_secret=hunter22&x=1",
        b'{"a": NaN, "password": "hunter22"} trailing',
        b'\xff\xfe {"secretKey" : "hunter22"',
        b'{"secret": "hunter22", "secret": "other"}',
        b'{"storage\\u005fsecret": "hunter22"}',
        b'{"inner": "{\\"storage_secret\\": \\"hunter22\\"}"}',
        b'{"secret": "hunter22',
        b'{"password": "two \\"words\\" hunter22"}',
        b"[" * 5000 + b'{"token":"hunter22"}',
        b'{"u": "rtsp://admin:hunter22@camera"',
        b"Authorization: hunter22",
    ],
)
def test_what_is_no_json_is_masked_as_well_as_possible(value: bytes) -> None:
    assert b"hunter22" not in mask_payload(value)


@pytest.mark.parametrize("form", ["plain", "json", "url"])
def test_our_own_secrets_are_masked_wherever_they_stand(form: str) -> None:
    secret = 'a/"secret"ö key'
    shown = {"plain": secret, "json": json.dumps(secret), "url": "a%2F%22secret%22%C3%B6%20key"}[form]
    masked = mask_payload(f"innocent: {shown} end".encode(), [secret, "xxx", ""])
    assert b"***" in masked
    assert b"secret" not in masked
    assert masked.startswith(b"innocent: ")
    assert masked.endswith(b" end")


def test_short_settings_do_not_tear_holes() -> None:
    assert mask_payload(b"user xxx", ["user", "xxx"]) == b"user xxx"


@pytest.mark.timeout(60)  # quadratic behaviour would take hours
@pytest.mark.parametrize(
    "text", [b"http://", b"a:// ", b'"secret":', b'\\"', b"password=", b"{", b"a ", b"token  "]
)
def test_masking_a_hostile_megabyte_costs_no_more_than_its_length(text: bytes) -> None:
    assert mask_payload(text * (1_000_000 // len(text)))


@given(st.binary())
def test_any_bytes_can_be_masked(value: bytes) -> None:
    assert isinstance(mask_payload(value, ["a-secret-of-ours"]), bytes)


@given(st.text())
def test_masking_links_twice_is_masking_them_once(text: str) -> None:
    assert mask_links(mask_links(text)) == mask_links(text)
