"""Parts of the pod, as the settings say them: how Kafka is reached, and what the workers need to know."""

from dataclasses import replace

from consumer.connection import KafkaConnection
from consumer.detector import TritonEndpoint
from consumer.settings import TRITON_SHARE, DetectSettings, Settings, TopicSettings
from consumer.vault import VaultSettings
from consumer.worker import Look, WorkerSettings

DOWNLOAD_SHARE = 0.6
"""Of the time for one attempt: a slow Vault must be found out by the client, which can say so."""

BACKSTOP_SECONDS = 30.0
"""After the time for one attempt, before its worker is ended: for a last /ping and the model's answer."""


def kafka_connection(settings: TopicSettings) -> KafkaConnection:
    """Return how the settings say that Kafka is reached."""
    password = settings.kafka_password
    return KafkaConnection(
        brokers=settings.kafka_broker,
        security=settings.kafka_security,
        mechanism=settings.kafka_mechanism,
        username=settings.kafka_username,
        password=password.get_secret_value() if password else None,
        ca_file=str(settings.kafka_ca_file) if settings.kafka_ca_file else None,
    )


def detector_settings(
    settings: DetectSettings, triton_url: str, *, version: int | None = None
) -> WorkerSettings:
    """Return what the settings say for worker processes that look at local files.

    Args:
        settings: of `detect`, or of `run`.
        triton_url: where Triton is.
        version: of the model; None for the live one.
    """
    return WorkerSettings(
        look=Look(settings.number_of_predictions, settings.score_threshold, settings.nms_iou, version),
        triton=TritonEndpoint(
            triton_url,
            settings.triton_model,
            min(settings.triton_timeout, settings.recording_time_limit * TRITON_SHARE),
            settings.triton_in_flight,
        ),
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


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
