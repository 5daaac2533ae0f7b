"""How Kafka is reached: the same for what reads and what writes."""

import logging
from dataclasses import dataclass, field
from typing import Any

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
        ca_file: what the provider's certificate must be signed by; None for the system's.
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
            "https.ca.location": self.ca_file,
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


def librdkafka_log() -> logging.Logger:
    """Return the standard-library logger that librdkafka's own lines go to."""
    return logging.getLogger("librdkafka")
