"""Where recordings go: the share that was asked for, the same for every replay, on every pod."""

import itertools
import json

import pytest

from consumer.rollout import Assignment, Candidate, Rollout, assign, bucket_percent

KEYS = [f"user/{1_700_000_000 + number}_6-967003_camera_0-0-0-0_{number}_769.mp4" for number in range(10_000)]
WITH_ALL = Rollout(
    generation=7,
    live=3,
    previous=2,
    candidate=Candidate(4, "shadow", 12.5),
    withdrawn={1: "2026-05-01T12:00:00+00:00"},
)


def canary(percent: float) -> Rollout:
    return Rollout(generation=2, live=1, candidate=Candidate(2, "canary", percent))


def taken(percent: float) -> set[str]:
    return {key for key in KEYS if assign(canary(percent), "storj", key).version == 2}


@pytest.mark.parametrize("percent", [1.0, 20.0, 50.0])
def test_a_canary_gets_the_share_that_was_asked_for(percent: float) -> None:
    share = 100 * len(taken(percent)) / len(KEYS)
    deviation = (percent * (100 - percent) / len(KEYS)) ** 0.5
    assert abs(share - percent) < 4 * deviation


def test_none_at_no_percent_and_all_at_a_hundred() -> None:
    assert taken(0.0) == set()
    assert taken(100.0) == set(KEYS)


def test_a_replay_is_answered_by_the_same_version() -> None:
    assert taken(20.0) == taken(20.0)
    # Of no process, no Python and no pod: these three numbers are part of what replays rely on.
    assert [bucket_percent("storj", key) for key in ("a.mp4", "b.mp4", "")] == [79.89, 89.88, 14.41]


def test_a_higher_share_only_adds_recordings() -> None:
    shares = [taken(percent) for percent in (0.5, 1.0, 5.0, 20.0, 20.01, 75.0)]
    for smaller, larger in itertools.pairwise(shares):
        assert smaller <= larger


def test_the_same_key_in_two_stores_is_two_recordings() -> None:
    places = [(bucket_percent("storj", key), bucket_percent("minio", key)) for key in KEYS[:100]]
    assert any(one != other for one, other in places)


def test_what_the_two_modes_make_of_a_recording() -> None:
    assert assign(canary(100.0), "", "a") == Assignment(2, 1, "canary", 2)
    shadow = Rollout(generation=3, live=1, candidate=Candidate(2, "shadow", 100.0))
    assert assign(shadow, "", "a") == Assignment(1, 2, "shadow", 3)
    assert assign(canary(0.0), "", "a") == Assignment(1, generation=2)
    assert assign(Rollout(5, 4), "", "a") == Assignment(4, generation=5)


@pytest.mark.parametrize("rollout", [WITH_ALL, Rollout(1, 1)])
def test_a_rollout_comes_back_as_it_was(rollout: Rollout) -> None:
    assert Rollout.from_json(rollout.to_json()) == rollout


def test_every_pod_must_have_what_is_in_use_and_not_what_was_withdrawn() -> None:
    assert WITH_ALL.in_use == {2, 3, 4}


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        "{}",
        "null",
        json.dumps({"generation": "x", "live": 1, "previous": None, "candidate": None, "withdrawn": {}}),
        json.dumps({"generation": 1, "live": 1, "previous": None, "candidate": 2, "withdrawn": {}}),
        WITH_ALL.to_json().replace("shadow", "mirror"),
        WITH_ALL.to_json().replace('"percent":', '"percent":NaN,"was":'),
        WITH_ALL.to_json().replace('"percent":', '"percent":-1,"was":'),
        Rollout(1, 1, candidate=Candidate(1, "canary", 20.0)).to_json(),
        Rollout(1, 0).to_json(),
        Rollout(1, 1).to_json().replace('"generation":1', '"generation":Infinity'),
    ],
)
def test_what_is_no_rollout_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Rollout.from_json(broken)
