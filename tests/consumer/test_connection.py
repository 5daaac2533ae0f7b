"""Each way into Kafka works on a real broker, and where it does not, the sentence says what is wrong."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from consumer.connection import KafkaConnection, OAuthClient
from consumer.errors import StreamSetupError
from consumer.messages import OutgoingMessage
from consumer.sink import ResultSink
from consumer.stream import EventSource
from consumer.topics import read_topic
from tests.authorities import Authority
from tests.brokers import kafka as apache_kafka
from tests.brokers.guarded import GuardedBroker
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic
from tests.conftest import KAFKA_USERS
from tests.fakes.identity_provider import IdentityProvider

CLIENT_ID, CLIENT_SECRET = "vault-ml", "s3cret & more"
SECONDS = 30.0


@dataclass(frozen=True)
class Guarded:
    """A broker that wants to know who asks, and those who vouch for us."""

    broker: GuardedBroker
    identity: IdentityProvider
    clients: Authority
    strangers: Authority

    @property
    def mutual(self) -> KafkaConnection:
        """With TLS, and without a client certificate."""
        return KafkaConnection(self.broker.mutual_bootstrap, "SSL", ca_file=str(self.broker.ca_file))

    def by_token(self, **changed: str) -> KafkaConnection:
        """With a token of the identity provider, which is asked in the clear."""
        client = OAuthClient(self.identity.token_url, CLIENT_ID, CLIENT_SECRET)
        return KafkaConnection(
            self.broker.token_bootstrap,
            "SASL_SSL",
            "OAUTHBEARER",
            ca_file=str(self.broker.ca_file),
            oauth=replace(client, **changed),
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    lacking = apache_kafka.missing()
    if lacking:
        pytest.skip(lacking)
    directory = tmp_path_factory.mktemp("guarded")
    clients, strangers = Authority(directory, "clients-ca"), Authority(directory, "strangers-ca")
    with (
        IdentityProvider(directory, CLIENT_ID, CLIENT_SECRET) as identity,
        GuardedBroker(tmp_path_factory.mktemp("kafka"), identity, clients.ca) as broker,
    ):
        yield Guarded(broker, identity, clients, strangers)


def there_and_back(connection: KafkaConnection, bootstrap: str) -> None:
    """Find a topic as who consumes, and send to it as who produces."""
    topic = create_topic(bootstrap, "ways-in")
    assert EventSource(connection, group="ways-in", topic=topic).check_topic(topic) == 1
    sink = ResultSink(connection, max_message_bytes=1_000_000)
    delivered: list[object] = []
    sink.send(topic, OutgoingMessage(b"key", b"value", []), delivered.append)
    deadline = time.monotonic() + SECONDS
    while not delivered and time.monotonic() < deadline:
        sink.poll(0.1)
    assert delivered == [None]
    assert [each.value for each in read_topic(bootstrap, topic, 1, timeout_seconds=SECONDS)] == [b"value"]


def refusal_of(connection: KafkaConnection) -> str:
    with pytest.raises(StreamSetupError) as caught:
        EventSource(connection, group="refused", topic="any").check_topic("any", timeout_seconds=SECONDS)
    return str(caught.value)


@pytest.mark.parametrize("user", KAFKA_USERS, ids=lambda user: user.mechanism)
@pytest.mark.parametrize("security", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_user_gets_in_with_a_password(kafka: KafkaBroker, user: apache_kafka.User, security: str) -> None:
    tls = security == "SASL_SSL"
    connection = KafkaConnection(
        kafka.tls_bootstrap if tls else kafka.sasl_bootstrap,
        security,
        user.mechanism,
        user.name,
        user.password,
        str(kafka.ca_file) if tls else None,
    )
    there_and_back(connection, kafka.bootstrap)
    said = refusal_of(replace(connection, password="wrong-password"))
    assert said.startswith("Kafka refused the login: ")
    assert "KAFKA_PASSWORD" in said
    assert "wrong-password" not in said


@pytest.mark.parametrize("key_password", [None, "open sesame"], ids=["plain key", "key with a password"])
def test_a_client_certificate_gets_in(guarded: Guarded, key_password: str | None) -> None:
    pair = guarded.clients.pair("consumer", key_password=key_password)
    there_and_back(replace(guarded.mutual, certificate=pair), guarded.broker.bootstrap)


def test_without_a_client_certificate_the_sentence_says_so(guarded: Guarded) -> None:
    said = refusal_of(guarded.mutual)
    assert said.startswith("The brokers want a client certificate")
    assert said.endswith("Check KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE.")


def test_a_strangers_certificate_does_not_get_in(guarded: Guarded) -> None:
    said = refusal_of(replace(guarded.mutual, certificate=guarded.strangers.pair("stranger")))
    assert said.startswith("The brokers want a client certificate, and do not take ours")


def test_a_broker_that_nobody_vouches_for_is_not_spoken_to(guarded: Guarded) -> None:
    pair = guarded.clients.pair("consumer")
    said = refusal_of(replace(guarded.mutual, certificate=pair, ca_file=str(guarded.strangers.ca_file)))
    assert said.startswith("The brokers' certificate is not trusted: ")
    assert said.endswith("Name its authority in KAFKA_CA_FILE.")


def test_a_token_gets_in(guarded: Guarded) -> None:
    guarded.identity.asked.clear()
    there_and_back(guarded.by_token(scope="kafka"), guarded.broker.bootstrap)
    assert {"grant_type": "client_credentials", "scope": "kafka"} in guarded.identity.asked


def test_a_token_comes_over_tls_and_brings_extensions(guarded: Guarded) -> None:
    connection = guarded.by_token(
        token_url=guarded.identity.secure_token_url,
        ca_file=str(guarded.identity.ca_file),
        extensions="logicalCluster=lkc-1,identityPoolId=pool-1",
    )
    there_and_back(connection, guarded.broker.bootstrap)


def test_a_provider_that_nobody_vouches_for_gets_no_secret(guarded: Guarded) -> None:
    guarded.identity.asked.clear()
    said = refusal_of(guarded.by_token(token_url=guarded.identity.secure_token_url))
    assert said.startswith("There is no token for Kafka: ")
    assert "unable to get local issuer certificate" in said
    assert "KAFKA_OAUTH_CA_FILE" in said
    assert guarded.identity.asked == []


def test_a_client_that_the_provider_does_not_know_is_said(guarded: Guarded) -> None:
    said = refusal_of(guarded.by_token(client_secret="a wrong secret"))
    assert said.startswith("There is no token for Kafka: ")
    assert "invalid_client" in said
    assert "KAFKA_OAUTH_CLIENT_SECRET" in said


def test_a_token_that_the_brokers_do_not_take_is_said(guarded: Guarded, tmp_path: Path) -> None:
    with IdentityProvider(tmp_path, CLIENT_ID, CLIENT_SECRET) as other:  # signs with a key of its own
        said = refusal_of(guarded.by_token(token_url=other.token_url))
    assert said.startswith("Kafka refused the token: ")
    assert "KAFKA_OAUTH_SCOPE" in said
