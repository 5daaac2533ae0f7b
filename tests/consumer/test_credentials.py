"""Nothing secret leaves, and nothing else is touched."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.credentials import mask_payload, remove_credentials
from consumer.links import mask_links
from consumer.masking import Masker
from consumer.secret_names import MASK, is_secret_name
from tests.fakes.recorded_events import README_EVENT, SECRETS, VERSIONS, WORKFLOW_RUN


@pytest.mark.parametrize(
    "name",
    [
        "storage_secret", "storage_access_key", "storage_uri", "signedUrl", "secretKey", "accessKey",
        "Password",
        "vaultOverrideSecretKey", "amazon_secret_access_key", "thumbnailSignedUrl", "X-Api-Key", "token",
        "access_token", "Authorization", "pass", "pwd", "bearer", "auth", "apiToken", "api_token",
        "security_token", "x-amz-security-token", "hubToken", "user_token", "sas_url", "hub_key",
        "recording_encryption_key", "encryption_passphrase", "mqtt_pass", "mqttPass", "storage_secret_2",
        "access.key", "s3_secret1", "Set-Cookie", "AGENT_HUB_KEY", "X-Kerberos-Cloud-Key", "userpass",
        "dbpass", "rtsppass", "userpwd", "loginpas",
    ],
)  # fmt: skip
def test_a_name_that_says_secret_is_one(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["event-token", "publickey", "productid", "key", "monitorStage", "cloudkey", "signed", "user",
     "compass", "bypass", "Brenner Pass", "max_tokens", "tokenizer", "password_hint", "sha256"]
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
        ("rtsp://admin:p'hunter2@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin:p<hunter2@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin:p hunter2@cam/1", "rtsp://***@cam/1"),
        ('rtsp://admin:p"hunter2@cam/1', "rtsp://***@cam/1"),
        ("rtsp://admin:p\\hunter2@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin:p@hunter2/x@cam/1", "rtsp://***@cam/1"),
        ("http://admin:p@hunter2/x@cam/1", "http://***@cam/1"),
        ("rtsp://a:b@c/1,rtsp://d:e@f/2", "rtsp://***@c/1,rtsp://***@f/2"),
        ("https://h/p?back=https://a:b@c/", "https://h/p?back=https://***@c/"),
        ("https://h/p?name='a'&X-Amz-Signature=abc", "https://h/p?***"),
        ("<https://h/p?sig=abc>, then", "<https://h/p?***>, then"),
        ("rtsp://cam:554/1 is seen by me@example.com", "rtsp://cam:554/1 is seen by me@example.com"),
        ("https://u:p@h/mail?to=a@b.c", "https://***@h/mail?to=a@b.c"),
        ("http://[2001:db8::1]/x,680@0", "http://[2001:db8::1]/x,680@0"),
        ("rtsp://[2001:db8::1]:554/live@main", "rtsp://[2001:db8::1]:554/live@main"),
        ("rtsp://admin:pass@[2001:db8::1]/x@0", "rtsp://***@0"),
        ("http://admin:pass@[2001:db8::1]/x", "http://***@[2001:db8::1]/x"),
        ("rtsp://[admin]:pass@cam/1", "rtsp://***@cam/1"),
        ("http://[::1]:pass@cam/1", "http://***@cam/1"),
        ("rtsp://cam/live@main", "rtsp://cam/live@main"),
        ("rtsp://cam/a/live@main?x=1", "rtsp://cam/a/live@main?x=1"),
        ("rtsp://adm/in:pass@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin@cam/1", "rtsp://***@cam/1"),
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


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIhunter22\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key", [PEM, "Bearer eyJhunter22.abc", "password=hunter22", '{"password": "hunter22"}'],
    ids=["PEM", "bearer", "text", "JSON"],
)  # fmt: skip
def test_only_a_recordings_key_is_an_identifier_and_every_other_key_may_be_a_secret(key: str) -> None:
    event = {
        "payload": {"key": "u/token=1.mp4", "x": {"key": key}},
        "key": key,
        "data": {"tls": {"key": key}},
    }
    for shape in (event, {"message": event}, [event], {"result": json.dumps(event)}):
        assert b"hunter22" not in mask_payload(json.dumps(shape).encode())
    assert "hunter22" not in json.dumps(remove_credentials(event))
    assert "hunter22" not in json.dumps(remove_credentials({"payload": [{"key": key}]}))
    assert remove_credentials(event)["payload"]["key"] == "u/token=1.mp4"
    for wrapped in ({"message": event}, [event], event):
        assert b'"u/token=1.mp4"' in mask_payload(json.dumps(wrapped).encode())


CAMERAS = [
    "Brenner Pass: north", "Mountain Pass: North", "Secret: garden", "Auth=Lobby", "Entry/Auth: A",
    "Token: 3", "Bearer Northside", "Gate <Pass>2", "Cookie: jar", "credentials: desk", "Front\\u0026Back",
    '{"token": "B2"}', "rtsp://cam/live@main", "http://[2001:db8::1]/x,680@0",
]  # fmt: skip


@pytest.mark.parametrize("name", [*CAMERAS, "u/token=1_a.mp4"])
def test_what_cameras_files_and_providers_are_called_stays_whatever_it_is(name: str) -> None:
    event = {
        "fileName": name, "source": name, "provider": name, "secondary_providers": [name], "password": "x",
        "payload": {"key": name, "deviceName": name, "metadata": {"event-instancename": name}},
        "monitorStage": {"device": {"deviceName": name}},
    }  # fmt: skip
    kept = {key: item for key, item in event.items() if key != "password"}
    assert remove_credentials(event) == kept
    assert json.loads(mask_payload(json.dumps(event).encode())) == kept | {"password": "***"}


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: "://" not in name))
def test_an_identifier_without_a_link_in_it_comes_through_as_it_is(name: str) -> None:
    event = {"source": name, "payload": {"key": name, "metadata": {"event-instancename": name}}}
    assert remove_credentials(event) == event
    assert mask_payload(json.dumps(event).encode()) == json.dumps(event).encode()


def test_an_identifier_is_masked_where_it_holds_a_login_or_a_setting_of_ours() -> None:
    event = {"source": "our-own-value", "payload": {"deviceName": "rtsp://admin:hunter22@cam/1"}}
    clean = {"source": "***", "payload": {"deviceName": "rtsp://***@cam/1"}}
    assert remove_credentials(event, ["our-own-value"]) == clean
    assert json.loads(mask_payload(json.dumps(event).encode(), ["our-own-value"])) == clean


def test_our_own_secrets_are_masked_in_what_is_removed_from_too() -> None:
    event = {"note": {"v": "our-own-value"}, "n": 1, "our-own-value": "cam/our-own-value"}
    removed = remove_credentials(event, ["our-own-value"])
    assert removed == {"note": {"v": "***"}, "n": 1, "***": "cam/***"}


def test_removing_leaves_the_event_itself_alone() -> None:
    event: dict[str, Any] = {"data": {"storage_secret": "x"}}
    remove_credentials(event)
    assert event == {"data": {"storage_secret": "x"}}


FLAGS: dict[str, object] = {
    "hasPassword": True, "requiresToken": False, "auth": None, "bearer": "", "secrets": [], "credentials": {},
    "x": [{"name": "password", "value": False}],
}  # fmt: skip


@pytest.mark.parametrize("write", [json.dumps, repr, lambda value: json.dumps(value)[:-1]])
def test_what_tells_nothing_keeps_its_value_and_its_type_under_any_name(
    write: Callable[[object], str],
) -> None:
    assert remove_credentials({"user": FLAGS, "text": write(FLAGS)}) == {"user": FLAGS, "text": write(FLAGS)}
    assert mask_payload(write(FLAGS).encode()) == write(FLAGS).encode()
    assert Masker().value(FLAGS) == FLAGS
    assert Masker()(write(FLAGS)) == write(FLAGS)


def test_a_number_may_be_a_pin() -> None:
    assert remove_credentials({"secret": 0, "password": 1234}) == {}
    assert json.loads(mask_payload(b'{"secret": 0}')) == {"secret": "***"}


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


BESIDE = [
    b'<wsse:Password Type="http://docs#PasswordDigest">hunter22</wsse:Password>',
    b"<wsse:Password\n Type='#PasswordText'> hunter22",
    b"Invalid API key: sk-live-hunter22",
    b"secret key = hunter22",
    b'its "private key": "hunter22"',
    b"('X-Api-Key', 'hunter22')",
    b'sent [("Accept", "x"), ("Authorization", "hunter22")]',
    b"(b'authorization', b'hunter22')",
    b'["password","hunter22"]',
    b'{"headers": [["X-Api-Key", "hunter22"]], x',
    b'<add name="password" value="hunter22"/>',
    b"tokens: hunter22",
    b"apiKeys=1hunter22",
    b"http://cam/cgi?loginuse=a&loginpas=hunter22",
    b"-----BEGIN PGP PRIVATE KEY BLOCK-----\nhunter22\n",
    b"X-Kerberos-Cloud-Key: hunter22",
    b"AGENT_HUB_KEY=hunter22",
    b"passphrase: correct horse hunter22",
    b"AGENT_PASSPHRASE=correct horse hunter22",
    b"password: |\n  hunter22",
    b"user: a\npassword: >-\n  two\n\n  lines hunter22\nend: x",
    b"token: |2\r\n  hunter22\r\n",
]
"""Values with their names beside them, or further away than usual."""


@pytest.mark.parametrize("text", BESIDE)
def test_a_value_beside_its_name_is_masked_in_results_letters_and_logs_alike(text: bytes) -> None:
    assert "hunter22" not in json.dumps(remove_credentials({"note": text.decode()}))
    assert b"hunter22" not in mask_payload(json.dumps({"note": text.decode()}).encode())
    assert "hunter22" not in Masker()(text.decode())


@pytest.mark.parametrize(
    "value",
    [
        [["X-Api-Key", "hunter22"]],
        {"headers": [["Accept", "x"], ["Authorization", "hunter22"]]},
        {"k": "password", "v": "hunter22"},
        {"id": "password", "value": "hunter22"},
        {"tokens": ["hunter22"]},
        {"tokens": "hunter22"},
        {"apiKeys": {"hub": "hunter22"}},
        {"env": [{"name": "AGENT_HUB_KEY", "value": "hunter22"}]},
        {"userpass": "hunter22"},
    ],
)
def test_pairs_and_lists_of_secrets_are_masked_in_results_letters_and_logs_alike(value: object) -> None:
    assert "hunter22" not in json.dumps(remove_credentials({"x": value}))
    for shape in (value, {"x": value}, {"x": json.dumps(value)}):
        assert b"hunter22" not in mask_payload(json.dumps(shape).encode())
    assert "hunter22" not in json.dumps(Masker().value(value))


def test_what_follows_a_value_over_several_lines_stays() -> None:
    masked = mask_payload(b"passphrase: correct horse\npassword: |\n  hunter22\n\n  x\nuser: a\n")
    assert masked == b"passphrase: ***\npassword: ***\nuser: a\n"


@pytest.mark.parametrize(
    "value",
    [
        {"tokens": 3, "apiKeys": 0, "max_tokens": 4096},
        {"name": "Brenner Pass", "value": 3},
        {"events": ["token", "throttler"]},
        {"fields": ["password", "mail"]},
        {"Brenner Pass": {"cameras": 2}},
        "primary key: camera; 3 tokens: 7, a key = 5",
        '<camera name="gate" value="3">north</camera>',
    ],
)
def test_what_only_looks_like_a_pair_stays_as_it_is(value: object) -> None:
    assert remove_credentials({"x": value}) == {"x": value}
    assert mask_payload(json.dumps(value).encode()) == json.dumps(value).encode()
    assert Masker().value(value) == value


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
        b"Authorization: Bearer hunter22",
        b'curl -H "Authorization: Bearer hunter22" https://h/',
        b'Authorization: Digest username="u", response="hunter22"',
        b"Cookie: a=1; session=hunter22",
        b'{"headers": ["Authorization: Bearer hunter22"]}',
        b'{"headers": [{"name": "Authorization", "value": "Bearer hunter22"}]}',
        b'{"log": "password=hunter22"}',
        b'{"log": "password=hunter22", ',
        b'level=info msg="login" cmd="curl -d password=hunter22 x"',
        b'{"password": "a\\"hunter22", x',
        b"{'password': 'a\\'hunter22'}",
        b'{"credentials": ["u]", "hunter22"], x',
        b'{"credentials": {"user": "u", "value": "hunter22"}, x',
        b'{"inner": "{\\"credentials\\": [\\"u\\", \\"hunter22\\"]}", x',
        b'{"storage\\u005fsecret": "hunter22", x',
        b'"\\u0022password\\u0022:\\u0022hunter22\\u0022", x',
        b'"first line\\npassword=hunter22", x',
        b"'password' => 'hunter22'",
        b"<password>hunter22</password>",
        b"token: Bearer hunter22",
        b'{"headers": [["Authorization", "Bearer hunter22"]]}',
        b"refused: Bearer hunter22.x, go away",
        b'{"x": [{"Name": "Password", "Value": "hunter22"}]}',
        b'{"t": "GET /k.mp4?a=1&X-Amz-Signature=hunter22 HTTP/1.1"}',
        b"?sig=hunter22",
        b'{"pem": "-----BEGIN RSA PRIVATE KEY-----\\nhunter22\\n-----END RSA PRIVATE KEY-----"}',
        b"-----BEGIN PRIVATE KEY-----\nhunter22\n",
        b'{"u": "rtsp:\\/\\/admin:hunter22@cam\\/1"}, x',
        *BESIDE,
        b'{"u": "https:\\/\\/h\\/p?a=1\\u0026X-Amz-Signature=hunter22"}, x',
    ],
)
def test_what_is_no_json_is_masked_as_well_as_possible(value: bytes) -> None:
    assert b"hunter22" not in mask_payload(value)


def _compact(value: object) -> str:
    """As Go writes JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


