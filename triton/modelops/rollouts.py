"""What each command makes of a rollout: plain functions from the state before to the state after.

Nothing here touches a disk or a pod; modelops/change.py carries it out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from consumer.errors import SetupError
from consumer.rollout import Candidate, Mode, Rollout

RECORDING = timedelta(minutes=10)
"""Longer than a recording can take with the version that it started with."""


@dataclass(frozen=True)
class Turn:
    """What a command asks for.

    rollout: as it shall be; the one before, unchanged, where there is nothing to change.
    sentence: that says so, once it is done.
    tested: versions that must pass their self-test on every pod.
    loaded: versions that shall be loaded beside those that the rollout names.
    unloaded: versions that shall be put on the shelf.
    """

    rollout: Rollout
    sentence: str
    tested: frozenset[int] = frozenset()
    loaded: frozenset[int] = frozenset()
    unloaded: frozenset[int] = frozenset()


def trial(before: Rollout, version: int, mode: Mode, percent: float, now: datetime) -> Turn:
    """Put a version on trial, or change the mode or the share of the one that is.

    Raises:
        SetupError: it is live, another one is on trial, or the share is none.
    """
    if not 0 < percent <= 100 or percent != round(percent, 2):
        raise SetupError(
            f"--percent {percent:g} will not do: give a share above 0 and up to 100, in steps of 0.01."
        )
    if version == before.live:
        raise SetupError(f"Version {version} is live: it cannot be its own candidate.")
    running = before.candidate
    if running is not None and running.version != version:
        raise SetupError(
            f"Version {running.version} is on trial ({said(running)}): end that first, "
            "with `vault-ml model rollback` or `vault-ml model promote`."
        )
    candidate = Candidate(version, mode, float(percent))
    after = _next(before, now, candidate=candidate)
    sentence = f"Version {version} is on trial beside {before.live}: {said(candidate)}."
    return Turn(after, sentence, tested=frozenset({version}))


def promote(before: Rollout, version: int | None, now: datetime) -> Turn:
    """Make a version the live one: the candidate, unless another is named. The old one stays loaded.

    Raises:
        SetupError: none is on trial and none is named, or another one than the named is on trial.
    """
    running = before.candidate
    if version is None:
        if running is None:
            raise SetupError(
                f"No version is on trial, and version {before.live} is live: name the version to promote."
            )
        version = running.version
    if running is not None and running.version != version:
        raise SetupError(
            f"Version {running.version} is on trial ({said(running)}), not {version}: end that first, "
            "with `vault-ml model rollback`."
        )
    if version == before.live:
        return Turn(before, f"Version {version} is live already.")
    after = _next(before, now, live=version, previous=before.live, candidate=None)
    sentence = f"Version {version} is live; {before.live} stays loaded for a rollback."
    return Turn(after, sentence, tested=frozenset({version}))


def rollback(before: Rollout, now: datetime, others: Collection[int] = ()) -> Turn:
    """End the trial; where none runs, make the previous version live again.

    It is not tested anew: whatever it answers, somebody wants to be rid of the one that is live.

    Args:
        before: the state.
        now: the time.
        others: versions that one might go on with, for the sentence.

    Raises:
        SetupError: there is no previous version; names the others.
    """
    if before.candidate is not None:
        after = _next(before, now, candidate=None)
        return Turn(
            after,
            f"Version {before.candidate.version} is no longer on trial; version {before.live} answers all.",
        )
    if before.previous is None:
        named = ", ".join(map(str, sorted(others))) or "none"
        raise SetupError(
            f"Version {before.live} is live and there is no previous one to go back to: "
            f"go on with another one by `vault-ml model promote` (there are: {named})."
        )
    after = _next(before, now, live=before.previous, previous=None)
    return Turn(
        after,
        f"Version {before.previous} is live again; {before.live} stays loaded for the recordings under way.",
    )


def load(before: Rollout, version: int | None) -> Turn:
    """Load a version to stay, without recordings; or for None, what the rollout names and no more."""
    if version is None:
        return Turn(before, f"Version {before.live} is live.", tested=frozenset({before.live}))
    asked = frozenset({version})
    return Turn(
        without(before, asked),
        f"Version {version} is loaded, without recordings.",
        tested=asked,
        loaded=asked,
    )


def unload(before: Rollout, version: int, now: datetime) -> Turn:
    """Put a version on the shelf.

    Raises:
        SetupError: the rollout names it, or recordings under way may use it.
    """
    if version in before.in_use:
        raise SetupError(
            f"Version {version} is in use ({state_of(before, version, served=True)}): it stays loaded."
        )
    since = before.withdrawn.get(version)
    if since is not None and now < (free := _time(since) + RECORDING):
        raise SetupError(
            f"Recordings under way may use version {version}, withdrawn at {since}: "
            f"run this again after {free:%H:%M:%S} UTC."
        )
    gone = frozenset({version})
    return Turn(without(before, gone), f"Version {version} is on the shelf.", unloaded=gone)


def back_to(before: Rollout, failed: Rollout, now: datetime) -> Rollout:
    """Return the state before a command that failed after some pods had heard of its state.

    It is newer than both, because readers keep the newest. What the failed state brought in is withdrawn: a
    recording may have started with it.
    """
    return replace(
        before,
        generation=failed.generation + 1,
        withdrawn=_withdrawn(failed, before, now),
    )


def expired(rollout: Rollout, now: datetime) -> list[int]:
    """Return the withdrawn versions that no recording can be using any more, oldest first."""
    return sorted(
        version
        for version, since in rollout.withdrawn.items()
        if version not in rollout.in_use and now - _time(since) >= RECORDING
    )


def without(before: Rollout, versions: Collection[int]) -> Rollout:
    """Forget withdrawn versions: they are on the shelf, or were loaded to stay."""
    left = {number: since for number, since in before.withdrawn.items() if number not in versions}
    return numbered(before, replace(before, withdrawn=left))


def numbered(before: Rollout, after: Rollout) -> Rollout:
    """Give a state the generation after another's; return that other one where nothing else differs."""
    same = replace(after, generation=before.generation) == before
    return before if same else replace(after, generation=before.generation + 1)


