"""What masking promises: no secret gets through, and the rest stays readable."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.credentials import mask_payload, remove_credentials
from consumer.masking import Masker

SECRET = 'p"a\\s/s wörd+&'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        json.dumps({"password": SECRET}),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        f"https://vault/storage#{quote(SECRET, safe='')}",
        f"before{SECRET}after",
    ],
    ids=["plain", "json", "json as utf-8", "repr", "url", "inside a word"],
)
def test_a_secret_is_found_in_every_way_it_is_written(text: str) -> None:
    masked = Masker([SECRET])(text)
    assert "***" in masked
    assert "rd+" not in masked
    assert "p%22" not in masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "see https://u:p@host:9000/b/k.mp4?X-Amz-Signature=abc&x=1 now",
            "see https://***@host:9000/b/k.mp4?*** now",
        ),
        ('"GET /b/k.mp4?sig=abc HTTP/1.1" 200', '"GET /b/k.mp4?*** HTTP/1.1" 200'),
        ("is it there? a=1", "is it there? a=1"),
        ("youruser/1630643468_6-967003_highway4_200-200-400-400_24_769.mp4",) * 2,
        ("https://host/path", "https://host/path"),
    ],
    ids=["url", "request line of urllib3", "a question", "a recording's key", "plain url"],
)
def test_the_telling_parts_of_an_address_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert Masker()(text) == masked


def test_a_value_that_too_short_to_be_a_secret_does_not_garble_the_text() -> None:
    assert (
        Masker(["xxx", "", "a"])("https://xxx.api.vault.kerberos.live")
        == "https://xxx.api.vault.kerberos.live"
    )


def test_logs_and_dead_letters_agree_how_short_a_secret_may_be() -> None:
    for mask in (Masker(["abcde"]), lambda text: mask_payload(text.encode(), ["abcde"]).decode()):
        assert mask("an abcde here") == "an abcde here"
    for mask in (Masker(["abcdef"]), lambda text: mask_payload(text.encode(), ["abcdef"]).decode()):
        assert mask("an abcdef here") == "an *** here"


def test_a_secret_in_base64_is_masked_in_logs_too() -> None:
    login = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert base64.b64encode(SECRET.encode()).decode()[4:12] not in Masker([SECRET])(f"Basic {login}")
    assert "***" in Masker([SECRET])(f"sent {login} there")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter22",
        "b'Authorization: Basic hunter22'",
        'level=info msg="login" cmd="curl -d password=hunter22 x"',
        "{'headers': {'X-Api-Key': 'a\"hunter22'}}",
        "opening rtsp://admin:p'hunter22@cam/1",
        "we sent Authorization: Bearer hunter22",
        "its password: hunter22",
        'Failed to read the token: {"access_token": "hunter22"}',
        "opening rtsp://admin:p hunter22@cam/1",
        "invalid token: eyJhbGciOiJIUzI1NiJ9.eyJhunter22.sig",
        "login with access token: hunter22XYZ9 failed",
        "bad authorization: c2VjcmV0OnBhunter22",
        "bad token: abchunter22, go away",
        "bad token: hunter22.abc",
    ],
)
def test_credentials_of_others_are_masked_in_any_text(text: str) -> None:
    assert "hunter22" not in Masker()(text)


@pytest.mark.parametrize(
    "text",
    [
        "Failed to acquire SASL OAUTHBEARER token: invalid_client, says the provider.",
        'Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client", "error_description": "who?"}',
        "Failed to acquire SASL OAUTHBEARER token: Failed to connect to the provider.",
        "Refused with an invalid token: expired.",
        "TOPIC_AUTHORIZATION_FAILED: topic authorization: failed for 'a'",
        "KAFKA_KEY_PASSWORD is wrong: give the one of the key.",
    ],
)
def test_a_sentence_about_a_credential_stays_readable(text: str) -> None:
    assert Masker()(text) == text
    assert remove_credentials({"note": text}) == {"note": text}


def test_a_recordings_key_can_be_searched_for_in_the_log() -> None:
    fields = {"key": "u/token=1.mp4", "why": "token=1"}
    assert Masker().fields(fields) == {"key": "u/token=1.mp4", "why": "token=***"}
    assert Masker(["our-own-value"]).fields({"key": "our-own-value/1.mp4"}) == {"key": "***/1.mp4"}


def test_a_camera_can_be_searched_for_in_the_log() -> None:
    fields = {"camera": "Brenner Pass: north", "key": "u/Secret: garden.mp4"}
    assert Masker().fields(fields) == fields


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN PRIVATE KEY-----\nhunter22\n-----END PRIVATE KEY-----",
        "Bearer eyJhunter22",
        "password=hunter22",
    ],
)
def test_a_key_inside_a_field_may_be_a_secret(key: str) -> None:
    assert "hunter22" not in json.dumps(Masker().fields({"tls": {"key": key}, "all": [{"key": key}]}))


def test_of_two_secrets_that_begin_alike_the_longer_leaves_no_tail() -> None:
    assert Masker(["password", "password-two"])("password-two") == "***"


def test_fields_named_like_credentials_are_masked_at_any_depth() -> None:
    event = {"data": [{"storage_secret": "a", "signedUrl": "b", "event-token": "0"}], "password": None}
    masked = {"data": [{"storage_secret": "***", "signedUrl": "***", "event-token": "0"}], "password": None}
    assert Masker().value(event) == masked


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values, tail=st.text(min_size=4, max_size=12))
def test_no_value_however_nested_lets_a_secret_through(value: object, tail: str) -> None:
    secret = "zq-" + tail
    masked = Masker([secret]).value(
        {"one": [value, secret], secret: f"<{secret}>", "two": {"deep": (secret,)}}
    )
    assert secret not in json.dumps(masked, ensure_ascii=False)
    assert json.dumps(secret)[1:-1] not in json.dumps(masked)
