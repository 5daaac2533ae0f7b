"""`vault-ml run` on a real Kafka and a real Triton; Vault is the stand-in, over real HTTP."""

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumer.standin_vault import StandinVault
from consumer.topics import Record, produce, read_topic
from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.brokers.kafka import KafkaBroker, User, free_ports
from tests.brokers.topics import allow_all_but_create, committed_offsets, create_topic
from tests.fakes.recorded_events import README_EVENT
from tests.pods import Pod

SECONDS = 60.0


@dataclass
class World:
    """What a pod lives in: topics of its own on the broker, a Triton, a Vault."""

    kafka: KafkaBroker
    triton_url: str
    vault: StandinVault
    directory: Path
    partitions: int = 1
    source: str = field(init=False)
    target: str = field(init=False)
    group: str = field(init=False)

    def __post_init__(self) -> None:
        self.source = create_topic(self.kafka.bootstrap, "source", self.partitions)
        self.target = create_topic(self.kafka.bootstrap, "target")
        self.group = f"group-{self.source}"

    @property
    def letters_topic(self) -> str:
        return f"{self.source}.dead-letter"

    def pod(self, **changed: str) -> Pod:
        environ = {
            "QUEUE_SYSTEM": "KAFKA",
            "QUEUE_NAME": self.source,
            "QUEUE_TARGET": self.target,
            "KAFKA_BROKER": self.kafka.bootstrap,
            "KAFKA_GROUP": self.group,
            "KAFKA_SECURITY": "PLAINTEXT",
            "VAULT_API_URL": self.vault.url,
            "VAULT_ACCESS_KEY": self.vault.access_key,
            "VAULT_SECRET_KEY": self.vault.secret_key,
            "NUMBER_OF_PREDICTIONS": "2",
            "TRITON_URL": self.triton_url,
            "WORKERS": "1",
        }
        return Pod(self.directory, environ | changed)

    def store(self, key: str, path: Path) -> dict[str, Any]:
        """Put a recording into Vault and return the event that Vault publishes of it."""
        self.vault.add(key, path)
        event: dict[str, Any] = json.loads(json.dumps(README_EVENT))
        event["payload"]["key"] = key
        event["source"] = self.vault.provider
        return event

    def send(self, *events: object, partition: int = -1) -> None:
        values = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
        produce(self.kafka.bootstrap, self.source, values, partition=partition)

    def results(self, count: int, seconds: float = SECONDS) -> list[Record]:
        return self.read(self.target, count, seconds)

    def letters(self, count: int, seconds: float = SECONDS) -> list[dict[str, Any]]:
        records = self.read(self.letters_topic, count, seconds)
        return [json.loads(record.value or b"{}") for record in records]

    def read(self, topic: str, count: int, seconds: float) -> list[Record]:
        """Return at least that many records; asks anew now and then, as the topic may come into being."""
        deadline = time.monotonic() + seconds
        records: list[Record] = []
        while len(records) < count and time.monotonic() < deadline:
            records = read_topic(self.kafka.bootstrap, topic, count, timeout_seconds=5.0)
        assert len(records) >= count, f"{len(records)} of {count} in {topic}"
        return records

    def everything(self) -> list[Record]:
        """Return all results there are, after the pods have stopped."""
        return read_topic(self.kafka.bootstrap, self.target, 10_000, timeout_seconds=2.0)

    def no_letters(self) -> bool:
        return not read_topic(self.kafka.bootstrap, self.letters_topic, 1, timeout_seconds=0.5)

    def committed(self) -> dict[int, int]:
        return committed_offsets(self.kafka.bootstrap, self.group, self.source)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write(tmp_path_factory.mktemp("clips") / "sound.mp4")


@pytest.fixture
def vault() -> Iterator[StandinVault]:
    with StandinVault() as standin:
        yield standin


@pytest.fixture
def world(kafka: KafkaBroker, triton: EmbeddedTriton, vault: StandinVault, tmp_path: Path) -> World:
    return World(kafka, triton.grpc_url, vault, tmp_path)


