"""`vault-ml replay` on a real Kafka and a real Triton: past events again, beside the pods."""

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.contract import LIVE_PRIORITY, REPLAY_PRIORITY
from consumer.moments import in_words
from consumer.replay_mark import HEADER, ReplayMark
from consumer.rollout import Rollout
from consumer.topics import Record, read_topic
from modelops.embedded import EmbeddedTriton
from tests import planted
from tests.brokers.kafka import KafkaBroker
from tests.command_line import vault_ml, vault_ml_here
from tests.fakes.faulty_vault import FaultyVault
from tests.fakes.triton_spy import TritonSpy
from tests.planted import Planted
from tests.worlds import SECONDS, World, keys

ONE = Planted(["old"], [(10, 10, 40, 40, 0.9, 0)])
TWO = Planted(["new"], [(10, 10, 40, 40, 0.8, 0)])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton with the live version 1 and version 2, whose answers are known."""
    repository = planted.write_repository(
        tmp_path_factory.mktemp("planted") / "repository", {1: ONE, 2: TWO}, Rollout(1, 1)
    )
    with EmbeddedTriton.start(repository) as server:
        yield server


@pytest.fixture
def past_world(kafka: KafkaBroker, served: EmbeddedTriton, vault: FaultyVault, tmp_path: Path) -> World:
    return World(kafka, served.grpc_url, vault, tmp_path, partitions=2)


def send(
    world: World, event: dict[str, Any], minutes_ago: float, camera: str = "gate", partition: int = -1
) -> None:
    """Put an event onto the source topic as if it had come then."""
    event["payload"]["metadata"]["event-instancename"] = camera
    written_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap, "log_level": 0})
    producer.produce(
        world.source,
        json.dumps(event).encode(),
        partition=partition,
        timestamp=int(written_at.timestamp() * 1000),
    )
    assert producer.flush(SECONDS) == 0


def replay(world: World, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return vault_ml(
        "replay", "--topic-to", f"{world.target}.again", *arguments, environ=world.environ | changed
    )


def everything(world: World, topic: str) -> list[Record]:
    return read_topic(world.kafka.bootstrap, topic, 10_000, timeout_seconds=2.0)


def labels(record: Record) -> set[str]:
    return {label for frame in json.loads(record.value or b"{}")["data"]["labels"] for label in frame}


def test_a_window_is_looked_at_by_the_given_version_at_low_priority_and_goes_to_another_topic(
    past_world: World, clip: Path
) -> None:
    world = past_world
    for number, (minutes_ago, camera) in enumerate(
        [(180, "gate"), (120, "gate"), (90, "gate"), (80, "yard"), (30, "gate")]
    ):
        send(world, world.store(f"cam/{number}.mp4", clip), minutes_ago, camera)
    with world.pod() as pod:
        live = world.results(5)
        with TritonSpy(world.triton_url) as spy:
            window = ("--from", "150m", "--to", "1h", "--camera", "gate", "--model-version", "2")
            done = replay(world, *window, TRITON_URL=spy.url)
        assert done.returncode == 0, done.stderr
        assert pod.stop() == 0
    again = everything(world, f"{world.target}.again")
    assert sorted(keys(again)) == ["cam/1.mp4", "cam/2.mp4"]
    assert {label for record in again for label in labels(record)} == {"new"}
    assert {record.headers["vault-ml-model"] for record in again} == {"yolo/2"}
    marks = {ReplayMark.from_json(record.headers[HEADER]) for record in again}
    assert {mark and mark.of for mark in marks} == {"source"}
    assert set(spy.priorities) == {REPLAY_PRIORITY}
    assert "2 events" in done.stderr
    assert "2 done" in done.stderr
    assert len(everything(world, world.target)) == len(live) == 5, "the live results are as they were"
    assert sum(world.committed().values()) == 5, "and so is the place of the pods"


def test_live_requests_go_first(past_world: World, clip: Path) -> None:
    past_world.send(past_world.store("cam/0.mp4", clip))
    with TritonSpy(past_world.triton_url) as spy, past_world.pod(TRITON_URL=spy.url) as pod:
        past_world.results(1)
        assert pod.stop() == 0
    assert set(spy.priorities) == {LIVE_PRIORITY}
    assert LIVE_PRIORITY < REPLAY_PRIORITY, "Triton's lower number goes first"


def test_an_interrupted_replay_goes_on_where_it_was_and_gives_each_result_once(
    past_world: World, clip: Path
) -> None:
    world, begin = past_world, in_words(datetime.now(UTC) - timedelta(minutes=30))
    for number in range(12):
        send(world, world.store(f"cam/{number}.mp4", clip), 20)
    command = [
        "replay",
        "--from",
        begin,
        "--to",
        in_words(datetime.now(UTC)),
        "--topic-to",
        f"{world.target}.again",
    ]
    with world.command(*command, "--rate", "2") as first:
        world.read(f"{world.target}.again", 2, SECONDS)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(SECONDS) == 1
        said = first.log.read_text()
    assert "Interrupted; this goes on: vault-ml replay --from" in said
    with world.command(*command, "--rate", "2") as second:
        before = len(everything(world, f"{world.target}.again"))
        world.read(f"{world.target}.again", before + 2, SECONDS)
        second.kill()
    last = vault_ml(*command, environ=world.environ)
    assert last.returncode == 0, last.stderr
    assert sorted(keys(everything(world, f"{world.target}.again"))) == sorted(
        f"cam/{n}.mp4" for n in range(12)
    )
    once_more = vault_ml(*command, environ=world.environ)
    assert "Nothing is left to do" in once_more.stderr
    anew = vault_ml(*command, "--anew", "--limit", "8", environ=world.environ)
    assert "8 events" in anew.stderr
    (goes_on,) = re.findall(r"More may be left .* goes on: vault-ml (.*)", anew.stderr)
    rest = vault_ml(*shlex.split(goes_on), environ=world.environ)
    assert "4 events" in rest.stderr
    assert "More may be left" not in rest.stderr


def test_what_fails_goes_to_dead_letters_of_the_replay(past_world: World, clip: Path) -> None:
    world = past_world
    send(world, world.store("cam/gone.mp4", clip), 5)
    del world.vault.recordings["cam/gone.mp4"]
    done = replay(world, "--from", "1h", KAFKA_DELIVERY="at-least-once")
    assert "1 dead-letter (refused)" in done.stderr
    assert f"QUEUE_DEAD_LETTER={world.target}.again.dead-letter vault-ml dead-letter list" in done.stderr
    (letter,) = everything(world, f"{world.target}.again.dead-letter")
    assert json.loads(letter.value or b"")["deadLetter"]["attributes"]["replay"] == "1"
    assert world.no_letters()


def test_what_the_retention_has_taken_is_said(past_world: World, clip: Path) -> None:
    world = past_world
    for number in range(6):
        # A partition that has lost all does not tell from when on it would be complete.
        send(world, world.store(f"cam/{number}.mp4", clip), 60 - number, partition=number % 2)
    admin = AdminClient({"bootstrap.servers": world.kafka.bootstrap, "log_level": 0})
    gone = [TopicPartition(world.source, partition, 1) for partition in range(2)]
    for future in admin.delete_records(gone).values():
        future.result(SECONDS)
    done = replay(world, "--from", "2h")
    assert f"are gone: topic {world.source!r} keeps them no longer" in done.stderr
    complete = replay(world, "--from", "1m")
    assert "are gone" not in complete.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (
            ["--from", "1h", "--model-version", "7"],
            1,
            "is not served: give one of 1, 2",
        ),
        (["--from", "soon"], 2, "--from is 'soon': give an age"),
        (["--from", "1h", "--to", "2h"], 2, "--to 2h is not after --from 1h"),
        ([], 2, "Missing option '--from'"),
    ],
)
def test_a_mistake_is_said_before_anything_is_done(
    past_world: World, arguments: list[str], status: int, said: str
) -> None:
    done = replay(past_world, *arguments)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_results_of_a_replay_do_not_go_where_the_pods_write_or_read(past_world: World) -> None:
    notes = f"{past_world.letters_topic}.replayed"
    for topic in (past_world.target, past_world.source, past_world.letters_topic, notes):
        done = vault_ml_here("replay", "--from", "1h", "--topic-to", topic, environ=past_world.environ)
        assert done.returncode == 2
        assert f"--topic-to {topic} is " in done.stderr


def test_dead_letters_of_a_replay_do_not_go_among_those_of_the_pods(past_world: World) -> None:
    environ = past_world.environ | {"QUEUE_DEAD_LETTER": "trial.dead-letter"}
    done = vault_ml_here("replay", "--from", "1h", "--topic-to", "trial", environ=environ)
    assert done.returncode == 2
    assert "trial has dead letters in trial.dead-letter, which is QUEUE_DEAD_LETTER" in done.stderr
