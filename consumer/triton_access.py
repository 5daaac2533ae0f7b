"""Access to Triton: TLS, a client certificate, and the header of its restricted protocols; for both halves.

What a server asks for is in its docs/customization_guide/inference_protocols.md, "SSL/TLS" and "Limit
Endpoint Access" (triton-inference-server/server).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumer.certificates import ClientCertificate

HEADER_PREFIX = "triton-grpc-protocol-"
RESTRICTED = "This protocol is restricted"
"""How the sentence of a server begins whose protocols ask for a key; with the header at its end."""
_KEY = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<value>[!-~]+)")


@dataclass(frozen=True)
class ProtocolKey:
    """What `--grpc-restricted-protocol=PROTOCOLS:NAME=VALUE` of the server asks for; never shown."""

    name: str
    value: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "ProtocolKey | None":
        """Return the key of `NAME=VALUE`, or None where it is something else."""
        found = _KEY.fullmatch(text.strip())
        return cls(found["name"], found["value"]) if found else None

    @property
    def headers(self) -> dict[str, str]:
        """The header that goes with each call."""
        return {f"{HEADER_PREFIX}{self.name.lower()}": self.value}


@dataclass(frozen=True)
class TritonAccess:
    """How a Triton is reached: in the clear unless `tls`.

    Attributes:
        tls: whether the connection is encrypted.
        ca_file: the certificates that the server's must be signed by (PEM); None for those that gRPC brings.
        certificate: what we show to a server that asks who we are.
        server_name: what the server's certificate is for, where that is not the name that is connected to.
        key: of its restricted protocols.
    """

    tls: bool = False
    ca_file: Path | None = None
    certificate: ClientCertificate | None = None
    server_name: str | None = None
    key: ProtocolKey | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with each call."""
        return self.key.headers if self.key else {}

    def client_options(
        self, channel_options: list[tuple[str, Any]], server_name: str | None = None
    ) -> dict[str, Any]:
        """Return the arguments of tritonclient's InferenceServerClient, beside the address.

        Args:
            channel_options: of gRPC, in any case.
            server_name: the name behind which this address was found; one that was configured wins.
        """
        name = self.server_name or server_name
        if not self.tls:
            return {"channel_args": channel_options}
        if name:
            channel_options = [*channel_options, ("grpc.ssl_target_name_override", name)]
        pair = self.certificate
        return {
            "channel_args": channel_options,
            "ssl": True,
            "root_certificates": str(self.ca_file) if self.ca_file else None,
            "certificate_chain": str(pair.certificate_file) if pair else None,
            "private_key": str(pair.key_file) if pair else None,
        }

    def refusal(self, said: str) -> str | None:
        """Return why a server does not let us in and what to do, where its failure says so; else None.

        It goes on from a subject: "Triton at triton:8001 …". The signs are gRPC's own words (grpcio 1.85) and
        those of Triton 2.51.

        Args:
            said: the message of the failure.
        """
        if said.startswith(RESTRICTED):
            name = said.rpartition(HEADER_PREFIX)[2].strip("'. ") or "NAME"
            done = "refuses the key that was given" if self.key else "was given no key"
            return f"restricts its protocols and {done}: set TRITON_ACCESS_KEY={name}=VALUE."
        if "Hostname Verification Check failed" in said:
            return "has a certificate for another name: set TRITON_SERVER_NAME to a name that it is for."
        if "CERTIFICATE_VERIFY_FAILED" in said:
            why = said.rpartition("CERTIFICATE_VERIFY_FAILED: ")[2].removesuffix(": OK")
            return f"has a certificate that is not trusted ({why}): name its authority in TRITON_CA_FILE."
        if "WRONG_VERSION_NUMBER" in said:
            return (
                "does not speak TLS: start it with --grpc-use-ssl, or take TRITON_TLS and TRITON_CA_FILE out."
            )
        if said.endswith("Socket closed"):
            return f"closes the connection. {self._doubt()}"
        return None

    def _doubt(self) -> str:
        # It says no more: neither of a client in the clear, nor of one whose certificate it does not take.
        if not self.tls:
            return "Does it speak TLS? Then set TRITON_CA_FILE, or TRITON_TLS=true."
        if self.certificate is None:
            return "Does it ask who we are? Then set TRITON_CERTIFICATE_FILE and TRITON_KEY_FILE."
        return "Does it trust the authority of TRITON_CERTIFICATE_FILE?"