UNEVEN_MS = [n * 33 + n // 3 for n in range(40)] + [5000 + n * 200 for n in range(40)]


def balances(ledger: dict[str, Any]) -> bool:
    read = ledger["decoded"] + ledger["not_needed"] + ledger["undecodable"]
    fates = ledger["inferred"] + ledger["not_sampled"] + sum(ledger["dropped"].values())
    return ledger["packets"] in (None, read) and ledger["decoded"] == fates


def keys(records: list[Record]) -> list[str]:
    return [json.loads(record.value or b"{}")["payload"]["key"] for record in records]


def test_a_readme_event_comes_out_with_the_readmes_keys_and_types(world: World, clip: Path) -> None:
    event = world.store("youruser/1630643468_6-967003_highway4_200-200-400-400_24_769.mp4", clip)
    world.send(event)
    with world.pod() as pod:
        (record,) = world.results(1)
        assert record.value is not None
        result = json.loads(record.value)
        assert result.keys() == event.keys() | {"operation", "data"}
        assert {name: result[name] for name in event} == event
        assert result["operation"] == "classification"
        assert list(result["data"]) == ["probabilities", "labels", "boxes"]
        assert record.headers["vault-ml-source"] == f"{world.source}/0/0/0"
        assert record.headers["vault-ml-outcome"] == "done"
        assert record.headers["vault-ml-model"] == "yolo/1"
        assert record.headers["vault-ml-digest"].startswith("sha256:")
        assert record.key == record.headers["vault-ml-id"].encode()
        ledger = json.loads(record.headers["vault-ml-ledger"])
        assert (ledger["packets"], ledger["inferred"]) == (80, 2)
        line = pod.wait_for_line(event="recording")
        assert line["key"] == event["payload"]["key"]
        assert {"download", "decode", "inference", "wait", "deliver"} <= line["seconds"].keys()
        assert pod.metric("vault_ml_recordings_total", outcome="done") == 1
        assert pod.stop() == 0
    assert world.committed() == {0: 1}


def test_bad_events_become_dead_letters_and_good_ones_between_them_results(
    world: World, clip: Path, tmp_path: Path
) -> None:
    encrypted = clips.write_encrypted_looking(tmp_path / "encrypted.mp4")
    audio = clips.write_audio_only(tmp_path / "audio.mp4")
    gone = world.store("cam/gone.mp4", clip)
    del world.vault.recordings["cam/gone.mp4"]
    world.send(
        b"{not json",
        world.store("cam/1.mp4", clip),
        {"payload": {"no": "key"}},
        gone,
        world.store("cam/encrypted.mp4", encrypted),
        world.store("cam/audio.mp4", audio),
        world.store("cam/2.mp4", clip),
    )
    with world.pod() as pod:
        letters = world.letters(5)
        assert sorted(keys(world.results(2))) == ["cam/1.mp4", "cam/2.mp4"]
        reasons = {letter["deadLetter"]["attributes"]["reason"] for letter in letters}
        assert reasons == {"malformed", "refused", "encrypted", "undecodable"}
        assert {letter["schema"] for letter in letters} == {"uug.ai/dead-letter/v1"}
        assert b"{not json" in [base64.b64decode(letter["payload"]) for letter in letters]
        pod.wait_for(lambda: pod.metric("vault_ml_dead_letters_total", reason="malformed") == 2, "counted")
        assert pod.stop() == 0
    assert world.committed() == {0: 7}, "dead letters are outcomes too"


def test_every_awkward_recording_ends_as_its_designed_outcome(world: World, tmp_path: Path) -> None:
    fragments = clips.Clip(container_options=clips.KERBEROS_FRAGMENTS)
    looked_at = {
        "fragmented": ("done", clips.write_kerberos_like(tmp_path / "a.mp4", clips.Clip())),
        "truncated": ("partial", clips.truncate(clips.write(tmp_path / "b.mp4", fragments), 0.6)),
        "damaged": ("partial", clips.damage(clips.write(tmp_path / "c.mp4"), range(20, 45))),
        "rotated": ("done", clips.write(tmp_path / "d.mp4", clips.Clip(rotation_degrees=90))),
        "full-range": ("done", clips.write(tmp_path / "e.mp4", clips.Clip(full_range=True))),
        "10-bit": ("done", clips.write(tmp_path / "f.mp4", clips.Clip(pixel_format="yuv420p10le"))),
        "variable-rate": ("done", clips.write(tmp_path / "g.mp4", clips.Clip(times_ms=UNEVEN_MS))),
        "size-changing": ("done", clips.write_size_changing(tmp_path / "h.mp4")),
        "zero-bytes": ("skipped:zero_bytes", tmp_path / "i.mp4"),
    }
    (tmp_path / "i.mp4").touch()
    buried = {
        "audio-only": ("undecodable", clips.write_audio_only(tmp_path / "j.mp4")),
        "no-keyframe": ("undecodable", clips.write_without_keyframes(tmp_path / "k.mp4")),
        "encrypted": ("encrypted", clips.write_encrypted_looking(tmp_path / "l.mp4")),
        "unfinished": ("unfinished", clips.write_unfinished(tmp_path / "m.mp4")),
    }
    for name, (_, path) in (looked_at | buried).items():
        world.send(world.store(f"cam/{name}.mp4", path))
    with world.pod(RECORDING_DEADLINE="3", NUMBER_OF_PREDICTIONS="8") as pod:
        records = world.results(len(looked_at))
        outcomes = {
            json.loads(record.value or b"{}")["payload"]["key"]: record.headers["vault-ml-outcome"]
            for record in records
        }
        assert outcomes == {f"cam/{name}.mp4": outcome for name, (outcome, _) in looked_at.items()}
        for record in records:
            if record.headers["vault-ml-outcome"] in ("done", "partial"):
                assert balances(json.loads(record.headers["vault-ml-ledger"]))
        letters = [letter["deadLetter"] for letter in world.letters(len(buried))]
        reasons = {letter["attributes"]["key"]: letter["attributes"]["reason"] for letter in letters}
        assert reasons == {f"cam/{name}.mp4": reason for name, (reason, _) in buried.items()}
        assert pod.stop() == 0


def test_what_needs_no_look_is_answered_with_empty_lists(world: World, clip: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    ondemand = world.store("cam/ondemand.mp4", clip) | {"request": "ondemand"}
    thumbnail = world.store("cam/1_thumbnail.jpg", clip)
    world.send(ondemand, thumbnail, world.store("cam/empty.mp4", empty))
    produce(world.kafka.bootstrap, world.source, [None])
    with world.pod() as pod:
        records = world.results(4)
        outcomes = {record.headers["vault-ml-outcome"] for record in records}
        assert outcomes == {
            "skipped:ondemand",
            "skipped:not_a_video",
            "skipped:zero_bytes",
            "skipped:tombstone",
        }
        for record in records:
            data = json.loads(record.value or b"{}")["data"]
            assert data == {"probabilities": [], "labels": [], "boxes": []}
        assert pod.stop() == 0
    assert world.committed() == {0: 4}


def test_a_list_of_events_has_an_outcome_for_each_and_one_offset(world: World, clip: Path) -> None:
    world.send([world.store(f"cam/{n}.mp4", clip) for n in range(3)])
    with world.pod() as pod:
        records = world.results(3)
        assert sorted(record.headers["vault-ml-source"] for record in records) == [
            f"{world.source}/0/0/{n}" for n in range(3)
        ]
        assert pod.stop() == 0
    assert world.committed() == {0: 1}


def test_sigterm_finishes_or_gives_back_and_nothing_is_lost_or_done_twice(world: World, clip: Path) -> None:
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(30)]
    world.send(*events)
    with world.pod() as first:
        world.results(3)
        assert first.stop() == 0
    with world.pod() as second:
        world.results(30)
        assert second.stop() == 0
    records = world.everything()
    assert sorted(keys(records)) == sorted(event["payload"]["key"] for event in events)
    assert world.committed() == {0: 30}


def test_kill_9_loses_nothing_and_repeats_under_the_same_id(world: World, clip: Path) -> None:
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(20)]
    world.send(*events)
    with world.pod() as first:
        world.results(3)
        first.kill()
    with world.pod() as second:
        second.wait_for(lambda: world.committed() == {0: 20}, "all committed")
    records = world.everything()
    assert set(keys(records)) == {event["payload"]["key"] for event in events}
    assert len({record.key for record in records}) == 20


