"""What a report says where a change could not be made, or not be undone: no more than what is true."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.errors import SetupError
from consumer.rollout import Rollout
from modelops import rollouts
from modelops.change import Site, carry_out
from modelops.fleet import Fleet
from modelops.repository import Repository
from modelops.rollouts import Turn
from tests.modelops.pods_of_one_repository import CAT, DOG, addresses, publish, tritons

NOW = datetime.now(UTC)

pytestmark = pytest.mark.triton


def test_a_triton_that_takes_no_models_from_outside_is_named_as_that(tmp_path: Path) -> None:
    directory = tmp_path / "repository"
    repository = Repository.open(directory)
    publish(repository, "yolo", CAT, DOG)
    with (
        tritons([directory], "--model-control-mode=none") as servers,
        Fleet(addresses(servers)) as fleet,
    ):
        site = Site(repository, fleet, "yolo", seen_seconds=0)
        report = carry_out(site, "load 2", lambda before: rollouts.load(before, 2))
        repository.serve("yolo", 2)
    with (
        tritons([directory], "--model-control-mode=none") as servers,
        Fleet(addresses(servers)) as fleet,
    ):
        site = Site(repository, fleet, "yolo", seen_seconds=0)
        trial = carry_out(site, "canary", lambda before: rollouts.trial(before, 2, "canary", 20, NOW))
    assert not report.done
    assert "start it with --model-control-mode=explicit" in report.sentence
    assert report.pods[0].detail.endswith("as before")
    # It has both versions, so that the state is all that it does not take; nor does it take the former one.
    assert not trial.done
    assert trial.sentence.endswith(f"The disk has the former state; not so {trial.pods[0].pod}.")
    assert repository.companion("yolo").rollout.candidate is None


def test_a_version_that_a_pod_does_not_let_go_is_said_to_be_on_the_shelf(tmp_path: Path) -> None:
    directory, other = tmp_path / "repository", tmp_path / "other"
    repository = Repository.open(directory)
    publish(repository, "yolo", CAT, DOG)
    repository.serve("yolo", 2)
    shutil.copytree(directory, other)
    with tritons([directory, other]) as servers, Fleet(addresses(servers)) as fleet:
        site = Site(repository, fleet, "yolo", seen_seconds=0)
        assert carry_out(site, "load", lambda before: rollouts.load(before, None)).done
        report = carry_out(site, "unload 2", lambda before: rollouts.unload(before, 2, NOW))
    assert not report.done
    assert f"{report.pods[1].pod}: It still has version 2" in report.sentence
    assert report.sentence.startswith("Not done, and recordings go where they went before: ")
    assert report.remarks == ("Version 2 stays on the shelf.",)
    assert repository.shelved("yolo") == [2]


def test_a_rollback_that_undoes_a_dead_command_goes_no_further_by_itself(tmp_path: Path) -> None:
    """Whoever is rid of a canary that was begun does not lose the live version by it."""
    repository = Repository.open(tmp_path / "repository")
    publish(repository, "yolo", CAT, DOG, CAT)

    def rolled_back(before: Rollout) -> Turn:
        return rollouts.rollback(before, NOW)

    def interrupted(line: str) -> None:
        if line.startswith("Writing"):
            raise KeyboardInterrupt

    with tritons([tmp_path / "repository"]) as servers, Fleet(addresses(servers)) as fleet:
        site = Site(repository, fleet, "yolo", seen_seconds=10)
        assert carry_out(site, "promote 2", lambda before: rollouts.promote(before, 2, NOW)).done
        with pytest.raises(KeyboardInterrupt):
            carry_out(
                replace(site, say=interrupted),
                "canary 3",
                lambda before: rollouts.trial(before, 3, "canary", 20, NOW),
            )
        first = carry_out(site, "rollback", rolled_back, goes_back=True)
        assert (first.done, first.remarks) == (True, ("`canary 3` had been interrupted, and is undone now.",))
        assert first.sentence.startswith("Nothing else was rolled back, version 2 is live.")
        assert repository.companion("yolo").rollout.live == 2
        second = carry_out(site, "rollback", rolled_back, goes_back=True)
        assert (second.done, repository.companion("yolo").rollout.live) == (True, 1)


def test_what_was_undone_is_said_also_where_the_next_command_is_refused(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    publish(repository, "yolo", CAT, DOG)

    def interrupted(line: str) -> None:
        if line.startswith("Testing"):
            raise KeyboardInterrupt

    with tritons([tmp_path / "repository"]) as servers, Fleet(addresses(servers)) as fleet:
        site = Site(repository, fleet, "yolo", seen_seconds=10)
        with pytest.raises(KeyboardInterrupt):
            carry_out(replace(site, say=interrupted), "load 2", lambda before: rollouts.load(before, 2))
        with pytest.raises(
            SetupError, match=r"`load 2` had been interrupted, and is undone now\. Version 1 is"
        ):
            carry_out(site, "rollback", lambda before: rollouts.rollback(before, NOW), goes_back=True)
