"""Throw-away certificates for the broker, in the PEM form that Kafka reads (KIP-651)."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


def write_certificates(ca_file: Path, keystore: Path) -> None:
    """Write the certificate of a new authority, and a key with the certificate it has given to 127.0.0.1."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_file))
    certificate = authority.issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
    # trustme writes its keys as OpenSSL used to; Kafka takes PKCS#8 only.
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    keystore.write_bytes(pkcs8 + chain)
