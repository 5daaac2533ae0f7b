"""`vault-ml run` while a rollout goes on: real Kafka, real Triton, and no recording that notices."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.rollout import Candidate, Rollout, bucket_percent
from consumer.topics import Record
from modelops.embedded import EmbeddedTriton
from tests import planted
from tests.brokers.kafka import KafkaBroker
from tests.fakes.faulty_vault import FaultyVault
from tests.planted import Planted
from tests.pods import Pod
from tests.worlds import Load, World

EIGHTY = Planted([f"class-{number}" for number in range(80)], [(10.0, 10.0, 40.0, 40.0, 0.9, 79)])
THREE = Planted(["bus", "car", "van"], [(10.0, 10.0, 40.0, 40.0, 0.8, 1)])
BROKEN = Planted(["bus", "car", "van"], [], broken=True)
VERSIONS = {1: EIGHTY, 2: THREE, 3: BROKEN}


def sending(world: World, clip: Path) -> Load:
    """Recordings that keep coming."""

    def send(number: int) -> bool:
        world.send(world.store(f"cam/{number}.mp4", clip))
        return True

    return Load(send)


class Site:
    """A repository and the Triton that serves it; a test changes them as a rollout does."""

    def __init__(self, repository: Path, server: EmbeddedTriton) -> None:
        self.repository, self.server = repository, server
        self.generation = 1

    def say(self, live: int, candidate: Candidate | None = None) -> int:
        """Change the rollout; returns its generation."""
        self.generation += 1
        rollout = Rollout(self.generation, live, candidate=candidate)
        planted.write_companion(self.repository, VERSIONS, rollout)
        planted.load(self.server.http_url, "yolo-rollout")
        return self.generation

    def roll_out(self, pod: Pod, live: int, candidate: Candidate | None = None) -> None:
        """Change the rollout, and wait until recordings are looked at in it."""

        def compared() -> float:
            return pod.metric("vault_ml_comparisons_total", mode=candidate.mode) if candidate else 0.0

        before, generation = compared(), self.say(live, candidate)
        pod.wait_for(
            lambda: (
                pod.metric("vault_ml_rollout_generation") == generation
                and (candidate is None or compared() > before)
            ),
            f"generation {generation}",
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    repository = tmp_path_factory.mktemp("site") / "repository"
    planted.write_repository(repository, VERSIONS, Rollout(1, 1))
    with EmbeddedTriton.start(repository) as server:
        yield Site(repository, server)


@pytest.fixture
def world(kafka: KafkaBroker, site: Site, vault: FaultyVault, tmp_path: Path) -> World:
    """The world of a pod that asks this site's Triton."""
    return World(kafka, site.server.grpc_url, vault, tmp_path)


def found(record: Record) -> set[str]:
    return {label for frame in json.loads(record.value or b"{}")["data"]["labels"] for label in frame}


def test_no_recording_notices_that_versions_are_swapped_under_load(
    site: Site, world: World, clip: Path
) -> None:
    site.say(live=1)
    with world.pod(WORKERS="2") as pod, sending(world, clip) as load:
        world.results(3)
        site.roll_out(pod, live=1, candidate=Candidate(2, "canary", 30.0))
        site.roll_out(pod, live=1, candidate=Candidate(2, "shadow", 100.0))
        site.roll_out(pod, live=2)
        # Taken away at once: recordings under way may still ask for it, and begin again with the other one.
        planted.remove_version(site.repository, 1)
        planted.load(site.server.http_url, "yolo")
        planted.add_version(site.repository, 1, EIGHTY)
        planted.load(site.server.http_url, "yolo")
        done = load.sent
        pod.wait_for(lambda: load.sent > done + 20, "recordings after the change")
        sent = load.stop()
        world.results(sent)
        assert pod.stop() == 0
        assert not pod.lines(event="try failed")
        assert not pod.lines(event="outage begins; the place is kept")
    records = world.everything()
    assert len(records) == sent
    assert world.no_letters()
    answered = {record.headers["vault-ml-model"]: found(record) for record in records}
    assert answered == {"yolo/1": {"class-79"}, "yolo/2": {"car"}}, "labels are those of the version"
    comparisons = world.every_comparison()
    assert {comparison.mode for comparison in comparisons} == {"canary", "shadow"}
    assert [comparison.failed for comparison in comparisons if comparison.failed] == []


