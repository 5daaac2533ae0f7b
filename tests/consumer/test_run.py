"""`vault-ml run` on a real Kafka and a real Triton; Vault is the stand-in, over real HTTP."""

import base64
import json
from pathlib import Path
from typing import Any

from consumer.topics import produce
from modelops.embedded import EmbeddedTriton
from tests import clips, planted
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import create_topic
from tests.fakes.faulty_vault import FaultyVault
from tests.worlds import SECONDS, World, keys

UNEVEN_MS = [n * 33 + n // 3 for n in range(40)] + [5000 + n * 200 for n in range(40)]


def balances(ledger: dict[str, Any]) -> bool:
    read = ledger["decoded"] + ledger["not_needed"] + ledger["undecodable"]
    fates = ledger["inferred"] + ledger["not_sampled"] + sum(ledger["dropped"].values())
    return ledger["packets"] in (None, read) and ledger["decoded"] == fates


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


def test_partitions_are_shared_and_handed_over_without_doing_work_twice(
    kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=4)
    sent = [world.store(f"cam/{n}.mp4", clip) for n in range(60)]

    def send(numbers: range) -> None:
        for n in numbers:
            world.send(sent[n], partition=n % 4)

    send(range(20))
    with world.pod() as first:
        world.results(5)
        with world.pod() as second:
            # Not earlier: the first pod alone could be done before there is a second one.
            second.wait_for_line(event="partitions assigned")
            send(range(20, 60))
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
        second.wait_for_line(event="recording")


def test_it_joins_the_group_only_once_the_contract_holds(
    kafka: KafkaBroker, model_repository: Path, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    with EmbeddedTriton.start(model_repository, models=[]) as server:
        world = World(kafka, server.grpc_url, vault, tmp_path)
        world.send(world.store("cam/0.mp4", clip))
        with world.pod() as pod:
            line = pod.wait_for_line(event="not ready", check="contract")
            assert "serves no model 'yolo'" in line["why"]
            status, body = pod.get("/readyz")
            assert status == 503
            assert "serves no model" in json.loads(body)["checks"]["contract"]["detail"]
            assert not pod.lines(event="partitions assigned")
            assert pod.metric("vault_ml_outage", part="triton") == 1, "alerts see a pod that never joined"
            assert pod.get("/healthz")[0] == 200
            planted.load(server.http_url, "yolo")
            pod.wait_for(lambda: "does not serve 'yolo-rollout'" in pod.get("/readyz")[1], "companion named")
            planted.load(server.http_url, "yolo-rollout")
            world.results(1)
            assert pod.stop() == 0


def test_a_missing_topic_is_named_and_waited_for(world: World, clip: Path) -> None:
    missing = f"{world.source}-later"
    with world.pod(QUEUE_NAME=missing) as pod:
        line = pod.wait_for_line(event="not ready", check="kafka")
        assert missing in line["why"]
        assert pod.get("/readyz")[0] == 503
        assert pod.metric("vault_ml_outage", part="kafka") == 1
        create_topic(world.kafka.bootstrap, missing, exact=True)
        pod.wait_until_ready()
        assert pod.metric("vault_ml_outage", part="kafka") == 0


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
