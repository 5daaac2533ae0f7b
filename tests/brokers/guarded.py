"""A broker that wants to know who asks: by a client certificate, or by a token of an identity provider.

The listener for tokens follows the documentation of Kafka's OAuthBearerValidatorCallbackHandler
(https://kafka.apache.org/40/javadoc/, org.apache.kafka.common.security.oauthbearer).
"""

from pathlib import Path

import trustme

from tests.brokers.kafka import KafkaBroker, free_ports
from tests.fakes.identity_provider import AUDIENCE, ISSUER, IdentityProvider

_OAUTH = "org.apache.kafka.common.security.oauthbearer"


class GuardedBroker(KafkaBroker):
    """A broker with two more listeners, both with TLS: `mutual_bootstrap` and `token_bootstrap` (SASL_SSL).

    Args:
        directory: an empty directory for its data, its configuration and its log.
        identity: whose tokens are taken.
        clients: the authority whose certificates are taken.
    """

    def __init__(self, directory: Path, identity: IdentityProvider, clients: trustme.CA) -> None:
        super().__init__(directory)
        self._identity, self._clients = identity, directory / "clients.pem"
        clients.cert_pem.write_to_path(str(self._clients))
        mutual, token = free_ports(2)
        self.mutual_bootstrap, self.token_bootstrap = f"127.0.0.1:{mutual}", f"127.0.0.1:{token}"

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        java, *rest = super()._java(main_class, *arguments)
        # Kafka asks no address for keys that nobody has allowed, since 4.0.
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._identity.keys_url}"
        return [java, allowed, *rest]

    def _server_properties(self) -> dict[str, str]:
        lines = super()._server_properties()
        more = f",MUTUAL://{self.mutual_bootstrap},TOKEN://{self.token_bootstrap}"
        oauth = "listener.name.token.oauthbearer.sasl"
        return lines | {
            "listeners": lines["listeners"] + more,
            "advertised.listeners": lines["advertised.listeners"] + more,
            "listener.security.protocol.map": lines["listener.security.protocol.map"]
            + ",MUTUAL:SSL,TOKEN:SASL_SSL",
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.mutual.ssl.truststore.type": "PEM",
            "listener.name.mutual.ssl.truststore.location": str(self._clients),
            "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{oauth}.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
            f"{oauth}.server.callback.handler.class": f"{_OAUTH}.OAuthBearerValidatorCallbackHandler",
            "listener.name.token.sasl.oauthbearer.jwks.endpoint.url": self._identity.keys_url,
            "listener.name.token.sasl.oauthbearer.expected.issuer": ISSUER,
            "listener.name.token.sasl.oauthbearer.expected.audience": AUDIENCE,
        }
