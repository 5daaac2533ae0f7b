"""How Kafka is reached: the same for what reads and what writes."""

import logging
from dataclasses import dataclass, field
from ssl import get_default_verify_paths
from typing import Any

import certifi
from confluent_kafka import KafkaError

from consumer.certificates import ClientCertificate

AUTHENTICATION_FAILED = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
NOT_AUTHORISED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


@dataclass(frozen=True)
class OAuthClient:
    """Who asks which identity provider for tokens; librdkafka does that itself (client credentials).

    Attributes:
        extensions: `name=value,…`, which go to the brokers beside the token.
        ca_file: what the provider's certificate must be signed by; None for the usual ones.
    """

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    extensions: str | None = None
    ca_file: str | None = None

    def properties(self) -> dict[str, Any]:
        """Return librdkafka's properties for this login."""
        properties = {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": self.token_url,
            "sasl.oauthbearer.client.id": self.client_id,
            "sasl.oauthbearer.client.secret": self.client_secret,
            "sasl.oauthbearer.scope": self.scope,
            "sasl.oauthbearer.extensions": self.extensions,
            # The wheel's own default is the place of one distribution, and looking at others' fails there.
            "https.ca.location": self.ca_file or get_default_verify_paths().cafile or certifi.where(),
        }
        return {name: value for name, value in properties.items() if value is not None}


@dataclass(frozen=True)
class KafkaConnection:
    """How to reach the brokers; no secret shows in its representation."""

    brokers: str
    security: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    certificate: ClientCertificate | None = None
    oauth: OAuthClient | None = None
    client_id: str = "vault-ml"

    def properties(self) -> dict[str, Any]:
        """Return librdkafka's properties for this connection (its CONFIGURATION.md)."""
        properties: dict[str, Any] = {
            "bootstrap.servers": self.brokers,
            "security.protocol": self.security,
            "client.id": self.client_id,
            # Only what is critical: while no broker answers, each attempt would be a line of its own. What
            # matters comes through the error callback, and through the outcome of what was asked.
            "log_level": 2,
        }
        if self.security.startswith("SASL"):
            properties["sasl.mechanism"] = self.mechanism
            properties |= (
                self.oauth.properties()
                if self.oauth
                else {"sasl.username": self.username, "sasl.password": self.password}
            )
        if self.ca_file:
            properties["ssl.ca.location"] = self.ca_file
        if self.certificate:
            properties |= {
                "ssl.certificate.location": str(self.certificate.certificate_file),
                "ssl.key.location": str(self.certificate.key_file),
            }
            if self.certificate.key_password:
                properties["ssl.key.password"] = self.certificate.key_password
        return properties


def refusal(connection: KafkaConnection, error: KafkaError) -> str | None:
    """Return the sentence of an error that no waiting mends: who is refused by whom, and what to look at.

    librdkafka has no codes for most of them, only words (2.16).

    Args:
        connection: how the brokers are reached.
        error: what the error callback got.
    """
    said = error.str()
    if error.code() in AUTHENTICATION_FAILED:
        if connection.oauth is None:
            return (
                f"Kafka refused the login: {said}. Check KAFKA_USERNAME, KAFKA_PASSWORD, KAFKA_MECHANISM and "
                "KAFKA_SECURITY."
            )
        if "Failed to acquire" in said:
            return (
                f"There is no token for Kafka: {said}. Check KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID, "
                "KAFKA_OAUTH_CLIENT_SECRET and KAFKA_OAUTH_CA_FILE."
            )
        return (
            f"Kafka refused the token: {said}. Check KAFKA_OAUTH_SCOPE and KAFKA_OAUTH_EXTENSIONS, and the "
            "issuer and audience that the brokers expect."
        )
    if "certificate verify failed" in said:
        return f"The brokers' certificate is not trusted: {said}. Name its authority in KAFKA_CA_FILE."
    if "alert" in said and ("certificate" in said or "unknown ca" in said):
        return (
            f"The brokers want a client certificate, and do not take ours or have none: {said}. "
            "Check KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE."
        )
    return None


def librdkafka_log() -> logging.Logger:
    """Return the standard-library logger that librdkafka's own lines go to."""
    return logging.getLogger("librdkafka")
