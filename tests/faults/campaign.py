"""The campaign: does what the plan says when its time comes, one fault at a target at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.injections import Injection, injection_of
from tests.faults.schedule import KINDS, Fault
from tests.faults.surroundings import Surroundings

Say = Callable[[str], None]

LONGEST_RECOVERY_SECONDS = 90.0
"""What was hit must be back by then; for the next fault at it we wait no longer."""


@dataclass
class Happened:
    """One fault as it happened; times are time.monotonic()."""

    fault: Fault
    injection: Injection
    began_at: float
    over_at: float | None = None
    """When it was undone; for what happens at once, when it began."""
    back_at: float | None = None
    """When what was hit was back."""

    def __str__(self) -> str:
        detail = f" ({self.injection.detail})" if self.injection.detail else ""
        return f"{self.fault.kind}: {self.injection.target}{detail}"


class Campaign:
    """Carries out a plan; everything happens in `turn`, in the thread that calls it.

    Args:
        plan: what shall happen.
        world: to whom.
        say: takes a line for people.
    """

    def __init__(self, plan: Sequence[Fault], world: Surroundings, say: Say) -> None:
        self._waiting, self._world, self._say = list(plan), world, say
        self._began_at = time.monotonic()
        self.happened: list[Happened] = []

    @property
    def under_way(self) -> list[Happened]:
        """What has begun and is not back."""
        return [each for each in self.happened if each.back_at is None]

    @property
    def done(self) -> bool:
        """Whether all is over."""
        return not self._waiting and not self.under_way

    def turn(self) -> None:
        """Begin what is due, and end what is over."""
        now = time.monotonic()
        for each in self.under_way:
            self._see_to(each, now)
        busy = {each.injection.target for each in self.under_way}
        for fault in [fault for fault in self._waiting if self._began_at + fault.at_seconds <= now]:
            injection = injection_of(fault, self._world)
            if injection.target not in busy:
                busy.add(injection.target)
                self._waiting.remove(fault)
                self._begin(fault, injection)

    def _begin(self, fault: Fault, injection: Injection) -> None:
        happened = Happened(fault, injection, time.monotonic())
        self.happened.append(happened)
        self._say(str(happened))
        injection.begin()
        if KINDS[fault.kind].instant:
            happened.over_at = happened.began_at

    def _see_to(self, each: Happened, now: float) -> None:
        if each.over_at is None and now >= each.began_at + each.fault.lasts_seconds:
            self._undo(each)
        if each.over_at is None:
            return
        if each.injection.over():
            each.back_at = time.monotonic()
        elif now - each.over_at > LONGEST_RECOVERY_SECONDS:
            self._say(f"{each}: not back after {LONGEST_RECOVERY_SECONDS:g} s")
            each.back_at = now

    def _undo(self, each: Happened) -> None:
        if each.over_at is None:
            each.injection.end()
            each.over_at = time.monotonic()
            self._say(f"{each}: over")
