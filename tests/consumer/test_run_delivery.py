"""Exactly once: what readers of the topics see, whatever happens to the pods; a real Kafka says so."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Producer

from consumer.topics import Record
from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.brokers.kafka import WITH_AUTHORIZER, KafkaBroker, User
from tests.brokers.topics import allow_all_but_create, create_topic, without_write
from tests.fakes.faulty_vault import FaultyVault, silence
from tests.pods import Pod
from tests.worlds import World, keys

LOGIN = User("plain-user", "plain-secret", "PLAIN")


def sources(records: list[Record]) -> Counter[str]:
    return Counter(record.headers["vault-ml-source"] for record in records)


def each_once(world: World, count: int) -> bool:
    found = sources(world.everything())
    return len(found) == count and set(found.values()) == {1}


def test_pods_killed_again_and_again_show_readers_each_recording_once(world: World, clip: Path) -> None:
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(60)]
    world.send(*events)
    for enough in (1, 15, 30):
        with world.pod(POD_NAME="one") as pod:
            world.results(enough)
            pod.kill()
    with world.pod(POD_NAME="one") as pod:
        pod.wait_for(lambda: world.committed() == {0: 60}, "all committed")
        assert pod.stop() == 0
    assert each_once(world, 60)
    assert sorted(keys(world.everything())) == sorted(event["payload"]["key"] for event in events)
    assert world.no_letters()


def test_results_behind_an_unfinished_recording_wait_and_other_partitions_do_not(
    kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=2)
    world.send(world.store("cam/slow.mp4", clip), partition=0)
    with world.pod(WORKERS="2", VAULT_TIMEOUT="5") as pod:
        pod.wait_until_ready()
        vault.faults["GET /storage"] = [silence]
        vault.faults["GET /storage/blob"] = [silence]
        world.send(*[world.store(f"cam/behind-{n}.mp4", clip) for n in range(3)], partition=0)
        world.send(*[world.store(f"cam/beside-{n}.mp4", clip) for n in range(3)], partition=1)
        world.results(7)
        assert pod.stop() == 0
    order = keys(world.everything())
    assert order.index("cam/slow.mp4") < min(order.index(f"cam/behind-{n}.mp4") for n in range(3))
    assert each_once(world, 7)


def test_where_transactions_are_refused_it_stops_with_one_sentence(
    triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "kafka").mkdir()
    with KafkaBroker(tmp_path / "kafka", users=(LOGIN,), settings=WITH_AUTHORIZER) as kafka:
        allow_all_but_create(kafka.bootstrap, LOGIN.name, transactions=False)
        world = World(kafka, triton.grpc_url, vault, tmp_path)
        for topic in (world.letters_topic, world.comparisons_topic):
            create_topic(kafka.bootstrap, topic, exact=True)
        world.send(world.store("cam/0.mp4", clip))
        login = {
            "KAFKA_BROKER": kafka.sasl_bootstrap,
            "KAFKA_SECURITY": "SASL_PLAINTEXT",
            "KAFKA_USERNAME": LOGIN.name,
            "KAFKA_PASSWORD": LOGIN.password,
        }
        with world.pod(POD_NAME="one", **login) as pod:
            assert pod.process.wait(60) != 0
            (last,) = pod.lines(event="stopped", level="error")
            assert pod.log.read_text().strip().splitlines()[-1] == json.dumps(last)
            assert f"Kafka refuses the transactional id '{world.group}-one'" in last["why"]
            assert "KAFKA_DELIVERY=at-least-once" in last["why"]
        with world.pod(KAFKA_DELIVERY="at-least-once", **login) as pod:
            world.results(1)
            assert pod.lines(event="starting", delivery="at-least-once")
            assert pod.metric("vault_ml_delivery_info", promise="at-least-once") == 1
            pod.wait_for(lambda: world.committed() == {0: 1}, "committed")
            assert pod.stop() == 0


@pytest.mark.parametrize(
    ("before", "after"), [("exactly-once", "at-least-once"), ("at-least-once", "exactly-once")]
)
def test_delivery_is_changed_by_a_rolling_update(world: World, clip: Path, before: str, after: str) -> None:
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(10)])
    with world.pod(KAFKA_DELIVERY=before) as old:
        world.results(3)
        with world.pod(KAFKA_DELIVERY=after) as new:
            new.wait_until_ready()
            assert old.stop() == 0
            world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(10, 15)])
            new.wait_for(lambda: world.committed() == {0: 15}, "all committed")
            assert new.metric("vault_ml_delivery_info", promise=after) == 1
            assert new.stop() == 0
    assert each_once(world, 15)


def test_a_result_too_large_for_its_topic_aborts_its_transaction_and_costs_nobody_else(
    world: World, clip: Path
) -> None:
    world.target = create_topic(world.kafka.bootstrap, "narrow", config={"max.message.bytes": "6000"})
    large = world.store("cam/large.mp4", clip)
    large["payload"]["metadata"]["note"] = "n" * 20_000
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(5)], large)
    world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(5, 10)])
    with world.pod() as pod:
        (letter,) = world.letters(1)
        assert letter["deadLetter"]["attributes"]["reason"] == "message_too_large"
        assert letter["deadLetter"]["attributes"]["key"] == "cam/large.mp4"
        pod.wait_for(lambda: world.committed() == {0: 11}, "all committed")
        assert pod.metric("vault_ml_transactions_total", end="aborted") >= 1
        assert pod.stop() == 0
    assert sorted(keys(world.everything())) == sorted(f"cam/{n}.mp4" for n in range(10))
    assert each_once(world, 10)


def take_the_id(world: World, pod_name: str) -> None:
    """Do what another pod of that name does first."""
    producer = Producer(
        {
            "bootstrap.servers": world.kafka.bootstrap,
            "transactional.id": f"{world.group}-{pod_name}",
            "log_level": 0,
        }
    )
    producer.init_transactions(30)


def begun_anew(pod: Pod, times: int) -> bool:
    return len(pod.lines(event="producer ended, beginning anew")) >= times


def test_a_fenced_pod_begins_anew_and_one_fenced_again_and_again_says_why_and_stops(
    world: World, clip: Path
) -> None:
    with world.pod(POD_NAME="one") as pod:
        for times in (1, 2):
            world.send(*[world.store(f"cam/{times}-{n}.mp4", clip) for n in range(5)])
            world.results(5 * times)
            take_the_id(world, "one")
            world.send(world.store(f"cam/{times}-fenced.mp4", clip))
            pod.wait_for(lambda times=times: begun_anew(pod, times), "anew")  # type: ignore[misc]  # bound now
            pod.wait_until_ready()
        world.results(12)
        take_the_id(world, "one")
        world.send(world.store("cam/last.mp4", clip))
        assert pod.process.wait(60) != 0
        assert "give each its own POD_NAME" in pod.log.read_text().strip().splitlines()[-1]
    with world.pod(POD_NAME="one") as pod:
        pod.wait_for(lambda: world.committed() == {0: 13}, "all committed")
    assert each_once(world, 13)


def test_a_pod_that_stood_still_while_others_had_its_partitions_writes_nothing_twice(
    kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=2)
    events = [world.store(f"cam/{n}.mp4", clip) for n in range(60)]
    for n, event in enumerate(events):
        world.send(event, partition=n % 2)
    with world.pod() as frozen:
        world.results(5)
        frozen.process.send_signal(signal.SIGSTOP)
        with world.pod() as other:
            other.wait_for(lambda: len(world.everything()) >= 60, "all there", seconds=120.0)
            frozen.process.send_signal(signal.SIGCONT)
            frozen.wait_for(
                lambda: bool(
                    frozen.lines(event="partitions lost: the group had no word from us in time")
                    or begun_anew(frozen, 1)
                ),
                "it notices",
            )
            world.send(world.store("cam/after.mp4", clip))
            other.wait_for(lambda: len(world.everything()) >= 61, "goes on")
            assert frozen.stop() == 0
            assert other.stop() == 0
    assert each_once(world, 61)


def test_a_pod_that_lost_its_partitions_drops_what_it_had_in_hand_and_goes_on(
    world: World, clip: Path, tmp_path: Path
) -> None:
    world.send(world.store("cam/0.mp4", clips.write_unfinished(tmp_path / "unfinished.mp4")))
    # Without transactions, so that it is the group alone that tells of the loss.
    with world.pod(KAFKA_DELIVERY="at-least-once") as frozen:
        frozen.wait_for_line(event="try failed", reason="unfinished")
        frozen.process.send_signal(signal.SIGSTOP)
        with world.pod(KAFKA_DELIVERY="at-least-once") as other:
            other.wait_for_line(event="try failed", reason="unfinished")
            frozen.process.send_signal(signal.SIGCONT)
            frozen.wait_for_line(event="partitions lost: the group had no word from us in time")
            world.vault.add("cam/0.mp4", clip)
            other.wait_for(lambda: world.committed() == {0: 1}, "committed")
            assert other.stop() == 0
        world.send(world.store("cam/after.mp4", clip))
        frozen.wait_for(lambda: world.committed() == {0: 2}, "it has the partition again")
        assert frozen.stop() == 0
    assert each_once(world, 2), "the recording in hand was the other one's"


def test_a_dead_letter_topic_that_we_may_not_write_to_holds_up_the_partitions_of_bad_events_alone(
    triton: EmbeddedTriton, vault: FaultyVault, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "kafka").mkdir()
    with KafkaBroker(tmp_path / "kafka", users=(LOGIN,), settings=WITH_AUTHORIZER) as kafka:
        allow_all_but_create(kafka.bootstrap, LOGIN.name)
        world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=2)
        create_topic(kafka.bootstrap, world.letters_topic, exact=True)
        with without_write(kafka.bootstrap, LOGIN.name, world.letters_topic):
            no_video = json.dumps({"payload": {"key": "cam/0.jpg"}}).encode()
            world.send(b"{not json", *[no_video] * 100, partition=0)
            login = {
                "KAFKA_BROKER": kafka.sasl_bootstrap,
                "KAFKA_SECURITY": "SASL_PLAINTEXT",
                "KAFKA_USERNAME": LOGIN.name,
                "KAFKA_PASSWORD": LOGIN.password,
            }
            with world.pod(**login) as pod:
                said = pod.wait_for_line(event="dead letters have nowhere to go")
                assert "grant WRITE" in said["why"]
                said = pod.wait_for_line(event="result not delivered, sending again")
                assert said["topic"] == world.letters_topic
                world.send(*[world.store(f"cam/{n}.mp4", clip) for n in range(3)], partition=1)
                pod.wait_for(lambda: world.committed().get(1) == 3, "the others go on")
                assert world.committed().get(0, 0) == 0, "the bad event keeps its place"
                assert pod.metric("vault_ml_outage", part="kafka") == 1
                assert pod.stop() == 0
        with world.pod(**login) as pod:
            world.letters(1)
            pod.wait_for(lambda: world.committed() == {0: 101, 1: 3}, "all committed")
            assert pod.stop() == 0


@pytest.mark.parametrize("static", [True, False])
def test_only_a_static_member_keeps_its_partitions_over_a_quick_restart(
    kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, tmp_path: Path, static: bool
) -> None:
    world = World(kafka, triton.grpc_url, vault, tmp_path, partitions=2)

    def member(name: str) -> Pod:
        return world.pod(POD_NAME=name, **({"KAFKA_GROUP_INSTANCE_ID": name} if static else {}))

    def partitions(pod: Pod) -> list[int]:
        lines = pod.lines(event="partitions assigned")
        return list(lines[-1]["all"]) if lines else []

    with member("one") as one:
        with member("two") as two:
            two.wait_for(lambda: len(partitions(one)) == 1 == len(partitions(two)), "shared")
            two.kill()
        with member("two") as again:
            again.wait_until_ready()
            again.wait_for(lambda: len(partitions(again)) == 1, "has a partition")
            assert again.stop() == 0
        one.wait_for(lambda: static or len(partitions(one)) == 2, "took over")
        assert (len(partitions(one)) == 1) == static
