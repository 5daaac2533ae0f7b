"""Setting fields: every variable, once. To add one, add a field; all else follows."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from consumer import setting_types
from consumer.cpus import usable_cpus
from consumer.variables import Variable

_SCORE_THRESHOLD = Variable(
    "Detections with a lower score are left out; `vault-ml detect` has 0.25.",
    "a number from 0 to 1",
    aliases=("CLASSIFICATION_THRESHOLD", "TRITON_CONF"),
)


class DetectSettings(BaseModel):
    """What `vault-ml detect` needs: no Kafka, no Vault. Built by load_detect()."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    number_of_predictions: Annotated[
        int,
        Field(ge=1, le=1000),
        Variable(
            "How many frames of a recording are looked at, spread evenly over the whole clip.",
            "a whole number from 1 to 1000",
            unit="frames",
        ),
    ] = 5
    triton_url: Annotated[
        setting_types.TritonUrl,
        Variable(
            "Triton's gRPC address: host:port, dns:///host:port (spreads over a headless Service's pods), "
            "ipv4:address:port or unix:/path.",
            "host:port of Triton's gRPC",
        ),
    ] = "dns:///triton:8001"
    triton_model: Annotated[
        str, Field(min_length=1), Variable("The model that Triton is asked for.", "a model's name")
    ] = "yolo"
    triton_timeout: Annotated[
        setting_types.Seconds,
        Variable(
            "How long one request to Triton may take.", "seconds, more than 0, such as 30", unit="seconds"
        ),
    ] = 30.0
    triton_in_flight: Annotated[
        int,
        Field(ge=1, le=64),
        Variable(
            "Requests that one worker may have under way while it decodes the next frames.",
            "a whole number from 1 to 64",
            unit="requests",
        ),
    ] = 2
    score_threshold: Annotated[setting_types.Fraction, _SCORE_THRESHOLD] = 0.25
    nms_iou: Annotated[
        setting_types.Fraction,
        Variable(
            "A box that overlaps a better one of its class by more than this is taken for the same object.",
            "a number from 0 to 1",
            aliases=("TRITON_IOU",),
        ),
    ] = 0.45
    workers: Annotated[
        int,
        Field(ge=1, le=1024),
        Variable(
            "Worker processes; each takes one recording at a time.",
            "a whole number from 1 to 1024",
            unit="processes",
            default_words="the CPUs that the pod may use",
        ),
    ] = Field(default_factory=usable_cpus)
    recording_time_limit: Annotated[
        setting_types.Seconds,
        Variable(
            "How long one attempt at a recording may take; a worker that is busy 30 s beyond it is replaced.",
            "seconds, more than 0, such as 120",
            unit="seconds",
        ),
    ] = 120.0
    log_level: Annotated[
        setting_types.LogLevel,
        Variable(
            "The least important lines that are logged (`run` info, `detect` warning by default).",
            "debug, info, warning or error",
        ),
    ] = "warning"
    log_format: Annotated[
        setting_types.LogFormat,
        Variable(
            "`json` writes one object per line, `console` is for people, `auto` is `console` on a terminal.",
            "auto, json or console",
        ),
    ] = "auto"

    origins: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Where each variable that is not at its default came from, by its own name."""


class TopicSettings(DetectSettings):
    """What a program needs that reads what consumers wrote. Built by load_topics()."""

    queue_system: Annotated[
        setting_types.QueueSystem,
        Variable("The queue that events come from; this image reads Kafka only.", "KAFKA"),
    ] = "KAFKA"
    queue_name: Annotated[
        setting_types.Topic,
        Variable(
            "The topic that Vault publishes its events to.",
            "the topic that Vault publishes its events to",
            aliases=("KAFKA_QUEUE_NAME",),
        ),
    ]
    queue_comparison: Annotated[
        setting_types.Topic,
        Variable(
            "The topic for comparisons of a version on trial; it is created where the broker allows it.",
            "a topic's name",
            default_words="`<QUEUE_NAME>.comparison`",
        ),
    ] = Field(default_factory=lambda values: f"{values.get('queue_name', '')}.comparison")
    kafka_broker: Annotated[
        setting_types.Brokers,
        Variable(
            "Kafka's brokers, host:port, several separated by commas.",
            "host:port of a Kafka broker, several separated by commas",
        ),
    ]
    kafka_group: Annotated[
        str,
        Field(min_length=1),
        Variable("The consumer group; pods of one group share the work.", "a group's name"),
    ] = "vault-ml"
    kafka_username: Annotated[
        str | None, Variable("The user that logs in to Kafka.", "the user's name", from_file=True)
    ] = None
    kafka_password: Annotated[
        SecretStr | None, Variable("The password of KAFKA_USERNAME.", "the password", secret=True)
    ] = None
    kafka_mechanism: Annotated[
        setting_types.KafkaMechanism,
        Variable(
            "How the login is made: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
            "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        ),
    ] = "PLAIN"
    kafka_security: Annotated[
        setting_types.KafkaSecurity,
        Variable(
            "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; SASL logs in, SSL encrypts. "
            "Must be given when KAFKA_USERNAME is.",
            "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        ),
    ] = "PLAINTEXT"
    kafka_ca_file: Annotated[
        setting_types.CaFile | None,
        Variable(
            "A file with the certificates that the brokers' must be signed by (PEM).",
            "a file of certificates",
            default_words="the system's",
        ),
    ] = None


class Settings(TopicSettings):
    """What `vault-ml run` needs. Built by load()."""

    queue_target: Annotated[
        setting_types.Topic,
        Variable(
            "The topic that results are written to.",
            "the topic that results are written to",
            aliases=("TARGET_QUEUE_NAME",),
        ),
    ]
    queue_dead_letter: Annotated[
        setting_types.Topic,
        Variable(
            "The topic for events that cannot be handled; it is created where the broker allows it.",
            "a topic's name",
            default_words="`<QUEUE_NAME>.dead-letter`",
        ),
    ] = Field(default_factory=lambda values: f"{values.get('queue_name', '')}.dead-letter")
    vault_api_url: Annotated[
        setting_types.VaultUrl,
        Variable(
            "Vault's address, with or without `/api`.",
            "Vault's address, such as https://vault.example.com/api",
            aliases=("STORAGE_URI", "KERBEROS_STORAGE_URI"),
        ),
    ]
    vault_access_key: Annotated[
        setting_types.HeaderSecret,
        Variable(
            "The access key of an account in Vault.",
            "the access key of an account in Vault",
            aliases=("STORAGE_ACCESS_KEY", "KERBEROS_STORAGE_ACCESS_KEY"),
            secret=True,
        ),
    ]
    vault_secret_key: Annotated[
        setting_types.HeaderSecret,
        Variable(
            "The secret key of that account.",
            "the secret key of that account in Vault",
            aliases=(
                "STORAGE_SECRET_KEY",
                "STORAGE_SECRET",
                "KERBEROS_STORAGE_SECRET",
                "KERBEROS_STORAGE_SECRET_KEY",
            ),
            secret=True,
        ),
    ]
    vault_ca_file: Annotated[
        setting_types.CaFile | None,
        Variable(
            "A file with the certificates that Vault's must be signed by (PEM).",
            "a file of certificates",
            default_words="the system's",
        ),
    ] = None
    vault_timeout: Annotated[
        setting_types.Seconds,
        Variable(
            "How long Vault may take to accept a connection, and between two pieces of an answer.",
            "seconds, more than 0, such as 10",
            unit="seconds",
        ),
    ] = 10.0
    signed_url_hosts: Annotated[
        setting_types.Hosts,
        Variable(
            "Hosts, besides Vault's own, to which a signed link in an event may point; separated by commas.",
            "host names, separated by commas",
            default_words="none",
        ),
    ] = ()
    score_threshold: Annotated[setting_types.Fraction, _SCORE_THRESHOLD] = 0.5
    log_level: Annotated[setting_types.LogLevel, DetectSettings.model_fields["log_level"].metadata[-1]] = (
        "info"
    )
    max_recording_bytes: Annotated[
        setting_types.Bytes,
        Field(ge=1),
        Variable("Larger recordings become dead letters.", "bytes, such as 2147483648 or 2GiB", unit="bytes"),
    ] = 2 * 1024**3
    recording_deadline: Annotated[
        setting_types.Seconds,
        Variable(
            "How long a recording that may heal is tried again before it becomes a dead letter.",
            "seconds, more than 0, such as 300",
            unit="seconds",
        ),
    ] = 300.0
    max_message_bytes: Annotated[
        setting_types.Bytes,
        Field(ge=10_000, le=900_000_000),
        Variable(
            "Larger results are shortened and flagged; Vault's own brokers take 1,000,012.",
            "bytes, from 10000 to 900000000",
            unit="bytes",
        ),
    ] = 1_000_000
    result_format: Annotated[
        setting_types.ResultFormat, Variable("The form of a result's value.", "classification")
    ] = "classification"
    shutdown_grace: Annotated[
        setting_types.Seconds,
        Variable(
            "How long SIGTERM leaves for what is in flight; below terminationGracePeriodSeconds (30).",
            "seconds, more than 0, such as 25",
            unit="seconds",
        ),
    ] = 25.0
    http_port: Annotated[
        setting_types.Port,
        Variable(
            "The port of /healthz, /readyz and /metrics; 0 takes a free one.",
            "a whole number from 0 to 65535",
        ),
    ] = 8080