def test_a_worker_that_dies_costs_one_try(world: World, clip: Path) -> None:
    world.send(world.store("cam/0.mp4", clip))
    with world.pod() as pod:
        world.results(1)
        for child in psutil.Process(pod.process.pid).children():
            if "spawn_main" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
        world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(1, 4)])
        assert sorted(keys(world.results(4))) == [f"cam/{n}.mp4" for n in range(4)]
        assert world.no_letters()


def test_triton_away_pauses_and_keeps_the_place(
    kafka: KafkaBroker, model_repository: Path, vault: StandinVault, clip: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    world = World(kafka, f"127.0.0.1:{port}", vault, tmp_path)
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(5)]
    with world.pod(TRITON_TIMEOUT="5") as pod:
        with EmbeddedTriton.start(model_repository, grpc_port=port):
            world.send(events[0])
            world.results(1)
        world.send(*events[1:])
        pod.wait_for(lambda: pod.metric("vault_ml_outage", part="triton") == 1, "outage seen")
        assert pod.get("/healthz")[0] == 200
        with EmbeddedTriton.start(model_repository, grpc_port=port):
            assert len(keys(world.results(5))) == 5
            pod.wait_for(lambda: pod.metric("vault_ml_outage", part="triton") == 0, "outage over")
        assert world.no_letters()