def test_a_canary_gets_its_share_and_every_comparison_is_on_the_topic(
    site: Site, world: World, clip: Path
) -> None:
    generation = site.say(live=1, candidate=Candidate(2, "canary", 40.0))
    events = [world.store(f"cam/{number}.mp4", clip) for number in range(20)]
    on_trial = {
        event["payload"]["key"] for event in events if bucket_percent("", event["payload"]["key"]) < 40
    }
    world.send(*events)
    with world.pod() as pod:
        records = world.results(20)
        by_key = {json.loads(record.value or b"{}")["payload"]["key"]: record for record in records}
        assert {
            key for key, record in by_key.items() if record.headers["vault-ml-model"] == "yolo/2"
        } == on_trial
        pod.wait_for(
            lambda: pod.metric("vault_ml_model_recordings_total", version="2") == len(on_trial), "counted"
        )
        assert pod.metric("vault_ml_comparisons_total", mode="canary") == len(on_trial)
        assert pod.metric("vault_ml_comparison_boxes_total", what="matched") == 0, "no label in common"
        assert pod.metric("vault_ml_comparison_labels_total", role="candidate", label="car") > 0
        assert pod.metric("vault_ml_rollout_info", live="1", candidate="2", mode="canary", percent="40") == 1
        line = pod.wait_for_line(event="rollout", generation=generation)
        assert (line["live"], line["canary"], line["percent"]) == (1, 2, 40.0)
        assert pod.stop() == 0
    comparisons = world.comparisons(len(on_trial))
    assert {comparison.key for comparison in comparisons} == on_trial
    assert len({comparison.id for comparison in comparisons}) == len(on_trial)
    assert {comparison.live.labels["class-79"] for comparison in comparisons} == {2}
    assert {comparison.candidate.labels["car"] for comparison in comparisons} == {2}


def test_a_candidate_that_fails_costs_no_recording_and_is_counted(
    site: Site, world: World, clip: Path
) -> None:
    site.say(live=1, candidate=Candidate(3, "canary", 100.0))
    world.send(*(world.store(f"cam/{number}.mp4", clip) for number in range(5)))
    with world.pod() as pod:
        records = world.results(5)
        assert {record.headers["vault-ml-model"] for record in records} == {"yolo/1"}
        failed = "vault_ml_comparisons_failed_total"
        # After three in a row it is left alone.
        pod.wait_for(lambda: pod.metric(failed, reason="inference_failed") == 3, "failures counted")
        pod.wait_for(lambda: pod.metric(failed, reason="paused") == 2, "pauses counted")
        pod.wait_for_line(event="canary failed, the live version answers", version=3)
        assert pod.stop() == 0
        assert not pod.lines(event="try failed")
    reasons = Counter(comparison.failed for comparison in world.comparisons(5))
    assert reasons == {"inference_failed": 3, "paused": 2}


def test_results_flow_where_the_diff_topic_cannot_be_written(site: Site, world: World, clip: Path) -> None:
    site.say(live=1, candidate=Candidate(2, "shadow", 100.0))
    world.send(*(world.store(f"cam/{number}.mp4", clip) for number in range(3)))
    with world.pod(QUEUE_COMPARISON="__consumer_offsets") as pod:  # Kafka's own: clients may not write it
        world.results(3)
        pod.wait_for_line(event="comparisons are lost", topic="__consumer_offsets")
        assert pod.stop() == 0
    assert world.committed() == {0: 3}
