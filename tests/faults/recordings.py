"""What is stored during a run: good recordings in several layouts, and every kind of bad one, by recipe.

A recipe says what a message holds and how each of its events must end. A handful of files serves thousands
of keys: the second part of a key names the file.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests import clips
from tests.clips import Clip
from tests.fakes.recorded_events import README_EVENT
from tests.faults.planted_pod import CRASHES, HANGS

PROVIDER = "soak"
RECIPE_HEADER = "soak-recipe"
"""Header of each message of the source topic; the consumer knows nothing of it."""

PASSPHRASE = "a-soak-of-faults"
MAX_RECORDING_BYTES = 200_000
RECORDING_DEADLINE_SECONDS = 30.0
RECORDING_TIME_LIMIT_SECONDS = 10.0
_TRIES_OF_WORKERS = 3
_BACKSTOP_SECONDS = 30.0

_SMALL = Clip(frames=24, fps=12, width=160, height=96, keyframe_every=8)
_LAYOUTS: Mapping[str, tuple[str, Clip]] = {
    "plain": ("mp4", _SMALL),
    "matroska": ("mkv", replace(_SMALL, width=192)),
    "hevc": ("mp4", replace(_SMALL, frames=18, codec="libx265")),
    "turned": ("mp4", replace(_SMALL, rotation_degrees=90)),
    "reordered": ("mp4", replace(_SMALL, frames=30, b_frames=2)),
    "transport": ("ts", replace(_SMALL, height=112)),
}
"""Each of another size, length or turn, so that their results differ."""


@dataclass(frozen=True)
class Expected:
    """How one event must end.

    Args:
        outcome: of the header `vault-ml-outcome`.
        reason: of a dead letter's envelope.
        causes: what a dead letter may name as the error of its last try; empty for a result. A recording that
            is tried until its deadline may meet another fault in its last try.
    """

    outcome: str
    reason: str = ""
    causes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Recipe:
    """One kind of message.

    Args:
        name: also the file that its keys name, where it has one.
        weight: how often it occurs among the others.
        ends: the end of each of its events, in order.
        patience_seconds: how long its end may take without any fault; 0 where it comes at once.
    """

    name: str
    weight: float
    ends: tuple[Expected, ...]
    patience_seconds: float = 0.0

    def message(self, number: int) -> bytes | None:
        """Return the value of the message of this number."""
        match self.name:
            case "tombstone":
                return None
            case "malformed":
                return b'{"payload": {"key": "soak/malformed/%d.mp4"' % number
            case "list":
                good, broken = _event("plain", number), {**_event("plain", number), "payload": {}}
                return json.dumps([good, broken, {**good, "request": "ondemand"}]).encode()
            case "ondemand":
                return json.dumps({**_event("plain", number), "request": "ondemand"}).encode()
            case "not_a_video":
                return json.dumps(_event(self.name, number, ending="jpg")).encode()
        return json.dumps(_event(self.name, number)).encode()


_DONE = Expected("done")
_MALFORMED = Expected("dead-letter", "malformed", frozenset({"malformed"}))
_ON_DEMAND = Expected("skipped:ondemand")
_PASSING = {
    "unavailable", "signed_url_expired", "inference_failed", "model_changed", "worker_died", "pod_died",
}  # fmt: skip
"""What a try may fail with because of a fault of ours that is not called an outage yet."""


def _refused(reason: str) -> tuple[Expected, ...]:
    return (Expected("dead-letter", "handler_error", frozenset({reason})),)


def _exhausted(reason: str) -> tuple[Expected, ...]:
    return (Expected("dead-letter", "retry_exhausted", frozenset({reason, *_PASSING})),)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(Recipe(name, 14.0, (_DONE,)) for name in _LAYOUTS),
        Recipe("fragments", 14.0, (_DONE,)),
        Recipe("encrypted", 3.0, (_DONE,)),
        Recipe("truncated", 2.0, (Expected("partial"),)),
        Recipe("zero_bytes", 1.0, (Expected("skipped:zero_bytes"),)),
        Recipe("ondemand", 1.0, (_ON_DEMAND,)),
        Recipe("not_a_video", 1.0, (Expected("skipped:not_a_video"),)),
        Recipe("tombstone", 1.0, (Expected("skipped:tombstone"),)),
        Recipe("list", 2.0, (_DONE, _MALFORMED, _ON_DEMAND)),
        Recipe("malformed", 1.0, (_MALFORMED,)),
        Recipe("undecodable", 1.0, _refused("undecodable")),
        Recipe("missing", 1.0, _refused("refused")),
        Recipe("too_large", 1.0, _refused("too_large")),
        Recipe("wrong_key", 1.0, _refused("wrong_key")),
        Recipe("unfinished", 0.4, _exhausted("unfinished"), RECORDING_DEADLINE_SECONDS),
        Recipe("crashes", 0.2, _exhausted("worker_died"), RECORDING_DEADLINE_SECONDS),
        Recipe(
            "hangs", 0.0, _exhausted("worker_died"),
            _TRIES_OF_WORKERS * (RECORDING_TIME_LIMIT_SECONDS + _BACKSTOP_SECONDS),
        ),
    )
}  # fmt: skip
"""`hangs` has no weight: one is sent at the beginning, and one every few minutes."""

HANG_EVERY = 2000
"""Messages."""


def sequence(seed: int) -> Iterator[Recipe]:
    """Give the recipes of a run, one for each message, without end: the same ones for the same seed.

    Every recipe occurs among the first ones: those that take long first, then the others in any order.
    """
    rng = random.Random(seed)
    first = list(RECIPES.values())
    rng.shuffle(first)
    yield from sorted(first, key=lambda recipe: -recipe.patience_seconds)
    weights = [recipe.weight for recipe in RECIPES.values()]
    while True:
        yield from rng.choices(list(RECIPES.values()), weights, k=HANG_EVERY)
        yield RECIPES["hangs"]


def file_of(key: str, files: Mapping[str, Path]) -> Path | None:
    """Return the file that Vault has under this key; None where it has none."""
    parts = key.split("/")
    return files.get(parts[1]) if len(parts) == 3 and parts[0] == "soak" else None


def write_files(directory: Path) -> dict[str, Path]:
    """Write the files of all recipes; returns them by name."""
    files = {name: clips.write(directory / f"{name}.{end}", clip) for name, (end, clip) in _LAYOUTS.items()}
    files["fragments"] = clips.write_kerberos_like(directory / "fragments.mp4", _SMALL)
    files["encrypted"] = clips.encrypt(clips.write(directory / "encrypted.mp4", _SMALL), PASSPHRASE)
    files["wrong_key"] = clips.encrypt(clips.write(directory / "wrong.mp4", _SMALL), "not-" + PASSPHRASE)
    files["truncated"] = clips.truncate(
        clips.write_kerberos_like(directory / "truncated.mp4", replace(_SMALL, frames=48)), 0.6
    )
    files["unfinished"] = clips.write_unfinished(directory / "unfinished.mp4")
    for name, sign in (("crashes", CRASHES), ("hangs", HANGS)):
        files[name] = clips.write(directory / f"{name}.mp4", _SMALL)
        files[name].write_bytes(files[name].read_bytes() + sign)
    noise = np.random.default_rng(1)
    for name, size in (("zero_bytes", 0), ("undecodable", 5_000), ("too_large", MAX_RECORDING_BYTES + 1)):
        files[name] = directory / f"{name}.mp4"
        files[name].write_bytes(noise.bytes(size))
    return files


def _event(file: str, number: int, ending: str = "mp4") -> dict[str, object]:
    return {
        **README_EVENT,
        "source": PROVIDER,
        "payload": {**README_EVENT["payload"], "key": f"soak/{file}/{number}.{ending}"},
    }


def expected_events(names: Sequence[str]) -> int:
    """Return how many events these messages hold."""
    return sum(len(RECIPES[name].ends) for name in names)
