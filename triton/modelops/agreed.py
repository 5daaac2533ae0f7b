"""Whether a candidate agrees with the live version, by what the consumers wrote to the diff topic."""

import os
import re
from datetime import datetime

from consumer import settings
from consumer.errors import SetupError
from consumer.parts import kafka_connection
from modelops import comparisons
from modelops.companion import Companion
from modelops.drift import Drift, Pair, aggregate, verdict


def versions_of(companion: Companion, versions: str | None) -> tuple[int, int]:
    """Return the two versions that `A,B` names; without it, the live one and the candidate.

    Raises:
        SetupError: it is not A,B, or none is on trial.
    """
    rollout = companion.rollout
    if versions is None:
        if rollout.candidate is None:
            raise SetupError(
                f"No version is on trial beside {rollout.live}: say which two with --versions A,B."
            )
        return rollout.live, rollout.candidate.version
    numbers = re.fullmatch(r"([1-9][0-9]{0,8}),([1-9][0-9]{0,8})", versions.replace(" ", ""))
    if numbers is None or numbers[1] == numbers[2]:
        raise SetupError(f"--versions {versions} will not do: write the numbers of two versions, like 1,2.")
    return int(numbers[1]), int(numbers[2])


def pair_of(model: str, companion: Companion, live: int, candidate: int) -> Pair:
    """Return the pair of versions with the digests by which the diff topic knows them.

    Raises:
        SetupError: a version is not there.
    """
    for number in (live, candidate):
        if number not in companion.versions:
            there = ", ".join(map(str, companion.versions))
            raise SetupError(f"There is no version {number} of {model!r}; there are {there}.")
    first, second = companion.versions[live], companion.versions[candidate]
    return Pair(model, live, first.digest, candidate, second.digest)


def read_drift(pair: Pair, since: datetime | None) -> Drift:
    """Add up what the diff topic says of exactly these two, found by the consumer's own Kafka variables.

    Raises:
        SetupError: the variables will not do, or the topic cannot be read.
    """
    loaded = settings.load_topics(os.environ)
    read = comparisons.read(kafka_connection(loaded), loaded.queue_comparison, since=since)
    return aggregate(read).get(pair, Drift())


def require(drift: Drift, least_agreement: float, least_boxes: int) -> str:
    """Return the figures, where they are good enough.

    Raises:
        SetupError: they are not; says them.
    """
    enough, figures = verdict(drift, least_agreement, least_boxes)
    if not enough:
        raise SetupError(f"Not promoted: there is {figures}.")
    return figures