WRITERS: dict[str, Callable[[object], str]] = {
    "Python": json.dumps,
    "Go": _compact,
    "PHP": lambda value: json.dumps(value).replace("/", "\\/"),
    "Python's repr": repr,
}
SHAPES: dict[str, Callable[[str], object]] = {
    "a value": lambda secret: {"storage_secret": secret},
    "a list": lambda secret: {"credentials": ["u", secret]},
    "an object": lambda secret: {"credentials": [{"user": "u", "value": [secret]}]},
    "a header": lambda secret: [{"name": "Authorization", "value": f"Bearer {secret}"}],
    "a signature": lambda secret: {
        "thumbnail": f"https://h/b/k.mp4?a=1&X-Amz-Date=2&X-Amz-Signature={quote(secret)}"
    },
    "a camera": lambda secret: {"stream": f"rtsp://admin:{secret}@cam:554/1"},
}
PLANTED = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters="*"), max_size=8
)
"""What may stand before the needle in a secret: quotes, brackets, `@` and backslashes among it."""
NEEDLE = "HUNTER22"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("writer", WRITERS)
@given(before=PLANTED, levels=st.integers(0, 4), cut=st.sampled_from([0, 1, 3]))
def test_no_credential_survives_whoever_wrote_it_and_however_deep(
    writer: str, shape: str, before: str, levels: int, cut: int
) -> None:
    write = WRITERS[writer]
    text = write({"payload": {"key": "a.mp4"}, "x": SHAPES[shape](before + NEEDLE), "z": 1})
    for _ in range(levels):
        text = write({"result": text, "z": 1})
    text = text[: len(text) - cut]
    if shape == "a header" and (cut or writer == "Python's repr" or levels > 2):
        return  # a name beside its value, not in front of it, is known in what is parsed only
    if shape == "a camera" and writer == "Python's repr" and '"' in before:
        return  # it leaves `"` as it is, which is read as the end of a string of JSON
    assert NEEDLE not in mask_payload(text.encode()).decode()
    assert NEEDLE not in json.dumps(remove_credentials({"payload": {"result": text}}))


