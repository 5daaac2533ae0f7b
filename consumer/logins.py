"""Logins: which settings of Kafka and Triton belong together, and which do nothing as the others are.

Each setting is fine alone; here a sentence is found for what is missing beside it, or contradicts it.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from consumer import certificates
from consumer.certificates import ClientCertificate
from consumer.variables import Found

_PASSWORD_LOGIN = ("KAFKA_USERNAME", "KAFKA_PASSWORD")
_OAUTH_LOGIN = ("KAFKA_OAUTH_TOKEN_URL", "KAFKA_OAUTH_CLIENT_ID", "KAFKA_OAUTH_CLIENT_SECRET")
_OAUTH_MORE = ("KAFKA_OAUTH_SCOPE", "KAFKA_OAUTH_EXTENSIONS", "KAFKA_OAUTH_CA_FILE")
_KAFKA_TLS = ("KAFKA_CA_FILE", "KAFKA_CERTIFICATE_FILE", "KAFKA_KEY_FILE", "KAFKA_KEY_PASSWORD")
_TRITON_TLS = ("TRITON_CA_FILE", "TRITON_CERTIFICATE_FILE", "TRITON_KEY_FILE", "TRITON_SERVER_NAME")


def conflicts(
    values: Mapping[str, Any], found: Mapping[str, Found], unusable: Collection[str]
) -> Iterator[str]:
    """Yield a sentence for each thing that is missing beside, or contradicts, what is set.

    Args:
        values: the settings that are usable, by field name.
        found: what somebody set, by variable name.
        unusable: what somebody set and is wrong by itself, of which a sentence was said already.
    """
    yield from _kafka_login(values, found, unusable)
    yield from _certificate_conflicts(values, found, unusable, "KAFKA", "KAFKA_KEY_PASSWORD")
    yield from _certificate_conflicts(values, found, unusable, "TRITON", None)
    if values.get("triton_tls") is False and "TRITON_TLS" in found:
        for name in _TRITON_TLS:
            if name in found:
                yield f"{found[name].label} is set, but TRITON_TLS is false: remove one of them."


def _kafka_login(
    values: Mapping[str, Any], found: Mapping[str, Found], unusable: Collection[str]
) -> Iterator[str]:
    security, mechanism = values.get("kafka_security"), values.get("kafka_mechanism")
    if security is None:  # wrong, and said so already; or no setting of `detect`
        return
    for name in (*_PASSWORD_LOGIN, *_OAUTH_LOGIN):
        if "KAFKA_SECURITY" not in found and name in found:
            yield (
                f"KAFKA_SECURITY is not set, but {found[name].label} is: give SASL_SSL (encrypted) "
                "or SASL_PLAINTEXT (the brokers that come with Vault)."
            )
            return
    if not security.startswith("SASL") or mechanism is None:
        return
    wanted, said = (
        (_OAUTH_LOGIN, "KAFKA_MECHANISM is OAUTHBEARER: give that of the identity provider.")
        if mechanism == "OAUTHBEARER"
        else (_PASSWORD_LOGIN, f"KAFKA_SECURITY is {security}: give the login of the brokers.")
    )
    yield from (f"{name} is not set, but {said}" for name in wanted if name not in {*found, *unusable})


def _certificate_conflicts(
    values: Mapping[str, Any],
    found: Mapping[str, Found],
    unusable: Collection[str],
    family: str,
    password_name: str | None,
) -> Iterator[str]:
    names = (f"{family}_CERTIFICATE_FILE", f"{family}_KEY_FILE")
    for name, other in (names, names[::-1]):
        if other in found and name not in {*found, *unusable}:
            yield f"{name} is not set, but {found[other].label} is: a client certificate needs both."
    certificate, key = (values.get(name.lower()) for name in names)
    if isinstance(certificate, Path) and isinstance(key, Path):
        password = values.get(password_name.lower()) if password_name else None
        wrong = certificates.problem(
            ClientCertificate(certificate, key, password.get_secret_value() if password else None),
            certificate_name=found[names[0]].label,
            key_name=found[names[1]].label,
            password_name=password_name,
        )
        if wrong is not None:
            yield wrong


def idle(found: Mapping[str, Found]) -> dict[str, str]:
    """Return, for variables that do nothing beside the others, why that is and what to do."""
    security = found["KAFKA_SECURITY"].value.upper() if "KAFKA_SECURITY" in found else "PLAINTEXT"
    mechanism = found["KAFKA_MECHANISM"].value.upper() if "KAFKA_MECHANISM" in found else "PLAIN"
    reasons: dict[str, str] = {}
    if "KAFKA_SECURITY" in found and not security.startswith("SASL"):
        why = f"KAFKA_SECURITY={security} does not log in; set SASL_SSL or SASL_PLAINTEXT, or remove it."
        reasons |= dict.fromkeys((*_PASSWORD_LOGIN, "KAFKA_MECHANISM", *_OAUTH_LOGIN, *_OAUTH_MORE), why)
    elif mechanism == "OAUTHBEARER":
        why = "KAFKA_MECHANISM=OAUTHBEARER logs in with a token; remove it."
        reasons |= dict.fromkeys(_PASSWORD_LOGIN, why)
    else:
        why = f"KAFKA_MECHANISM={mechanism} logs in with a password; set OAUTHBEARER, or remove it."
        reasons |= dict.fromkeys((*_OAUTH_LOGIN, *_OAUTH_MORE), why)
    if not security.endswith("SSL"):
        why = f"KAFKA_SECURITY={security} does not encrypt; set SASL_SSL or SSL, or remove it."
        reasons |= dict.fromkeys(_KAFKA_TLS, why)
    elif "KAFKA_KEY_FILE" not in found:
        why = "it belongs to KAFKA_KEY_FILE, which is not set; remove it."
        reasons["KAFKA_KEY_PASSWORD"] = why
    if not {"TRITON_TLS", "TRITON_CA_FILE", "TRITON_CERTIFICATE_FILE"} & found.keys():
        reasons["TRITON_SERVER_NAME"] = "the connection to Triton is not encrypted; set TRITON_TLS=true."
    if "VAULT_API_URL" in found and found["VAULT_API_URL"].value.lower().startswith("http:"):
        reasons["VAULT_CA_FILE"] = "VAULT_API_URL begins with http://; use https:// or remove it."
    return reasons
