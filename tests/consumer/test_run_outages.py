"""`vault-ml run` while something is away or broken: nothing is lost, and the log says what it is."""

import os
import signal
import threading
from pathlib import Path

import psutil

from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.brokers.kafka import WITH_AUTHORIZER, KafkaBroker, User, free_ports
from tests.brokers.topics import allow_all_but_create, create_topic
from tests.fakes.faulty_vault import FaultyHandler, FaultyVault, drip_body, reset, status
from tests.worlds import SECONDS, World, keys


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


def test_a_worker_that_dies_costs_one_try(world: World, vault: FaultyVault, clip: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def stall(_handler: FaultyHandler) -> None:
        begun.set()
        go_on.wait(SECONDS)

    vault.faults = {"GET /storage": [stall]}
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(3)])
    with world.pod() as pod:
        assert begun.wait(SECONDS), "a worker is busy"
        for child in psutil.Process(pod.process.pid).children():
            if "spawn_main" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
        go_on.set()
        assert sorted(keys(world.results(3))) == [f"cam/{n}.mp4" for n in range(3)]
        pod.wait_for_line(event="try failed", reason="worker_died")
        assert pod.metric("vault_ml_retries_total", reason="worker_died") == 1
        assert world.no_letters()


def test_triton_away_pauses_and_keeps_the_place(
    kafka: KafkaBroker, model_repository: Path, vault: FaultyVault, clip: Path, tmp_path: Path
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
    own_kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
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


def test_without_the_right_to_create_the_dead_letter_topic_bad_events_wait_and_other_partitions_flow(
    triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    user = User("plain-user", "plain-secret", "PLAIN")
    (tmp_path / "kafka").mkdir()
    with KafkaBroker(tmp_path / "kafka", users=(user,), settings=WITH_AUTHORIZER) as kafka:
        allow_all_but_create(kafka.bootstrap, user.name)
        world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=2)
        world.send(b"{not json", partition=0)
        world.send(world.store("cam/0.mp4", clip), partition=1)
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
            pod.wait_for(lambda: world.committed().get(1) == 1, "the good one is committed")
            assert world.committed().get(0, 0) == 0, "the bad event keeps its place"
            create_topic(kafka.bootstrap, world.letters_topic, exact=True)
            world.letters(1)
            pod.wait_for(lambda: world.committed() == {0: 1, 1: 1}, "committed")


def test_a_vault_behind_a_broken_ingress_is_an_outage(world: World, vault: FaultyVault, clip: Path) -> None:
    def page(handler: FaultyHandler) -> None:
        body = b"<html>503 Service Temporarily Unavailable</html>"
        handler.begin(503, Content_Length=str(len(body)), Content_Type="text/html")
        handler.wfile.write(body)

    with world.pod() as pod:
        pod.wait_until_ready()
        routes = ("POST /ping", "GET /storage", "GET /storage/blob")
        vault.faults = dict.fromkeys(routes, page)
        world.send(world.store("cam/0.mp4", clip))
        pod.wait_for(lambda: pod.metric("vault_ml_outage", part="vault") == 1, "outage seen")
        vault.faults = {}
        world.results(1)
        pod.wait_for_line(event="outage over")
        assert world.no_letters()


def test_a_connection_that_breaks_off_is_tried_again(world: World, vault: FaultyVault, clip: Path) -> None:
    vault.faults = {"GET /storage": [reset] * 6, "GET /storage/blob": [reset] * 6}
    world.send(world.store("cam/0.mp4", clip))
    with world.pod() as pod:
        world.results(1)
        assert pod.lines(event="try failed", reason="unavailable")
        assert world.no_letters()


def test_a_slow_vault_is_named_and_leaves_no_file_behind(
    world: World, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    vault.faults = {"GET /storage": status(503), "GET /storage/blob": drip_body}
    world.send(world.store("cam/0.mp4", clip))
    times = {"RECORDING_TIME_LIMIT": "3", "RECORDING_DEADLINE": "4"}
    with world.pod(TMPDIR=str(downloads), **times) as pod:
        (letter,) = world.letters(1)
        assert letter["deadLetter"]["attributes"]["reason"] == "unavailable"
        assert pod.metric("vault_ml_worker_restarts_total") == 0
    assert list(downloads.iterdir()) == []


def test_it_stops_also_when_the_broker_does_not_answer(
    own_kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    world = World(own_kafka, triton.grpc_url, vault, tmp_path)
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(40)])
    with world.pod(SHUTDOWN_GRACE="10") as pod:
        world.results(3)
        own_kafka.freeze()
        assert pod.stop() == 0
        own_kafka.thaw()
