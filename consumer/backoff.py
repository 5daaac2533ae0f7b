"""Backoff: how long to wait before the next try, longer each time and never the same for two pods."""

import random

_DOUBLINGS = 10
"""Past so many the wait is at its longest anyway, and the power would overflow in a long outage."""


def jittered_wait(tries: int, *, first_seconds: float, longest_seconds: float, rng: random.Random) -> float:
    """Return the seconds to wait after so many earlier waits: between half of the ceiling and all of it."""
    ceiling = min(longest_seconds, first_seconds * 2.0 ** min(tries, _DOUBLINGS))
    return rng.uniform(ceiling / 2, ceiling)
