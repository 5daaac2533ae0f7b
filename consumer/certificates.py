"""Client certificates: whether one, its key and the key's password belong together, before anybody looks."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True)
class ClientCertificate:
    """What a program shows to a server that asks who it is.

    Attributes:
        certificate_file: the certificate, and those between it and its authority (PEM).
        key_file: its private key (PEM).
        key_password: of an encrypted key.
    """

    certificate_file: Path
    key_file: Path
    key_password: str | None = field(default=None, repr=False)


def problem(
    pair: ClientCertificate,
    *,
    certificate_name: str,
    key_name: str,
    password_name: str | None,
    now: datetime | None = None,
) -> str | None:
    """Return the one sentence that says what is wrong with a certificate and its key, or None.

    Args:
        pair: the files and the password.
        certificate_name, key_name: what the user calls them, for the sentence.
        password_name: what the password is called; None where whoever reads the key takes none.
        now: the time, for the certificate's end; by default the real one.
    """
    try:
        certificate = x509.load_pem_x509_certificates(pair.certificate_file.read_bytes())[0]
    except OSError as error:
        return _unreadable(certificate_name, pair.certificate_file, error)
    except ValueError:
        where = f"{certificate_name} is {str(pair.certificate_file)!r}"
        return f"{where}, which holds no certificate in PEM form: mount it."
    now = now or datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        when = (
            f"ended on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it"
            if now > certificate.not_valid_after_utc
            else f"begins on {certificate.not_valid_before_utc:%Y-%m-%d}: look at the clock"
        )
        return f"{certificate_name} is {str(pair.certificate_file)!r}, whose validity {when}."
    return _key_problem(pair, certificate, certificate_name, key_name, password_name)


def _key_problem(
    pair: ClientCertificate,
    certificate: x509.Certificate,
    certificate_name: str,
    key_name: str,
    password_name: str | None,
) -> str | None:
    where = f"{key_name} is {str(pair.key_file)!r}, which"
    password = pair.key_password.encode() if pair.key_password else None
    try:
        content = pair.key_file.read_bytes()
        encrypted = b"ENCRYPTED" in content
        if encrypted and password is None:
            advice = f"set {password_name}" if password_name else "store it without one"
            return f"{where} is encrypted with a password: {advice}."
        # OpenSSL, and so librdkafka, takes no notice of a password that is not needed; cryptography does.
        key = serialization.load_pem_private_key(content, password if encrypted else None)
    except OSError as error:
        return _unreadable(key_name, pair.key_file, error)
    except (ValueError, TypeError):
        if encrypted:
            return f"{where} {password_name} does not open: give the password of this key."
        return f"{where} holds no private key in PEM form: mount it."
    if _public_bytes(key.public_key()) != _public_bytes(certificate.public_key()):
        return f"{where} does not belong to the certificate in {certificate_name}: give the key of that one."
    return None


def _public_bytes(key: object) -> bytes:
    der, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    public: bytes = key.public_bytes(der, form)  # type: ignore[attr-defined]  # a union of all kinds of keys has it
    return public


def _unreadable(name: str, path: Path, error: OSError) -> str:
    return f"{name} is {str(path)!r}, which cannot be read ({error.strerror}): mount it or correct the path."
