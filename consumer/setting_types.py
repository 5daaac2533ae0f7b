"""Setting types: what a value must look like, and the clause that says so when it does not.

A ValueError here carries the rest of a sentence that begins with the variable's name.
"""

import re
import ssl
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from consumer.egress import is_loopback
from consumer.triton_access import ProtocolKey
from consumer.variables import shown

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(:(?P<port>\d{1,5}))?")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):(?P<port>\d{1,5})")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS_PER = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt])(i?)b?")
LARGEST_PORT = 65_535


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in {".", ".."}:
        raise ValueError(
            f"is {shown(value)}, no name that Kafka takes: use at most 249 letters, digits, '.', '_' and '-'."
        )
    return value


def _comma_list(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _brokers(value: str) -> str:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    for part in parts:
        match = _BROKER.fullmatch(part)
        if match is None or not _is_port(match["port"] or "9092"):
            raise ValueError(
                f"holds {shown(part)}: give host:port, several separated by commas, without a scheme."
            )
    if not parts:
        raise ValueError("names no broker: give host:port, several separated by commas.")
    return ",".join(parts)


def _is_port(text: str) -> bool:
    return 0 < int(text) <= LARGEST_PORT


def _vault_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        usable = False
    if not usable or re.search(r"\s", value):
        raise ValueError(f"is {shown(value)}: give Vault's address as http:// or https://, host and port.")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "has a user or password in it: take it out and set VAULT_ACCESS_KEY and VAULT_SECRET_KEY."
        )
    if parts.query or parts.fragment:
        raise ValueError(
            "has a `?` or `#` part: give the address only, such as https://vault.example.com/api."
        )
    return value.rstrip("/")


def _triton_url(value: str) -> str:
    scheme = value.split(":", 1)[0].lower()
    if scheme in {"grpc", "grpcs", "http", "https"} and "://" in value:
        http = "; 8000 is usually its HTTP port" if scheme.startswith("http") else ""
        raise ValueError(
            f"is {shown(value)}: give Triton's gRPC address without {scheme}://, "
            f"such as dns:///triton:8001{http}."
        )
    target = value
    if scheme == "dns":
        target = re.sub(r"^dns:(//[^/]*/)?", "", value, flags=re.IGNORECASE)
    elif scheme in {"ipv4", "ipv6"} and value.count(":") > 1:
        if all(_good_host_port(part) for part in value.split(":", 1)[1].split(",")):
            return value
        target = ""
    elif scheme == "unix":
        target = "" if not value.split(":", 1)[1].strip("/") else "unix:1"
    if not _good_host_port(target):
        raise ValueError(
            f"is {shown(value)}: give host:port of Triton's gRPC, "
            "dns:///host:port, ipv4:address:port or unix:/path."
        )
    return value


