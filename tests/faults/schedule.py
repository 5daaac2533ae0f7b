"""Which fault happens when: a plan that follows from a seed alone."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Args:
        name: as reports say it.
        words: what happens, for people.
        lasts_seconds: the shortest and the longest time until it is over; both 0 for what happens at once.
    """

    name: str
    words: str
    lasts_seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def instant(self) -> bool:
        """Whether it happens at once."""
        return self.lasts_seconds[1] == 0.0


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("worker_killed", "kill -9 of a worker process"),
        Kind("consumer_killed", "kill -9 of a consumer; it starts again under its name"),
        Kind("consumer_replaced", "kill -9 of a consumer; another one takes its place"),
        Kind("consumer_restarted", "SIGTERM to a consumer; it starts again"),
        Kind("consumer_joins", "a third consumer joins and leaves", (10.0, 18.0)),
        Kind("consumer_frozen", "SIGSTOP of a consumer until its partitions have gone", (20.0, 28.0)),
        Kind("broker_killed", "kill -9 of a broker; it starts again", (2.0, 8.0)),
        Kind("broker_frozen", "SIGSTOP of a broker", (4.0, 10.0)),
        Kind("triton_killed", "kill -9 of Triton; it starts again", (1.0, 6.0)),
        Kind("vault_paused", "SIGSTOP of Vault", (4.0, 12.0)),
        Kind("vault_500s", "Vault answers 500", (4.0, 10.0)),
        Kind("vault_some_500s", "Vault answers half of the requests with 500", (4.0, 10.0)),
        Kind("vault_resets", "Vault breaks connections off", (4.0, 10.0)),
        Kind("link_slow", "a consumer's links are slow", (6.0, 14.0)),
        Kind("link_resets", "a consumer's connections break, and most new ones", (4.0, 8.0)),
        Kind("link_black_hole", "nothing reaches or leaves one side of a consumer", (6.0, 16.0)),
        Kind("disk_full", "a consumer's disk is full", (4.0, 10.0)),
        Kind("clock_stepped", "a consumer's clock steps by an hour and back", (4.0, 10.0)),
    )
}


@dataclass(frozen=True)
class Fault:
    """One fault of a plan.

    Args:
        number: its place in the plan, from 0.
        kind: a name of KINDS.
        at_seconds: when it begins, from the beginning of the plan.
        lasts_seconds: how long until it is over.
        choice: decides what it hits; from 0 to 1.
    """

    number: int
    kind: str
    at_seconds: float
    lasts_seconds: float
    choice: float

    @property
    def over_seconds(self) -> float:
        """When it is over."""
        return self.at_seconds + self.lasts_seconds


LEAST_GAP_SECONDS, MOST_GAP_SECONDS = 6.0, 20.0


def plan(seed: int, seconds: float, only: Collection[str] = (), gap_seconds: float = 0.0) -> list[Fault]:
    """Return the faults of a run, in order: each kind once, in an order of its own, before any occurs again.

    One begins every 6 to 20 seconds, the closer the shorter the time for every kind is. It may begin before
    the one before it is over, and none is over after `seconds`.

    Args:
        seed: the same seed gives the same plan.
        seconds: how long the plan is.
        only: names of KINDS; all of them where it is empty.
        gap_seconds: from one beginning to the next; 0 for as above.
    """
    rng = random.Random(seed)
    names = [name for name in KINDS if not only or name in only]
    gap = gap_seconds or min(MOST_GAP_SECONDS, max(LEAST_GAP_SECONDS, seconds / (len(names) + 1)))
    # In the first round what lasts longest comes first: at the end of a short plan it would have no room.
    waiting = sorted(_shuffled(names, rng), key=lambda name: -KINDS[name].lasts_seconds[1])
    faults: list[Fault] = []
    for slot in range(int(seconds / gap)):
        waiting = waiting or _shuffled(names, rng)
        kind = KINDS[waiting.pop(0)]
        at, lasts = gap * (slot + rng.uniform(0.2, 0.8)), rng.uniform(*kind.lasts_seconds)
        choice = rng.random()
        if at + lasts <= seconds:
            faults.append(Fault(len(faults), kind.name, round(at, 2), round(lasts, 2), choice))
    return faults


def _shuffled(names: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(names, len(names))
