"""A change of a rollout on several real pods: all or nothing, whatever breaks and whoever dies."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.contract import Parameter
from consumer.errors import SetupError
from consumer.rollout import Candidate, Rollout, companion_name
from modelops import journal, rollouts
from modelops.addresses import Address
from modelops.change import Site, carry_out
from modelops.embedded import EmbeddedTriton
from modelops.fleet import Fleet
from modelops.ports import LOOPBACK, free_ports
from modelops.repository import Repository
from modelops.rollouts import Turn
from tests.modelops.pods_of_one_repository import CAT, COW, DOG, addresses, publish, tritons

Decide = Callable[[Rollout], Turn]


@dataclass
class Pods:
    """Three Tritons: two read one repository, the third one of its own that only looks like it."""

    directory: Path
    other: Path
    servers: list[EmbeddedTriton]
    models: int = 0

    def model(self, *, broken: bool = False) -> str:
        """Publish three versions under a name that no other test has, and load the first on all pods."""
        self.models += 1
        name = f"yolo{self.models}"
        repository = Repository.open(self.directory)
        publish(repository, name, CAT)
        publish(repository, name, DOG, COW, broken=broken)
        for part in (name, companion_name(name)):
            shutil.copytree(self.directory / part, self.other / part)
        return name


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    root = tmp_path_factory.mktemp("pods")
    directory, other = root / "repository", root / "other"
    directory.mkdir()
    other.mkdir()
    with tritons([directory, directory, other]) as servers:
        yield Pods(directory, other, servers)


@pytest.fixture
def two(pods: Pods) -> Iterator[Site]:
    """Both pods of the repository, with a model that is loaded."""
    with Fleet(addresses(pods.servers[:2])) as fleet:
        yield loaded(Site(Repository.open(pods.directory), fleet, pods.model(), seen_seconds=10))


@pytest.fixture
def one(pods: Pods) -> Iterator[Site]:
    """One pod of the repository, with a model that is loaded."""
    with Fleet(addresses(pods.servers[:1])) as fleet:
        yield loaded(Site(Repository.open(pods.directory), fleet, pods.model(), seen_seconds=10))


def loaded(site: Site) -> Site:
    assert carry_out(site, "load", lambda before: rollouts.load(before, None)).done
    return site


def canary(version: int = 2, percent: float = 20) -> Decide:
    return lambda before: rollouts.trial(before, version, "canary", percent, datetime.now(UTC))


def promote(version: int | None = None) -> Decide:
    return lambda before: rollouts.promote(before, version, datetime.now(UTC))


def rollback(before: Rollout) -> Turn:
    return rollouts.rollback(before, datetime.now(UTC))


def on_disk(site: Site) -> Rollout:
    return site.repository.companion(site.model).rollout


def on_pods(site: Site) -> list[Rollout]:
    return [
        Rollout.from_json(pod.parameters(companion_name(site.model))[Parameter.ROLLOUT])
        for pod in site.fleet.pods
    ]


def ready(site: Site) -> list[list[int]]:
    return [
        sorted(version for version, state in pod.versions(site.model).items() if state.ready)
        for pod in site.fleet.pods
    ]


def assert_consistent(site: Site) -> None:
    """Disk and pods say the same, what is used is there, and nothing is left to end."""
    rollout = on_disk(site)
    assert on_pods(site) == [rollout] * len(site.fleet.pods)
    assert rollout.in_use <= set(site.repository.served(site.model))
    assert all(rollout.in_use <= set(versions) for versions in ready(site))
    assert journal.read(site.repository, site.model) is None


def test_a_version_goes_its_whole_way_on_every_pod(two: Site) -> None:
    report = carry_out(two, "canary", canary())
    assert report.done
    assert [(pod.done, pod.detail) for pod in report.pods] == [
        (True, "version 2 tested (2 of 2 boxes), generation 2")
    ] * 2
    assert_consistent(two)
    assert on_disk(two).candidate == Candidate(2, "canary", 20)

    assert carry_out(two, "promote", promote()).done
    assert carry_out(two, "rollback", rollback).done
    assert_consistent(two)
    rollout = on_disk(two)
    assert (rollout.live, rollout.previous, list(rollout.withdrawn)) == (1, None, [2])
    assert ready(two) == [[1, 2]] * 2  # recordings that began with version 2 end with it


def test_a_version_is_unloaded_by_the_next_command_once_no_recording_can_use_it(one: Site) -> None:
    assert carry_out(one, "promote 2", promote(2)).done
    assert carry_out(one, "rollback", rollback).done
    old = replace(
        on_disk(one),
        generation=on_disk(one).generation + 1,
        withdrawn={2: (datetime.now(UTC) - timedelta(minutes=11)).isoformat()},
    )
    companion = one.repository.companion(one.model)
    one.repository.write_companion(one.model, replace(companion, rollout=old))

    report = carry_out(one, "canary 3", canary(3))
    assert report.done
    assert report.remarks == ("Version 2 was withdrawn long enough ago: it is on the shelf now.",)
    assert_consistent(one)
    assert (ready(one), one.repository.shelved(one.model)) == ([[1, 3]], [2])


def test_a_version_is_loaded_without_recordings_and_unloaded(one: Site) -> None:
    before = on_disk(one)
    assert carry_out(one, "load 3", lambda rollout: rollouts.load(rollout, 3)).done
    assert (ready(one), on_disk(one)) == ([[1, 3]], before)
    assert carry_out(one, "unload 3", lambda rollout: rollouts.unload(rollout, 3, datetime.now(UTC))).done
    assert (ready(one), on_disk(one)) == ([[1]], before)
    # Also while the pod is still letting go of it.
    assert carry_out(one, "load 3", lambda rollout: rollouts.load(rollout, 3)).done
    assert ready(one) == [[1, 3]]


def test_a_pod_that_cannot_be_reached_stops_everything_before_it_begins(pods: Pods) -> None:
    name = pods.model()
    (nobody,) = free_ports(1)
    with Fleet([*addresses(pods.servers[:1]), Address(LOOPBACK, nobody)]) as fleet:
        site = Site(Repository.open(pods.directory), fleet, name)
        report = carry_out(site, "canary", canary())
        assert not report.done
        assert report.sentence.startswith(
            f"Nothing was changed, because not every pod can be: {LOOPBACK}:{nobody}: It does not answer"
        )
        assert [pod.done for pod in report.pods] == [True, False]
        assert (on_disk(site).generation, site.repository.served(name)) == (1, [1])
        assert fleet.pods[0].versions(name) == {}


def test_a_version_that_one_pod_does_not_get_is_taken_back_from_all(pods: Pods) -> None:
    name = pods.model()
    with Fleet(addresses(pods.servers)) as fleet:
        site = loaded(Site(Repository.open(pods.directory), fleet, name, seen_seconds=0))
        report = carry_out(site, "canary", canary())
        assert not report.done
        assert "does not see version 2" in report.sentence
        assert ["does not see version 2" in pod.detail for pod in report.pods] == [False, False, True]
        assert_consistent(site)
        assert ready(site) == [[1]] * 3
        assert site.repository.shelved(name) == [2, 3]


def test_a_state_that_one_pod_does_not_take_is_undone_on_all_by_a_newer_one(pods: Pods) -> None:
    name = pods.model()
    # The third pod gets the version, but never the companion that says so.
    shutil.copytree(pods.directory.with_name("repository.shelf") / name / "2", pods.other / name / "2")
    with Fleet(addresses(pods.servers)) as fleet:
        site = loaded(Site(Repository.open(pods.directory), fleet, name, seen_seconds=0))
        report = carry_out(site, "promote 2", promote(2))
        assert not report.done
        assert report.sentence.startswith("It was undone, because not every pod took it: ")
        rollout = on_disk(site)
        assert (rollout.generation, rollout.live, rollout.previous) == (3, 1, None)
        assert list(rollout.withdrawn) == [2]  # a recording may have begun with it
        assert [state.live for state in on_pods(site)] == [1, 1, 1]
        assert on_pods(site)[:2] == [rollout] * 2
        assert "not undone" in report.pods[2].detail


def test_a_version_that_answers_something_else_gets_no_recording(pods: Pods) -> None:
    name = pods.model(broken=True)
    with Fleet(addresses(pods.servers[:1])) as fleet:
        site = loaded(Site(Repository.open(pods.directory), fleet, name))
        report = carry_out(site, "promote 2", promote(2))
        assert not report.done
        assert (
            "Version 2 fails its self-test: 0 of 2 boxes are those that ONNX Runtime found" in report.sentence
        )
        assert_consistent(site)
        assert (on_disk(site).generation, site.repository.shelved(name)) == (1, [2, 3])


def test_a_version_that_does_not_load_is_taken_back(one: Site) -> None:
    place = Path(one.repository.where(one.model, 2)) / "model.onnx"
    place.write_bytes(b"nonsense")
    report = carry_out(one, "canary", canary())
    assert not report.done
    assert "Version 2 does not load" in report.sentence
    assert_consistent(one)
    assert ready(one) == [[1]]


def test_what_is_refused_changes_nothing(one: Site) -> None:
    with pytest.raises(SetupError, match="Version 1 is live"):
        carry_out(one, "canary 1", canary(1))
    with pytest.raises(SetupError, match="There is no version 9"):
        carry_out(one, "canary 9", canary(9))
    assert_consistent(one)
    assert on_disk(one).generation == 1


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs after it, and the kernel lets go of the lock."""