INNOCENT = st.text(st.characters(exclude_characters=":=@<>\\", exclude_categories=["Cs"]), max_size=20)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | INNOCENT,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(INNOCENT.filter(lambda name: not is_secret_name(name)), inner, max_size=4)
        ),
    )
)
def test_an_innocent_value_stays_as_it_is(value: object) -> None:
    for text in (json.dumps(value), json.dumps({"result": json.dumps(value)})):
        assert mask_payload(text.encode()) == text.encode()
    assert remove_credentials({"x": value, "y": json.dumps(value)}) == {"x": value, "y": json.dumps(value)}


@pytest.mark.parametrize(
    "text",
    [
        "The camera 'a' failed: token bucket is empty.",
        "rtsp://cam:554/1 at 12:30:05, see https://h/p?page=2 or a@b.c",
        "secret > 5, keys: 3; author=me",
        '{"key": "u/1630643468_6-967003_highway4_200-200-400-400_24_769.mp4", "n": 1',
        "C:\\new\\text.txt: 3 = three",
        "token: null, password = ''",
        "The bearer certificates are old; sig=1, policy=none",
    ],
)
def test_innocent_text_stays_as_it_is(text: str) -> None:
    assert mask_payload(text.encode()) == text.encode()


@pytest.mark.parametrize("form", ["plain", "json", "url"])
def test_our_own_secrets_are_masked_wherever_they_stand(form: str) -> None:
    secret = 'a/"secret"ö key'
    shown = {"plain": secret, "json": json.dumps(secret), "url": "a%2F%22secret%22%C3%B6%20key"}[form]
    masked = mask_payload(f"innocent: {shown} end".encode(), [secret, "xxx", ""])
    assert b"***" in masked
    assert b"secret" not in masked
    assert masked.startswith(b"innocent: ")
    assert masked.endswith(b" end")