def test_vault_away_or_a_rotated_key_pauses_and_keeps_the_place(world: World, clip: Path) -> None:
    world.send(world.store("cam/0.mp4", clip))
    with world.pod() as pod:
        world.results(1)
        known, world.vault.secret_key = world.vault.secret_key, "rotated"
        world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(1, 4)])
        pod.wait_for(lambda: pod.metric("vault_ml_outage", part="vault") == 1, "outage seen")
        world.vault.secret_key = known
        assert len(world.results(4)) == 4
        assert world.no_letters()


def test_a_broker_that_dies_delays_results_and_loses_none(
    own_kafka: KafkaBroker, triton: EmbeddedTriton, vault: StandinVault, clip: Path, tmp_path: Path
) -> None:
    world = World(own_kafka, triton.grpc_url, vault, tmp_path)
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(20)])
    with world.pod() as pod:
        world.results(2)
        own_kafka.kill()
        own_kafka.restart()
        pod.wait_for(lambda: world.committed() == {0: 20}, "all committed", seconds=120.0)
    assert set(keys(world.everything())) == {f"cam/{n}.mp4" for n in range(20)}
    assert world.no_letters()


def test_an_unfinished_recording_is_looked_at_once_it_is_complete(
    world: World, clip: Path, tmp_path: Path
) -> None:
    unfinished = clips.write_unfinished(tmp_path / "unfinished.mp4")
    event = world.store("cam/0.mp4", unfinished)
    world.send(event)
    with world.pod() as pod:
        pod.wait_for_line(event="try failed", reason="unfinished")
        world.vault.add("cam/0.mp4", clip)
        (record,) = world.results(1)
        assert record.headers["vault-ml-outcome"] == "done"


def test_a_recording_that_does_not_heal_in_time_is_a_dead_letter_and_delays_nobody(
    world: World, clip: Path, tmp_path: Path
) -> None:
    unfinished = clips.write_unfinished(tmp_path / "unfinished.mp4")
    world.send(world.store("cam/0.mp4", unfinished), world.store("cam/1.mp4", clip))
    with world.pod(RECORDING_DEADLINE="3") as pod:
        assert keys(world.results(1)) == ["cam/1.mp4"]
        (letter,) = world.letters(1)
        assert letter["deadLetter"]["reason"] == "retry_exhausted"
        assert letter["deadLetter"]["attempts"] > 1
        pod.wait_for(lambda: world.committed() == {0: 2}, "committed")


def test_partitions_are_shared_and_handed_over_without_doing_work_twice(
    kafka: KafkaBroker, triton: EmbeddedTriton, vault: StandinVault, clip: Path, tmp_path: Path
) -> None:
    world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=4)
    sent = [world.store(f"cam/{n}.mp4", clip) for n in range(60)]
    for n, event in enumerate(sent):
        world.send(event, partition=n % 4)
    with world.pod() as first:
        world.results(5)
        with world.pod() as second:
            second.wait_until_ready()
            world.results(60)
            assert second.lines(event="recording"), "the second pod worked too"
            assert first.stop() == 0
            assert second.stop() == 0
    records = world.everything()
    assert sorted(keys(records)) == sorted(event["payload"]["key"] for event in sent)


def test_a_pod_more_than_there_are_partitions_is_ready_and_takes_over(world: World, clip: Path) -> None:
    with world.pod() as first, world.pod() as second:
        first.wait_until_ready()
        second.wait_until_ready()
        assert first.stop() == 0
        world.send(world.store("cam/0.mp4", clip))
        world.results(1)
        assert second.lines(event="recording")