def dies_at(site: Site, step: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The same site, for a command that is killed when it comes to a step."""

    def say(line: str) -> None:
        if line.replace(companion_name(site.model), "the companion").startswith(step):
            raise Killed

    def end(*_: object) -> None:
        raise Killed

    if step == "the end":
        monkeypatch.setattr(journal, "end", end)
    if step == "moved":
        serve = Repository.serve

        def serve_and_die(repository: Repository, name: str, version: int) -> None:
            serve(repository, name, version)
            raise Killed

        monkeypatch.setattr(Repository, "serve", serve_and_die)
    return replace(site, say=say)


BEFORE_IT_HOLDS = ("moved", "Writing")
AFTER_IT_HOLDS = ("Loading the companion", "the end")


def killed(site: Site, step: str, command: str, decide: Decide) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        carry_out(dies_at(site, step, patch), command, decide)


@pytest.mark.parametrize("step", [*BEFORE_IT_HOLDS, *AFTER_IT_HOLDS])
def test_a_command_given_again_after_kill_9_ends_what_it_began(one: Site, step: str) -> None:
    killed(one, step, "canary 2 20", canary())
    report = carry_out(one, "canary 2 20", canary())
    assert report.done
    assert_consistent(one)
    assert on_disk(one) == Rollout(2, live=1, candidate=Candidate(2, "canary", 20))


def test_a_rollback_given_again_after_kill_9_goes_back_once(one: Site) -> None:
    assert carry_out(one, "promote 2", promote(2)).done
    assert carry_out(one, "canary 3", canary(3)).done
    killed(one, AFTER_IT_HOLDS[0], "rollback", rollback)
    report = carry_out(one, "rollback", rollback)
    assert report.done
    assert report.sentence == "`rollback` had been interrupted, and is finished now: version 2 is live."
    assert_consistent(one)
    assert on_disk(one).live == 2


def test_another_command_undoes_what_a_dead_one_only_began(one: Site) -> None:
    killed(one, "Testing", "canary 2 20", canary())
    report = carry_out(one, "canary 3 5", canary(3, 5))
    assert report.done
    assert report.remarks == ("`canary 2 20` had been interrupted, and is undone now.",)
    assert_consistent(one)
    assert (ready(one), one.repository.shelved(one.model)) == ([[1, 3]], [2])


def test_another_command_finishes_what_a_dead_one_had_decided(one: Site) -> None:
    killed(one, AFTER_IT_HOLDS[0], "canary 2 20", canary())
    report = carry_out(one, "promote", promote())
    assert report.done
    assert report.remarks == (
        "`canary 2 20` had been interrupted, and is finished now: "
        "version 1 is live, version 2 is on trial (canary 20 %).",
    )
    assert_consistent(one)
    assert on_disk(one).live == 2


def test_a_pod_that_starts_in_the_middle_has_what_the_disk_says(one: Site, pods: Pods) -> None:
    killed(one, AFTER_IT_HOLDS[0], "promote 2", promote(2))
    with (
        EmbeddedTriton.start(pods.directory, models=[one.model], address="127.0.0.9") as started,
        Fleet(addresses([started])) as fleet,
    ):
        fresh = replace(one, fleet=fleet)
        assert on_pods(fresh) == [on_disk(one)]
        assert ready(fresh) == [[1, 2]]


def test_two_commands_do_not_change_one_repository_at_once(one: Site) -> None:
    another = Repository.open(one.repository.location)
    with another.lock(), pytest.raises(SetupError, match="Another process changes"):
        carry_out(one, "canary", canary())
    assert on_disk(one).generation == 1


def test_a_version_rolls_out_from_an_object_store(bucket_url: str) -> None:
    repository = Repository.open(bucket_url)
    publish(repository, "yolo", CAT, DOG)
    with (
        EmbeddedTriton.start(bucket_url, models=["yolo"]) as server,
        Fleet(addresses([server])) as fleet,
    ):
        site = Site(repository, fleet, "yolo", seen_seconds=10)
        assert carry_out(site, "promote 2", promote(2)).done
        assert_consistent(site)
        assert (on_disk(site).live, ready(site)) == (2, [[1, 2]])
        assert carry_out(site, "rollback", rollback).done
        assert_consistent(site)