WAYS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": json.dumps,
    "JSON as UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON of JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON with other escapes": lambda text: "".join(f"\\u{unit:04X}" for unit in _utf16(text)),
    "URL": lambda text: quote(text, safe=""),
    "path of a URL": quote,
    "form": quote_plus,
    "URL in small letters": lambda text: re.sub(
        "%..", lambda code: code.group().lower(), quote(text, safe="")
    ),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
}


def _utf16(text: str) -> list[int]:
    units = text.encode("utf-16-be")
    return [high << 8 | low for high, low in zip(units[::2], units[1::2], strict=True)]


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)  # the pattern of a secret is made once, which a slow machine takes its time for
@given(
    secret=st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=6, max_size=24),
    before=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    after=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    surroundings=st.sampled_from([b'{"note": "%s"}', b"\xff\x00 %s \xfe", b"%s"]),
)
def test_no_planted_secret_survives_however_it_is_written(
    way: str, secret: str, before: str, after: str, surroundings: bytes
) -> None:
    planted = WAYS[way](before + secret + after).encode()
    masked = mask_payload(surroundings % planted, [secret])
    assert MASK.encode() in masked
    if way.startswith("base64"):
        assert not any(secret.encode() in text for text in _decoded(masked))
    else:
        assert WAYS[way](secret).strip('"').encode() not in masked


