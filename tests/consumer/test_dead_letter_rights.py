"""Dead letters and replays on a Kafka that asks what a user may do: which rights it takes, and what lacks."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its types forget what it offers
    AclOperation,
    ResourceType,
)

from consumer import past_source
from consumer.connection import KafkaConnection
from consumer.dead_letter import build_dead_letter
from consumer.errors import BrokerAway, RecordingRefused
from consumer.messages import Position
from consumer.past import Stretch
from consumer.replay_mark import ReplayMark
from consumer.resend import notes_topic
from consumer.topics import produce
from tests.brokers.kafka import WITH_AUTHORIZER, KafkaBroker, User
from tests.brokers.topics import allow, create_topic
from tests.command_line import vault_ml_here
from tests.fakes.recorded_events import README_EVENT

DESCRIBE, READ, WRITE = AclOperation.DESCRIBE, AclOperation.READ, AclOperation.WRITE


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker with an authorizer; each test logs in as a user of its own."""
    users = [User(name, "a-password", "PLAIN") for name in ("reader", "sender", "stranger")]
    with KafkaBroker(tmp_path_factory.mktemp("guarded"), users=users, settings=WITH_AUTHORIZER) as kafka:
        yield kafka


@pytest.fixture
def source(guarded: KafkaBroker) -> str:
    """A source topic whose topic of letters holds one letter."""
    source = create_topic(guarded.bootstrap, f"source-{uuid.uuid4().hex[:6]}")
    letters = create_topic(guarded.bootstrap, f"{source}.dead-letter", exact=True)
    create_topic(guarded.bootstrap, notes_topic(letters), exact=True)
    letter = build_dead_letter(
        json.dumps(README_EVENT).encode(),
        RecordingRefused("Vault refuses it (404)."),
        Position(source, 0, 0, 0),
        destination=letters,
        attempts=1,
        max_bytes=1_000_000,
        timestamp=datetime(2026, 5, 1, tzinfo=UTC),
    )
    produce(guarded.bootstrap, letters, [letter.value], key=letter.key)
    return source


def run(
    guarded: KafkaBroker, user: str, source: str, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    login = {
        "QUEUE_NAME": source,
        "KAFKA_BROKER": guarded.sasl_bootstrap,
        "KAFKA_SECURITY": "SASL_PLAINTEXT",
        "KAFKA_USERNAME": user,
        "KAFKA_PASSWORD": "a-password",
    }
    return vault_ml_here("dead-letter", *arguments, environ=login | more)


def test_letters_are_read_with_rights_to_topics_and_none_to_a_group(
    guarded: KafkaBroker, source: str
) -> None:
    letters = f"{source}.dead-letter"
    for topic in (letters, notes_topic(letters)):
        allow(guarded.bootstrap, "reader", ResourceType.TOPIC, topic, [DESCRIBE, READ])
    for arguments in (["list"], ["show", "0/0"], ["export"]):
        done = run(guarded, "reader", source, *arguments)
        assert done.returncode == 0, done.stderr
        assert README_EVENT["payload"]["key"] in done.stdout


def test_who_may_not_read_letters_is_told_which_topic(guarded: KafkaBroker, source: str) -> None:
    done = run(guarded, "stranger", source, "list")
    assert done.returncode == 1
    assert f"does not let us read topic '{source}.dead-letter'; grant DESCRIBE and READ" in done.stderr


def test_letters_are_sent_again_with_the_rights_that_the_document_names(
    guarded: KafkaBroker, source: str
) -> None:
    letters = f"{source}.dead-letter"
    allow(guarded.bootstrap, "sender", ResourceType.TOPIC, letters, [DESCRIBE, READ])
    allow(guarded.bootstrap, "sender", ResourceType.TOPIC, notes_topic(letters), [DESCRIBE, READ, WRITE])
    allow(guarded.bootstrap, "sender", ResourceType.TOPIC, source, [DESCRIBE, READ, WRITE])
    allow(guarded.bootstrap, "sender", ResourceType.TRANSACTIONAL_ID, f"{source}-dead-letter-replay", [WRITE])
    prefix = {"KAFKA_TRANSACTION_PREFIX": source}
    done = run(guarded, "sender", source, "replay", "--all", "--yes", **prefix)
    assert "Sent 1 of 1 event again." in done.stderr


def test_a_missing_right_to_write_is_named_before_anybody_agrees_and_nobody_else_is_blamed(
    guarded: KafkaBroker, source: str
) -> None:
    letters = f"{source}.dead-letter"
    allow(guarded.bootstrap, "sender", ResourceType.TOPIC, letters, [DESCRIBE, READ])
    allow(guarded.bootstrap, "sender", ResourceType.TOPIC, notes_topic(letters), [DESCRIBE, READ, WRITE])
    allow(guarded.bootstrap, "sender", ResourceType.TOPIC, source, [DESCRIBE, READ])
    allow(guarded.bootstrap, "sender", ResourceType.TRANSACTIONAL_ID, f"{source}-dead-letter-replay", [WRITE])
    for how in ("--dry-run", "--yes"):
        arguments = ("replay", "--all", how)
        done = run(guarded, "sender", source, *arguments, KAFKA_TRANSACTION_PREFIX=source)
        assert done.returncode == 1
        assert f"does not let us write to topic '{source}': grant WRITE" in done.stderr
        assert "took over" not in done.stderr


def test_a_replay_without_a_right_to_its_group_says_so(
    guarded: KafkaBroker, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_source, "_COMMITTED_SECONDS", 2.0)
    connection = KafkaConnection(guarded.sasl_bootstrap, "SASL_PLAINTEXT", "PLAIN", "stranger", "a-password")
    replay = past_source.PastSource(
        connection,
        group="vault-ml.replay-0",
        topic=source,
        stretches=[Stretch(0, 0, 1, 0)],
        window=past_source.Window(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 2, tzinfo=UTC)),
        mark=ReplayMark("source", "replay-0", 1, "2026-05-01T00:00:00Z"),
        stop=Event(),
    )
    with pytest.raises(BrokerAway, match=r"grant READ and DESCRIBE on group 'vault-ml\.replay-0'"):
        replay.places()
    replay.leave(timeout_seconds=1.0)
