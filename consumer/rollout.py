"""Rollout: which versions of a model answer which recordings; said by the companion model, read by consumers.

The companion (`companion_name`) is a tiny model beside the detector. Its configuration carries what differs
per version and where recordings go, so that both change without a reload of the detector (docs/adr/0008).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

Mode = Literal["canary", "shadow"]

_BUCKETS = 10_000
"""Hundredths of a percent: as fine as a share can be said."""


def companion_name(model: str) -> str:
    """Return the name of the model that carries a model's rollout."""
    return f"{model}-rollout"


@dataclass(frozen=True)
class Candidate:
    """A version on trial.

    canary: `percent` of the recordings get its answers, and the live version sees the same frames.
    shadow: it sees the frames of `percent` of the recordings, and nobody gets its answers.
    """

    version: int
    mode: Mode
    percent: float


@dataclass(frozen=True)
class Rollout:
    """Where recordings go.

    generation: grows with every change, also with a change back: a reader keeps the highest that it has seen.
    live: answers every recording that no canary takes.
    previous: was live before, and is kept loaded for a rollback; None where there is none.
    candidate: on trial; None where nothing is.
    withdrawn: versions that no new recording uses, still loaded for those under way, by the time (ISO 8601,
        UTC) since when.
    """

    generation: int
    live: int
    previous: int | None = None
    candidate: Candidate | None = None
    withdrawn: Mapping[int, str] = field(default_factory=dict)

    @property
    def in_use(self) -> frozenset[int]:
        """Versions that every pod must have."""
        named = {self.live, self.previous, self.candidate.version if self.candidate else None}
        return frozenset(version for version in named if version is not None)

    def to_json(self) -> str:
        """Return the rollout as one line of JSON: the value of Parameter.ROLLOUT."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Rollout":
        """Return the rollout that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            fields = json.loads(text)
            candidate = fields["candidate"]
            rollout = cls(
                generation=int(fields["generation"]),
                live=int(fields["live"]),
                previous=None if fields["previous"] is None else int(fields["previous"]),
                candidate=None
                if candidate is None
                else Candidate(
                    int(candidate["version"]), to_mode(candidate["mode"]), float(candidate["percent"])
                ),
                withdrawn={int(version): str(since) for version, since in fields["withdrawn"].items()},
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a rollout: {error!r}") from error
        trial = rollout.candidate
        if min(rollout.in_use) < 1:
            raise ValueError("not a rollout: the number of a version is below 1")
        if trial is not None and (trial.version == rollout.live or not 0 < trial.percent <= 100):
            raise ValueError(f"not a rollout: version {trial.version} on trial at {trial.percent:g} %")
        return rollout


@dataclass(frozen=True)
class Assignment:
    """What a recording is looked at with: the version that answers, and the one compared with it, if any."""

    version: int
    compared: int | None = None
    mode: Mode | None = None
    generation: int = 0


def assign(rollout: Rollout, source: str, key: str) -> Assignment:
    """Return the versions for one recording: the same for each of its events, on every pod.

    Args:
        rollout: where recordings go.
        source: of the event, as `vault-ml-id` takes it.
        key: of the recording in its Vault.
    """
    trial = rollout.candidate
    if trial is None or bucket_percent(source, key) >= trial.percent:
        return Assignment(rollout.live, generation=rollout.generation)
    if trial.mode == "canary":
        return Assignment(trial.version, rollout.live, trial.mode, rollout.generation)
    return Assignment(rollout.live, trial.version, trial.mode, rollout.generation)


def bucket_percent(source: str, key: str) -> float:
    """Return where a recording lies among all, 0 <= p < 100: the first 8 bytes of a SHA-256 say it."""
    digest = hashlib.sha256(json.dumps([source, key]).encode()).digest()
    return int.from_bytes(digest[:8], "big") % _BUCKETS * 100 / _BUCKETS


def to_mode(text: str) -> Mode:
    """Return a word as a mode.

    Raises:
        ValueError: it is none.
    """
    if text == "canary":
        return "canary"
    if text == "shadow":
        return "shadow"
    raise ValueError(f"not a mode: {text!r}")