def _good_host_port(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return match is not None and _is_port(match["port"])


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not _HOST.fullmatch(host):
            raise ValueError(f"holds {shown(host)}: give `host` or `host:port`, without scheme or path.")
    return tuple(host.lower() for host in value)


def _ca_file(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise ValueError(
            f"is {str(path)!r}, which holds no certificate in PEM form: mount the CA's."
        ) from error
    except OSError as error:
        raise ValueError(
            f"is {str(path)!r}, which cannot be read ({error.strerror}): mount it or correct the path."
        ) from error
    return path


def _token_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, usable = parts.hostname or "", parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        host, usable = "", False
    if not usable or not host or re.search(r"\s", value):
        raise ValueError(f"is {shown(value)}: give the address of the token endpoint as https://.")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "has a user or password in it: take it out and set KAFKA_OAUTH_CLIENT_ID and "
            "KAFKA_OAUTH_CLIENT_SECRET."
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"is {shown(value)}: the client's secret would travel in the clear, give an https:// address."
        )
    return value


def _oauth_extensions(value: str) -> str:
    # RFC 7628, section 3.1: a key is letters, a value is printable; librdkafka wants commas between them.
    for pair in value.split(","):
        if not re.fullmatch(r"\s*[A-Za-z]+=[\x20-\x7e]*", pair):
            raise ValueError("is no list of name=value, with letters as names: separate them by commas.")
    return value


def _protocol_key(value: SecretStr) -> SecretStr:
    if ProtocolKey.parse(value.get_secret_value()) is None:
        raise ValueError("will not do: write NAME=VALUE, as after the colon of --grpc-restricted-protocol.")
    return value


def _port(value: object) -> object:
    if isinstance(value, str) and value.startswith("tcp://"):
        raise ValueError(
            f"is {shown(value)}, which Kubernetes puts there for a Service named `http`: "
            "give a port number, or set enableServiceLinks: false in the pod."
        )
    return value


def _header_secret(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError(
            "holds a blank, a line break or a letter outside ASCII: copy the key from Vault again."
        )
    return value


_LONGEST_NUMBER = 20
"""Digits; longer ones overflow, and nobody has so many bytes."""


def _seconds(value: object) -> object:
    match = _DURATION.fullmatch(value.lower()) if isinstance(value, str) else None
    return float(match[1]) * _SECONDS_PER[match[2]] if match else value


def _bytes(value: object) -> object:
    match = _BYTES.fullmatch(value.lower()) if isinstance(value, str) else None
    if match is None:
        return value
    number, prefix, binary = match.groups()
    if len(number) > _LONGEST_NUMBER:
        return value
    return int(float(number) * (1024 if binary else 1000) ** ("kmgt".index(prefix) + 1))


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _log_level(value: object) -> object:
    lowered = _lower(value)
    return {"warn": "warning", "trace": "debug", "fatal": "error", "critical": "error"}.get(
        str(lowered), lowered
    )


def _upper(value: object) -> object:
    return value.upper().replace("_", "-") if isinstance(value, str) else value


def _delivery(value: object) -> object:
    return value.lower().replace("_", "-") if isinstance(value, str) else value


def _security(value: object) -> object:
    return value.upper().replace("-", "_") if isinstance(value, str) else value


def _queue_system(value: object) -> object:
    system = value.upper() if isinstance(value, str) else value
    if system == "RABBITMQ":
        raise ValueError(
            "is RABBITMQ, and this image reads Kafka: let Vault publish to Kafka and set QUEUE_SYSTEM=KAFKA, "
            "or keep ghcr.io/uug-ai/hub-pipeline-classifier for RabbitMQ."
        )
    if system != "KAFKA":
        raise ValueError(
            f"is {shown(str(value))}, and this image reads Kafka: let Vault publish to Kafka "
            "and set QUEUE_SYSTEM=KAFKA, or keep the image that you run today."
        )
    return system


def _result_format(value: object) -> object:
    lowered = _lower(value)
    if lowered in {"classify", "detection"}:
        raise ValueError(
            f"is {lowered}, a format that comes in a later version: "
            "set RESULT_FORMAT=classification or leave it out."
        )
    return lowered


Delivery = Annotated[Literal["exactly-once", "at-least-once"], BeforeValidator(_delivery)]
QueueSystem = Annotated[Literal["KAFKA"], BeforeValidator(_queue_system)]
ResultFormat = Annotated[Literal["classification"], BeforeValidator(_result_format)]
KafkaMechanism = Annotated[
    Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], BeforeValidator(_upper)
]
KafkaSecurity = Annotated[
    Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_security)
]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_log_level)]
LogFormat = Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)]
Topic = Annotated[str, AfterValidator(_topic)]
Brokers = Annotated[str, AfterValidator(_brokers)]
VaultUrl = Annotated[str, AfterValidator(_vault_url)]
TritonUrl = Annotated[str, AfterValidator(_triton_url)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_comma_list), AfterValidator(_hosts)]
CaFile = Annotated[Path, AfterValidator(_ca_file)]
TokenUrl = Annotated[str, AfterValidator(_token_url)]
OAuthExtensions = Annotated[str, AfterValidator(_oauth_extensions)]
ProtocolKeySecret = Annotated[SecretStr, AfterValidator(_protocol_key)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_header_secret)]
Passphrase = Annotated[SecretStr, Field(min_length=1, max_length=4096)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Port = Annotated[int, BeforeValidator(_port), Field(ge=0, le=LARGEST_PORT)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
