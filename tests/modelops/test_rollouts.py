"""What each command makes of a rollout."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SetupError
from consumer.rollout import Candidate, Mode, Rollout
from modelops import rollouts

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
LATER = NOW + rollouts.RECORDING
FIRST = Rollout(generation=1, live=1)


def test_a_canary_gets_its_share_and_the_live_version_stays() -> None:
    after = rollouts.trial(FIRST, 2, "canary", 20, NOW).rollout
    assert after == Rollout(2, live=1, candidate=Candidate(2, "canary", 20))


def test_the_running_candidate_changes_mode_and_share_freely() -> None:
    canary = rollouts.trial(FIRST, 2, "canary", 20, NOW).rollout
    shadow = rollouts.trial(canary, 2, "shadow", 100, NOW).rollout
    assert shadow == Rollout(3, live=1, candidate=Candidate(2, "shadow", 100))


def test_the_same_trial_again_changes_nothing() -> None:
    canary = rollouts.trial(FIRST, 2, "canary", 20, NOW).rollout
    assert rollouts.trial(canary, 2, "canary", 20, LATER).rollout == canary


def test_another_candidate_is_refused_while_one_is_on_trial() -> None:
    canary = rollouts.trial(FIRST, 2, "canary", 20, NOW).rollout
    with pytest.raises(SetupError, match=r"Version 2 is on trial \(canary 20 %\): end that first"):
        rollouts.trial(canary, 3, "shadow", 100, NOW)
    with pytest.raises(SetupError, match=r"Version 2 is on trial \(canary 20 %\), not 3: end that first"):
        rollouts.promote(canary, 3, NOW)


def test_the_live_version_cannot_be_its_own_candidate() -> None:
    with pytest.raises(SetupError, match="Version 1 is live"):
        rollouts.trial(FIRST, 1, "canary", 20, NOW)


@pytest.mark.parametrize("percent", [0, -1, 100.5, 0.001, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(percent: float) -> None:
    with pytest.raises(SetupError, match="--percent"):
        rollouts.trial(FIRST, 2, "canary", percent, NOW)


def test_promote_takes_the_candidate_and_keeps_the_old_version_for_a_rollback() -> None:
    canary = rollouts.trial(FIRST, 2, "canary", 20, NOW).rollout
    assert rollouts.promote(canary, None, NOW).rollout == Rollout(3, live=2, previous=1)


def test_what_was_previous_before_is_withdrawn_and_goes_once_no_recording_can_use_it() -> None:
    second = rollouts.promote(FIRST, 2, NOW).rollout
    third = rollouts.promote(second, 3, NOW).rollout
    assert third == Rollout(3, live=3, previous=2, withdrawn={1: NOW.isoformat()})
    assert rollouts.expired(third, LATER - timedelta(seconds=1)) == []
    assert rollouts.expired(third, LATER) == [1]


def test_promote_without_a_candidate_asks_for_the_version() -> None:
    with pytest.raises(SetupError, match="No version is on trial, and version 1 is live: name the version"):
        rollouts.promote(FIRST, None, NOW)


def test_promote_of_the_live_version_changes_nothing() -> None:
    turn = rollouts.promote(FIRST, 1, NOW)
    assert (turn.rollout, turn.sentence) == (FIRST, "Version 1 is live already.")


def test_rollback_ends_the_trial_first_and_leaves_the_live_version() -> None:
    second = rollouts.promote(FIRST, 2, NOW).rollout
    canary = rollouts.trial(second, 3, "canary", 20, NOW).rollout
    turn = rollouts.rollback(canary, NOW)
    assert turn.rollout == Rollout(4, live=2, previous=1, withdrawn={3: NOW.isoformat()})
    assert turn.sentence == "Version 3 is no longer on trial; version 2 answers all."


def test_rollback_goes_back_once_and_never_to_the_bad_version() -> None:
    second = rollouts.promote(FIRST, 2, NOW).rollout
    back = rollouts.rollback(second, NOW).rollout
    assert back == Rollout(3, live=1, withdrawn={2: NOW.isoformat()})
    with pytest.raises(SetupError, match=r"no previous one to go back to.*\(there are: 2, 3\)"):
        rollouts.rollback(back, NOW, {3, 2})


def test_a_version_in_use_is_not_unloaded() -> None:
    second = rollouts.promote(FIRST, 2, NOW).rollout
    for version, state in ((2, "live"), (1, "previous")):
        with pytest.raises(SetupError, match=rf"Version {version} is in use \({state}\)"):
            rollouts.unload(second, version, NOW)


def test_a_withdrawn_version_is_unloaded_when_its_recordings_have_ended() -> None:
    back = rollouts.rollback(rollouts.promote(FIRST, 2, NOW).rollout, NOW).rollout
    with pytest.raises(SetupError, match="run this again after 12:10:00 UTC"):
        rollouts.unload(back, 2, LATER - timedelta(seconds=1))
    turn = rollouts.unload(back, 2, LATER)
    assert turn.rollout.withdrawn == {}
    assert turn.unloaded == {2}


def test_what_a_failed_command_brought_in_is_withdrawn_and_readers_see_a_newer_state() -> None:
    failed = rollouts.promote(FIRST, 2, NOW).rollout
    assert rollouts.back_to(FIRST, failed, NOW) == Rollout(3, live=1, withdrawn={2: NOW.isoformat()})


@pytest.mark.parametrize(
    ("version", "served", "state"),
    [
        (1, True, "live"),
        (2, True, "canary 20 %"),
        (3, True, "previous"),
        (4, True, "withdrawn"),
        (5, True, "loaded"),
        (5, False, "shelf"),
        (4, False, "shelf"),
    ],
)
def test_the_state_of_a_version_is_said(version: int, served: bool, state: str) -> None:
    rollout = Rollout(
        9, live=1, previous=3, candidate=Candidate(2, "canary", 20), withdrawn={4: NOW.isoformat()}
    )
    assert rollouts.state_of(rollout, version, served=served) == state


VERSIONS = st.integers(1, 4)
MODES: st.SearchStrategy[Mode] = st.sampled_from(["canary", "shadow"])
COMMANDS = st.one_of(
    st.tuples(st.just("trial"), VERSIONS, MODES, st.sampled_from([0.01, 20, 100])),
    st.tuples(st.just("promote"), st.none() | VERSIONS),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("load"), VERSIONS),
    st.tuples(st.just("unload"), VERSIONS),
)


@given(st.lists(st.tuples(COMMANDS, st.integers(0, 900)), max_size=30))
def test_no_version_that_is_used_is_ever_on_its_way_out(
    commands: list[tuple[tuple[object, ...], int]],
) -> None:
    rollout, now = FIRST, NOW
    for (name, *arguments), seconds in commands:
        now += timedelta(seconds=seconds)
        before = rollout
        timed = [] if name == "load" else [now]
        try:
            turn = getattr(rollouts, str(name))(before, *arguments, *timed)
        except SetupError:
            continue
        rollout = turn.rollout
        assert Rollout.from_json(rollout.to_json()) == rollout
        assert rollout.generation == before.generation + (rollout != before)
        assert not rollout.in_use & (set(rollout.withdrawn) | turn.unloaded)
        # Whatever a recording may have started with is still there.
        recent = set(before.withdrawn) - set(rollouts.expired(before, now))
        assert (before.in_use | recent) <= rollout.in_use | set(rollout.withdrawn) | turn.loaded
