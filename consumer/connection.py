"""How Kafka is reached: the same for what reads and what writes."""

import logging
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError

AUTHENTICATION_FAILED = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
NOT_AUTHORISED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


@dataclass(frozen=True)
class KafkaConnection:
    """How to reach the brokers; the secret does not show in its representation."""

    brokers: str
    security: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
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
            properties |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        if self.ca_file:
            properties["ssl.ca.location"] = self.ca_file
        return properties


def librdkafka_log() -> logging.Logger:
    """Return the standard-library logger that librdkafka's own lines go to."""
    return logging.getLogger("librdkafka")