def summary(rollout: Rollout) -> str:
    """Say in one sentence who answers."""
    candidate = rollout.candidate
    beside = f", version {candidate.version} is on trial ({said(candidate)})" if candidate else ""
    return f"version {rollout.live} is live{beside}."


def state_of(rollout: Rollout, version: int, *, served: bool) -> str:
    """Say what a version is: live, previous, canary 20 %, shadow, withdrawn, loaded or shelf."""
    if version == rollout.live:
        return "live"
    words = []
    if rollout.candidate is not None and version == rollout.candidate.version:
        words.append(said(rollout.candidate))
    if version == rollout.previous:
        words.append("previous")
    if not words and served:
        words.append("withdrawn" if version in rollout.withdrawn else "loaded")
    return ", ".join(words) or "shelf"


def said(candidate: Candidate) -> str:
    """Say a trial: `canary 20 %`, `shadow`, `shadow 5 %`."""
    if candidate.mode == "shadow" and candidate.percent == 100:
        return "shadow"
    return f"{candidate.mode} {candidate.percent:g} %"


def _next(before: Rollout, now: datetime, **changes: object) -> Rollout:
    after = replace(before, **changes)  # type: ignore[arg-type]  # fields of Rollout, named by its callers above
    after = replace(after, withdrawn=_withdrawn(before, after, now))
    return numbered(before, after)


def _withdrawn(before: Rollout, after: Rollout, now: datetime) -> Mapping[int, str]:
    """What was in use before and is not any more, beside what was withdrawn before."""
    left = {version: now.isoformat(timespec="seconds") for version in before.in_use - after.in_use}
    gone = {**before.withdrawn, **left}
    return {version: since for version, since in sorted(gone.items()) if version not in after.in_use}


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)  # whoever wrote that did not mean to keep it
    return time if time.tzinfo else time.replace(tzinfo=UTC)