def test_it_joins_the_group_only_once_the_contract_holds(
    kafka: KafkaBroker, model_repository: Path, vault: StandinVault, clip: Path, tmp_path: Path
) -> None:
    with EmbeddedTriton.start(model_repository, models=[]) as server:
        world = World(kafka, server.grpc_url, vault, tmp_path)
        world.send(world.store("cam/0.mp4", clip))
        with world.pod(TRITON_MODEL="no-such-model") as pod:
            line = pod.wait_for_line(event="not ready", check="contract")
            assert "no-such-model" in line["why"]
            status, body = pod.get("/readyz")
            assert status == 503
            assert "no-such-model" in json.loads(body)["checks"]["contract"]["detail"]
            assert not pod.lines(event="partitions assigned")
            assert pod.get("/healthz")[0] == 200
            assert pod.stop() == 0


def test_a_missing_topic_is_named_and_waited_for(world: World, clip: Path) -> None:
    missing = f"{world.source}-later"
    with world.pod(QUEUE_NAME=missing) as pod:
        line = pod.wait_for_line(event="not ready", check="kafka")
        assert missing in line["why"]
        assert pod.get("/readyz")[0] == 503


def test_without_the_right_to_create_the_dead_letter_topic_results_flow_and_bad_events_wait(
    triton: EmbeddedTriton, vault: StandinVault, clip: Path, tmp_path: Path
) -> None:
    with_authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    user = User("plain-user", "plain-secret", "PLAIN")
    (tmp_path / "kafka").mkdir()
    with KafkaBroker(tmp_path / "kafka", users=(user,), settings=with_authorizer) as kafka:
        allow_all_but_create(kafka.bootstrap, user.name)
        world = World(kafka, triton.grpc_url, vault, tmp_path)
        world.send(b"{not json", world.store("cam/0.mp4", clip))
        login = {
            "KAFKA_BROKER": kafka.sasl_bootstrap,
            "KAFKA_SECURITY": "SASL_PLAINTEXT",
            "KAFKA_USERNAME": user.name,
            "KAFKA_PASSWORD": user.password,
        }
        with world.pod(**login) as pod:
            pod.wait_for_line(event="dead letters have nowhere to go")
            world.results(1)
            pod.wait_for(lambda: pod.metric("vault_ml_outage", part="kafka") == 1, "trouble seen")
            assert world.committed().get(0, 0) == 0, "the bad event keeps its place"
            create_topic(kafka.bootstrap, world.letters_topic, exact=True)
            world.letters(1)
            pod.wait_for(lambda: world.committed() == {0: 2}, "committed")


def test_it_logs_in_with_scram_over_tls(world: World, clip: Path) -> None:
    world.send(world.store("cam/0.mp4", clip))
    login = {
        "KAFKA_BROKER": world.kafka.tls_bootstrap,
        "KAFKA_SECURITY": "SASL_SSL",
        "KAFKA_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_USERNAME": "scram-512-user",
        "KAFKA_PASSWORD": "scram-512-secret",
        "KAFKA_CA_FILE": str(world.kafka.ca_file),
    }
    with world.pod(**login) as pod:
        world.results(1)
        assert pod.stop() == 0


def test_a_refused_login_says_so_and_shows_no_secret(world: World) -> None:
    login = {
        "KAFKA_BROKER": world.kafka.sasl_bootstrap,
        "KAFKA_SECURITY": "SASL_PLAINTEXT",
        "KAFKA_MECHANISM": "PLAIN",
        "KAFKA_USERNAME": "plain-user",
        "KAFKA_PASSWORD": "a-wrong-secret",
    }
    with world.pod(**login) as pod:
        line = pod.wait_for_line(event="not ready", check="kafka")
        assert "refused the login" in line["why"]
        assert "a-wrong-secret" not in pod.log.read_text()


def test_wrong_settings_are_all_named_at_once(world: World) -> None:
    with world.pod(QUEUE_SYSTEM="SQS", NUMBER_OF_PREDICTIONS="many", VAULT_ACCESS_KEY="") as pod:
        assert pod.process.wait(SECONDS) == 2
        said = pod.log.read_text()
        named = {line.split()[0] for line in said.splitlines()}
        assert named == {"QUEUE_SYSTEM", "VAULT_ACCESS_KEY", "NUMBER_OF_PREDICTIONS"}
