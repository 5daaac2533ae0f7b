"""Certificates on disk, as somebody mounts them: an authority of its own, and pairs that it has given."""

from datetime import datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from consumer.certificates import ClientCertificate


class Authority:
    """Gives certificates, and writes them into a directory.

    Args:
        directory: for all that it writes.
        name: of its files.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self.ca = trustme.CA()
        self.ca_file = directory / f"{name}.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))

    def pair(
        self,
        name: str,
        *hosts: str,
        key_password: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> ClientCertificate:
        """Write a certificate for the hosts (its own name where there are none), and its key."""
        issued = self.ca.issue_cert(*(hosts or (name,)), not_before=not_before, not_after=not_after)
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if key_password is not None:
            encryption = serialization.BestAvailableEncryption(key_password.encode())
        files = (self._directory / f"{name}.crt.pem", self._directory / f"{name}.key.pem")
        files[0].write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        # PKCS#8, which all who read it take: OpenSSL, BoringSSL and Java.
        files[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return ClientCertificate(*files, key_password)
