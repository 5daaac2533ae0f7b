"""Options of a Triton that wants to know who asks: TLS, client certificates, keys of restricted protocols.

Those of its docs/customization_guide/inference_protocols.md (triton-inference-server/server).
"""

from pathlib import Path

from consumer.certificates import ClientCertificate

SERVER_NAME = "triton.example.com"
"""What its certificate is for, wherever it listens."""

ACCESS_KEY = "let-me-ask"
ADMIN_KEY = "let-me-in"


def over_tls(own: ClientCertificate, *, clients_ca: Path | None = None) -> list[str]:
    """Return the options of a server with this certificate; with `clients_ca` it wants one of ours too."""
    options = [
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={own.certificate_file}",
        f"--grpc-server-key={own.key_file}",
    ]
    return (
        options
        if clients_ca is None
        else [*options, "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={clients_ca}"]
    )


RESTRICTED = [
    f"--grpc-restricted-protocol=inference,metadata,model-config,health:token={ACCESS_KEY}",
    f"--grpc-restricted-protocol=model-repository:admin={ADMIN_KEY}",
]
"""All that consumers ask behind one key, all that changes models behind another."""
