"""Parts of the pod, as the settings say them: how Kafka is reached, and what the workers need to know."""

from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from consumer.certificates import ClientCertificate
from consumer.connection import KafkaConnection, OAuthClient
from consumer.detector import TritonEndpoint
from consumer.limits import WorkerLimits
from consumer.settings import TRITON_SHARE, DetectSettings, Settings, TopicSettings, TritonAccessSettings
from consumer.triton_access import ProtocolKey, TritonAccess
from consumer.vault import VaultSettings
from consumer.worker import Look, WorkerSettings

DOWNLOAD_SHARE = 0.6
"""Of the time for one attempt: a slow Vault must be found out by the client, which can say so."""

BACKSTOP_SECONDS = 30.0
"""After the time for one attempt, before its worker is ended: for a last /ping and the model's answer."""


def kafka_connection(settings: TopicSettings) -> KafkaConnection:
    """Return how the settings say that Kafka is reached."""
    password, oauth = settings.kafka_password, None
    if settings.kafka_mechanism == "OAUTHBEARER":
        secret = settings.kafka_oauth_client_secret
        oauth = OAuthClient(
            token_url=settings.kafka_oauth_token_url or "",
            client_id=settings.kafka_oauth_client_id or "",
            client_secret=secret.get_secret_value() if secret else "",
            scope=settings.kafka_oauth_scope,
            extensions=settings.kafka_oauth_extensions,
            ca_file=str(settings.kafka_oauth_ca_file) if settings.kafka_oauth_ca_file else None,
        )
    return KafkaConnection(
        brokers=settings.kafka_broker,
        security=settings.kafka_security,
        mechanism=settings.kafka_mechanism,
        username=settings.kafka_username,
        password=password.get_secret_value() if password else None,
        ca_file=str(settings.kafka_ca_file) if settings.kafka_ca_file else None,
        certificate=_certificate(
            settings.kafka_certificate_file, settings.kafka_key_file, settings.kafka_key_password
        ),
        oauth=oauth,
    )


def triton_access(settings: TritonAccessSettings) -> TritonAccess:
    """Return how the settings say that Triton is reached."""
    key = settings.triton_access_key
    return TritonAccess(
        tls=settings.triton_tls,
        ca_file=settings.triton_ca_file,
        certificate=_certificate(settings.triton_certificate_file, settings.triton_key_file),
        server_name=settings.triton_server_name,
        key=ProtocolKey.parse(key.get_secret_value()) if key else None,
    )


def _certificate(
    certificate_file: Path | None, key_file: Path | None, key_password: SecretStr | None = None
) -> ClientCertificate | None:
    if certificate_file is None or key_file is None:
        return None
    return ClientCertificate(
        certificate_file, key_file, key_password.get_secret_value() if key_password else None
    )


def detector_settings(
    settings: DetectSettings, triton_url: str, *, version: int | None = None, own_triton: bool = False
) -> WorkerSettings:
    """Return what the settings say for worker processes that look at local files.

    Args:
        settings: of `detect`, or of `run`.
        triton_url: where Triton is.
        version: of the model; None for the live one.
        own_triton: it was started here, on loopback, and none of the settings' ways in is needed.
    """
    key = settings.recording_encryption_key
    return WorkerSettings(
        look=Look(settings.number_of_predictions, settings.score_threshold, settings.nms_iou, version),
        triton=TritonEndpoint(
            triton_url,
            settings.triton_model,
            min(settings.triton_timeout, settings.recording_time_limit * TRITON_SHARE),
            settings.triton_in_flight,
            TritonAccess() if own_triton else triton_access(settings),
        ),
        encryption_key=key.get_secret_value() if key else None,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


def worker_limits(settings: DetectSettings) -> WorkerLimits:
    """Return what the settings let one worker process take."""
    return WorkerLimits(settings.worker_memory)


def attempt_seconds(settings: Settings) -> float:
    """Return how long one attempt at a recording may take: never longer than all attempts together."""
    return min(settings.recording_time_limit, settings.recording_deadline)


def worker_settings(settings: Settings) -> WorkerSettings:
    """Return what the settings say for the worker processes."""
    return replace(
        detector_settings(settings, settings.triton_url),
        vault=VaultSettings(
            api_url=settings.vault_api_url,
            access_key=settings.vault_access_key.get_secret_value(),
            secret_key=settings.vault_secret_key.get_secret_value(),
            ca_file=settings.vault_ca_file,
            signed_url_hosts=settings.signed_url_hosts,
            connect_timeout_seconds=settings.vault_timeout,
            read_timeout_seconds=settings.vault_timeout,
            download_deadline_seconds=attempt_seconds(settings) * DOWNLOAD_SHARE,
            max_recording_bytes=settings.max_recording_bytes,
        ),
    )
