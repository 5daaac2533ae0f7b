"""Setting fields of the pod: every variable stands once, here or in the two modules above it.

To add a variable, add a field; environment, YAML file, `vault-ml config` and documentation follow.
"""

import socket
from typing import Annotated

from pydantic import Field

from consumer import setting_types
from consumer.kafka_fields import TARGET, TopicSettings
from consumer.look_fields import SCORE_THRESHOLD, DetectSettings
from consumer.variables import Variable


class Settings(TopicSettings):
    """What `vault-ml run` needs. Built by load()."""

    queue_target: Annotated[setting_types.Topic, TARGET]
    pod_name: Annotated[
        str,
        Field(min_length=1, max_length=253),
        Variable(
            "What tells this pod from the others; two that run at a time must not share it.",
            "a name that no other pod has",
            default_words="the host's name, which is the pod's in Kubernetes",
        ),
    ] = Field(default_factory=socket.gethostname)
    kafka_group_instance_id: Annotated[
        str | None,
        Field(min_length=1, max_length=249),
        Variable(
            "Makes this pod a static member of the group: a quick restart moves no partition. "
            "For StatefulSets only; every pod needs its own.",
            "a name that no other member has",
        ),
    ] = None
    duplicate_window: Annotated[
        int,
        Field(ge=0, le=1_000_000),
        Variable(
            "How many recordings are remembered, so that an event which Vault sends twice is looked at once; "
            "0 looks at each.",
            "a whole number from 0 to 1000000",
            unit="recordings",
        ),
    ] = 0
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
            "To where, besides Vault itself, a signed link in an event may lead: `host` for the usual ports "
            "of http and https, or `host:port`; separated by commas.",
            "host or host:port, separated by commas",
            default_words="none",
        ),
    ] = ()
    score_threshold: Annotated[setting_types.Fraction, SCORE_THRESHOLD] = 0.5
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
