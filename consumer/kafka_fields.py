"""Setting fields of Kafka: brokers, login, topics that both consumers and the model's side read."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from consumer import setting_types
from consumer.look_fields import DetectSettings
from consumer.variables import Variable

TARGET = Variable(
    "The topic that results are written to.",
    "the topic that results are written to",
    aliases=("TARGET_QUEUE_NAME",),
)


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
    queue_target: Annotated[setting_types.Topic | None, TARGET] = None
    """Pods must know it; others do not write to it, if they do."""
    queue_comparison: Annotated[
        setting_types.Topic,
        Variable(
            "The topic for comparisons of a version on trial; it is created where the broker allows it.",
            "a topic's name",
            default_words="`<QUEUE_NAME>.comparison`",
        ),
    ] = Field(default_factory=lambda values: f"{values.get('queue_name', '')}.comparison")
    queue_dead_letter: Annotated[
        setting_types.Topic,
        Variable(
            "The topic for events that cannot be handled; it is created where the broker allows it.",
            "a topic's name",
            default_words="`<QUEUE_NAME>.dead-letter`",
        ),
    ] = Field(default_factory=lambda values: f"{values.get('queue_name', '')}.dead-letter")
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
    kafka_delivery: Annotated[
        setting_types.Delivery,
        Variable(
            "`exactly-once` writes results and offsets in one Kafka transaction, which needs WRITE on the "
            "transactional id; `at-least-once` is for clusters that forbid it: a crash repeats results.",
            "exactly-once or at-least-once",
        ),
    ] = "exactly-once"
    kafka_transaction_prefix: Annotated[
        str,
        Field(min_length=1, max_length=200),
        Variable(
            "The transactional id of a pod is this, a dash and POD_NAME; ACLs can be given for the prefix.",
            "the beginning of a transactional id",
            default_words="`<KAFKA_GROUP>`",
        ),
    ] = Field(default_factory=lambda values: values.get("kafka_group", "vault-ml"))
    kafka_username: Annotated[
        str | None, Variable("The user that logs in to Kafka.", "the user's name", from_file=True)
    ] = None
    kafka_password: Annotated[
        SecretStr | None, Variable("The password of KAFKA_USERNAME.", "the password", secret=True)
    ] = None
    kafka_mechanism: Annotated[
        setting_types.KafkaMechanism,
        Variable(
            "How the login is made: with user and password (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512) or with a "
            "token (OAUTHBEARER).",
            "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
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
    kafka_certificate_file: Annotated[
        Path | None,
        Variable(
            "A file with our certificate, for brokers that ask who we are (PEM); with KAFKA_KEY_FILE.",
            "a file with a certificate",
        ),
    ] = None
    kafka_key_file: Annotated[
        Path | None,
        Variable("A file with the private key of KAFKA_CERTIFICATE_FILE (PEM).", "a file with a private key"),
    ] = None
    kafka_key_password: Annotated[
        SecretStr | None,
        Variable("The password of KAFKA_KEY_FILE, where it is encrypted.", "the password", secret=True),
    ] = None
    kafka_oauth_token_url: Annotated[
        setting_types.TokenUrl | None,
        Variable(
            "The identity provider's address for tokens; for OAUTHBEARER. https://, but on this machine.",
            "the address of the token endpoint, such as https://id.example.com/oauth2/token",
        ),
    ] = None
    kafka_oauth_client_id: Annotated[
        str | None,
        Variable("Our name at the identity provider.", "the client's id", from_file=True),
    ] = None
    kafka_oauth_client_secret: Annotated[
        SecretStr | None,
        Variable("The secret of KAFKA_OAUTH_CLIENT_ID.", "the client's secret", secret=True),
    ] = None
    kafka_oauth_scope: Annotated[
        str | None, Variable("The scope to ask a token for.", "a scope, or several with blanks between")
    ] = None
    kafka_oauth_extensions: Annotated[
        setting_types.OAuthExtensions | None,
        Variable(
            "SASL extensions that go to the brokers with the token, separated by commas; Confluent Cloud "
            "wants `logicalCluster=…,identityPoolId=…`.",
            "name=value, separated by commas",
        ),
    ] = None
    kafka_oauth_ca_file: Annotated[
        setting_types.CaFile | None,
        Variable(
            "A file with the certificates that the identity provider's must be signed by (PEM).",
            "a file of certificates",
            default_words="the system's",
        ),
    ] = None
