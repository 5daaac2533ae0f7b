"""What is missing beside a setting, or contradicts it, is said at start; so is what does nothing."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer import settings
from consumer.errors import SettingsError
from consumer.parts import kafka_connection, triton_access
from tests.authorities import Authority
from tests.consumer.test_settings import MINIMAL, SASL

OAUTH = {
    "KAFKA_SECURITY": "SASL_SSL",
    "KAFKA_MECHANISM": "oauthbearer",
    "KAFKA_OAUTH_TOKEN_URL": "https://id.example.com/token",
    "KAFKA_OAUTH_CLIENT_ID": "vault-ml",
    "KAFKA_OAUTH_CLIENT_SECRET": "oauth-secret",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def problems_of(environ: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings.load({**MINIMAL, **environ})
    return caught.value.problems


def test_a_login_with_a_token_needs_no_user() -> None:
    connection = kafka_connection(settings.load(MINIMAL | OAUTH))
    properties = connection.properties()
    assert properties["sasl.mechanism"] == "OAUTHBEARER"
    assert properties["sasl.oauthbearer.token.endpoint.url"] == "https://id.example.com/token"
    assert "sasl.username" not in properties
    assert "oauth-secret" not in repr(connection)


@pytest.mark.parametrize("name", ["TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET"])
def test_a_login_with_a_token_says_what_it_misses(name: str) -> None:
    missing = f"KAFKA_OAUTH_{name}"
    (problem,) = problems_of({each: value for each, value in OAUTH.items() if each != missing})
    assert problem == (
        f"{missing} is not set, but KAFKA_MECHANISM is OAUTHBEARER: give that of the identity provider."
    )


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://id.example.com/token", "the client's secret would travel in the clear"),
        ("id.example.com", "give the address of the token endpoint as https://"),
        ("https://vault-ml:hunter2@id.example.com/token", "has a user or password in it"),
        ("https://id.example.com:no/token", "give the address of the token endpoint as https://"),
    ],
)
def test_an_address_for_tokens_that_will_not_do_is_said(url: str, sentence: str) -> None:
    (problem,) = problems_of(OAUTH | {"KAFKA_OAUTH_TOKEN_URL": url})
    assert problem.startswith("KAFKA_OAUTH_TOKEN_URL ")
    assert sentence in problem
    assert "hunter2" not in problem


def test_a_provider_on_this_machine_may_speak_in_the_clear() -> None:
    # As a sidecar does.
    assert settings.load(MINIMAL | OAUTH | {"KAFKA_OAUTH_TOKEN_URL": "http://127.0.0.1:8080/token"})


@pytest.mark.parametrize("extensions", ["logicalCluster", "a b=c", "=x"])
def test_extensions_that_will_not_do_are_said(extensions: str) -> None:
    (problem,) = problems_of(OAUTH | {"KAFKA_OAUTH_EXTENSIONS": extensions})
    assert problem.startswith("KAFKA_OAUTH_EXTENSIONS is no list of name=value")


@pytest.mark.parametrize("family", ["KAFKA", "TRITON"])
@pytest.mark.parametrize(("there", "missing"), [("CERTIFICATE", "KEY"), ("KEY", "CERTIFICATE")])
def test_half_of_a_client_certificate_is_said(
    authority: Authority, family: str, there: str, missing: str
) -> None:
    path = authority.pair("half").certificate_file
    (problem,) = problems_of({f"{family}_{there}_FILE": str(path), "KAFKA_SECURITY": "SSL"})
    assert problem == (
        f"{family}_{missing}_FILE is not set, but {family}_{there}_FILE is: a client certificate needs both."
    )


@pytest.mark.parametrize("family", ["KAFKA", "TRITON"])
def test_a_key_that_belongs_to_another_certificate_is_said(authority: Authority, family: str) -> None:
    one, other = authority.pair("one"), authority.pair("other")
    (problem,) = problems_of(
        {
            "KAFKA_SECURITY": "SSL",
            f"{family}_CERTIFICATE_FILE": str(one.certificate_file),
            f"{family}_KEY_FILE": str(other.key_file),
        }
    )
    assert problem.startswith(f"{family}_KEY_FILE is ")
    assert f"does not belong to the certificate in {family}_CERTIFICATE_FILE" in problem


def test_a_client_certificate_of_kafka_may_have_a_password(authority: Authority) -> None:
    pair = authority.pair("locked", key_password="open sesame")
    files = {
        "KAFKA_CERTIFICATE_FILE": str(pair.certificate_file),
        "KAFKA_KEY_FILE": str(pair.key_file),
        "KAFKA_SECURITY": "SSL",
    }
    connection = kafka_connection(settings.load(MINIMAL | files | {"KAFKA_KEY_PASSWORD": "open sesame"}))
    assert connection.properties()["ssl.key.password"] == "open sesame"
    assert "sesame" not in repr(connection)
    assert problems_of(files) == [
        f"KAFKA_KEY_FILE is {str(pair.key_file)!r}, which is encrypted with a password: "
        "set KAFKA_KEY_PASSWORD."
    ]


def test_a_key_of_triton_has_no_password(authority: Authority) -> None:
    pair = authority.pair("locked", key_password="open sesame")
    (problem,) = problems_of(
        {"TRITON_CERTIFICATE_FILE": str(pair.certificate_file), "TRITON_KEY_FILE": str(pair.key_file)}
    )
    assert problem.endswith("which is encrypted with a password: store it without one.")


def test_an_authority_switches_tls_to_triton_on(authority: Authority) -> None:
    assert not triton_access(settings.load(MINIMAL)).tls
    assert triton_access(settings.load(MINIMAL | {"TRITON_CA_FILE": str(authority.ca_file)})).tls
    assert triton_access(settings.load(MINIMAL | {"TRITON_TLS": "true"})).tls


def test_an_authority_without_tls_is_a_contradiction(authority: Authority) -> None:
    (problem,) = problems_of({"TRITON_CA_FILE": str(authority.ca_file), "TRITON_TLS": "false"})
    assert problem == "TRITON_CA_FILE is set, but TRITON_TLS is false: remove one of them."


def test_the_key_of_triton_is_masked_as_a_whole_and_as_its_value() -> None:
    loaded = settings.load(MINIMAL | {"TRITON_ACCESS_KEY": "token=let-me-in"})
    assert {"token=let-me-in", "let-me-in"} <= set(settings.secret_values(loaded))
    assert triton_access(loaded).headers == {"triton-grpc-protocol-token": "let-me-in"}
    assert "let-me-in" not in repr(triton_access(loaded))


def test_a_key_of_triton_without_a_name_is_said_and_not_shown() -> None:
    (problem,) = problems_of({"TRITON_ACCESS_KEY": "let-me-in"})
    assert problem.startswith("TRITON_ACCESS_KEY will not do: write NAME=VALUE")
    assert "let-me-in" not in problem


@pytest.mark.parametrize(
    ("environ", "idle"),
    [
        (SASL | {"KAFKA_OAUTH_SCOPE": "kafka"}, "KAFKA_OAUTH_SCOPE"),
        (OAUTH | {"KAFKA_PASSWORD": "secret"}, "KAFKA_PASSWORD"),
        ({"KAFKA_SECURITY": "PLAINTEXT", "KAFKA_KEY_FILE": "/key"}, "KAFKA_KEY_FILE"),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_KEY_PASSWORD": "secret"}, "KAFKA_KEY_PASSWORD"),
        ({"TRITON_SERVER_NAME": "triton"}, "TRITON_SERVER_NAME"),
    ],
    ids=["scope", "password", "key", "key password", "server name"],
)
def test_what_does_nothing_is_said(environ: dict[str, str], idle: str, tmp_path: Path) -> None:
    (sentence,) = settings.warnings(MINIMAL | environ, dev=tmp_path)
    assert sentence.startswith(f"{idle} is set but does nothing: ")