def _decoded(text: bytes) -> Iterator[bytes]:
    """Yield what the pieces of a text say in base64, wherever a reader begins."""
    for piece in re.findall(rb"[A-Za-z0-9+/]+", text.translate(bytes.maketrans(b"-_", b"+/"))):
        for cut in range(4):
            whole = piece[cut : cut + (len(piece) - cut) // 4 * 4]
            rest = piece[cut + len(whole) :]
            yield base64.b64decode(whole + (rest.ljust(4, b"=") if len(rest) > 1 else b""))


def test_what_is_beside_a_secret_stays_readable() -> None:
    event = json.dumps({"note": 'Bearer "our\\/secret" of us', "n": 1})
    assert json.loads(mask_payload(event.encode(), ['"our\\/secret"'])) == {
        "note": "Bearer *** of us",
        "n": 1,
    }


@pytest.mark.timeout(60)  # quadratic behaviour would take hours
@pytest.mark.parametrize("text", [b"\\", b"%", b"\\u0061", b"a", b"AAAA", b"%25"])
def test_looking_for_secrets_in_a_hostile_megabyte_costs_no_more_than_its_length(text: bytes) -> None:
    secrets = ["a" * 40 + "x", "\\" * 12 + "x", "%25" * 8 + "x"]
    assert mask_payload(text * (1_000_000 // len(text)), secrets)


def test_short_settings_do_not_tear_holes() -> None:
    assert mask_payload(b"user xxx", ["user", "xxx"]) == b"user xxx"


@pytest.mark.timeout(60)  # quadratic behaviour would take hours
@pytest.mark.parametrize(
    "text",
    [
        b"http://",
        b"a:// ",
        b'"secret":',
        b'\\"',
        b"password=",
        b"{",
        b"a ",
        b"token  ",
        b"a",
        b"\\",
        b":\\",
        b'token:"',
        b'token:\\"',
        b'"credentials":[',
        b'cookie:="',
        b"a://?a=b&",
        b"rtsp://a:b ",
        b"a:\\n",
        b"\\u0061",
        b"\\\\u0061",
        b"rtsp://a:b@",
        b"@",
        b"-----BEGIN PRIVATE KEY-----",
        b"bearer ",
        b"-----BEGIN ",
        b"<token ",
        b"<token a>",
        b"<token a> ",
        b'["token","',
        b'["token","a',
        b"('token', '",
        b'name="token" value="',
        b"api key: ",
        b"tokens: 1",
        b"token: |\n ",
        b"token: |\n\n",
        b"passphrase: a ",
    ],
)
def test_masking_a_hostile_megabyte_costs_no_more_than_its_length(text: bytes) -> None:
    assert mask_payload(text * (1_000_000 // len(text)))


@given(st.binary())
def test_any_bytes_can_be_masked(value: bytes) -> None:
    assert isinstance(mask_payload(value, ["a-secret-of-ours"]), bytes)


@given(st.text())
def test_masking_links_twice_is_masking_them_once(text: str) -> None:
    assert mask_links(mask_links(text)) == mask_links(text)
