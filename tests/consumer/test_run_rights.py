"""Rights in Kafka: those that docs/operations.md lists are enough, on a broker that grants nothing else."""

import json
import re
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its types forget what it offers
    AclOperation,
    ResourceType,
)

from consumer.connection import KafkaConnection
from consumer.topics import produce
from modelops import comparisons
from modelops.embedded import EmbeddedTriton
from tests.brokers.kafka import WITH_AUTHORIZER, KafkaBroker, User
from tests.brokers.topics import allow
from tests.command_line import vault_ml
from tests.fakes.faulty_vault import FaultyVault
from tests.test_documents import rows, section
from tests.worlds import World, keys

POD, PERSON = User("pod", "a-secret", "PLAIN"), User("person", "a-secret", "PLAIN")
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
TRIAL = "trial"


def grant(world: World, user: User, table: str) -> None:
    """Grant what a table of the document says, and nothing else."""
    named = {
        "QUEUE_NAME": world.source,
        "QUEUE_TARGET": world.target,
        "QUEUE_DEAD_LETTER": world.letters_topic,
        "QUEUE_COMPARISON": world.comparisons_topic,
        "KAFKA_GROUP": world.group,
        "KAFKA_TRANSACTION_PREFIX": world.group,
        "topic-to": TRIAL,
    }
    for kind, cell, operations, _ in rows(table):
        name = re.sub(r"<([\w-]+)>", lambda found: named[found[1]], cell.strip("`"))
        allowed = [AclOperation[operation] for operation in operations.split(", ")]
        allow(world.kafka.bootstrap, user.name, KINDS[kind], name, allowed)


def login(world: World, user: User) -> dict[str, str]:
    return {
        "KAFKA_BROKER": world.kafka.sasl_bootstrap,
        "KAFKA_SECURITY": "SASL_PLAINTEXT",
        "KAFKA_USERNAME": user.name,
        "KAFKA_PASSWORD": user.password,
    }


def test_the_rights_that_the_document_lists_are_enough_for_pods_and_for_people(
    triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    of_pods, of_people = section("docs/operations.md", "Rights in Kafka").split("**People**")
    (tmp_path / "kafka").mkdir()
    with KafkaBroker(tmp_path / "kafka", users=(POD, PERSON), settings=WITH_AUTHORIZER) as kafka:
        world = World(kafka, triton.grpc_url, vault, tmp_path)
        world.target = f"{world.target}-to-be-created"
        grant(world, POD, of_pods)
        grant(world, PERSON, of_pods)
        grant(world, PERSON, of_people)
        gone = world.store("cam/gone.mp4", clip)
        del vault.recordings["cam/gone.mp4"]
        world.send(world.store("cam/0.mp4", clip), gone)
        with world.pod(**login(world, POD)) as pod:
            assert keys(world.results(1)) == ["cam/0.mp4"]
            world.letters(1)
            pod.wait_for(lambda: world.committed() == {0: 2}, "committed")
            pod.wait_for(
                lambda: pod.metric("vault_ml_oldest_event_expires_seconds", topic=world.source) > 0,
                "the topic's retention is known",
            )
            said = pod.log.read_text().lower()
            assert not re.findall(r".*(?:authori[sz]|nowhere|not known).*", said)
            assert pod.stop() == 0
        produce(kafka.bootstrap, world.comparisons_topic, [b"no comparison"])
        connection = KafkaConnection(
            kafka.sasl_bootstrap, "SASL_PLAINTEXT", "PLAIN", PERSON.name, PERSON.password
        )
        assert list(comparisons.read(connection, world.comparisons_topic)) == []
        vault.add("cam/gone.mp4", clip)
        environ = world.environ | login(world, PERSON) | {"LOG_FORMAT": "json"}
        listed = vault_ml("dead-letter", "list", "--json", environ=environ)
        assert json.loads(listed.stdout)["key"] == "cam/gone.mp4", listed.stderr
        sent = vault_ml("dead-letter", "replay", "--all", "--yes", environ=environ)
        assert sent.returncode == 0, sent.stderr
        replayed = vault_ml("replay", "--from", "1h", "--topic-to", TRIAL, environ=environ)
        assert replayed.returncode == 0, replayed.stderr
        assert sorted(keys(world.read(TRIAL, 3, 10.0))) == ["cam/0.mp4", "cam/gone.mp4", "cam/gone.mp4"]
