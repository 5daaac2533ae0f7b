"""The campaign: does what the plan says when its time comes, one fault at a target at a time."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
from confluent_kafka import KafkaException

from consumer.errors import SetupError
from tests.faults.injections import Injection, injection_of
from tests.faults.schedule import KINDS, Fault
from tests.faults.surroundings import Surroundings

Say = Callable[[str], None]

LONGEST_RECOVERY_SECONDS = 90.0
"""What was hit must be back by then; for the next fault at it we wait no longer."""


LONGEST_SEARCH_SECONDS = 60.0
"""For something that a fault can be done to: a consumer that is there, a worker of it."""

MOST_UNDOINGS, UNDO_AGAIN_SECONDS = 10, 2.0

TROUBLES = (OSError, SetupError, psutil.Error, subprocess.SubprocessError, KafkaException)
"""What our own doings may meet on a machine that is short of everything; a run goes on, and says so."""


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
    took: bool = True
    """Whether anything met it; one that nothing met does not count."""
    undoings: int = 0
    """How often it could not be undone."""

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
        self._kinds = {fault.kind for fault in plan}
        self._sought_since: dict[int, float] = {}
        self.happened: list[Happened] = []
        self.problems: list[str] = []
        """What this run failed to do, one sentence each."""

    @property
    def under_way(self) -> list[Happened]:
        """What has begun and is not back."""
        return [each for each in self.happened if each.back_at is None]

    @property
    def done(self) -> bool:
        """Whether all is over."""
        return not self._waiting and not self.under_way

    @property
    def in_vain(self) -> list[str]:
        """Return the kinds of the plan of which not one did anything."""
        return sorted(self._kinds - {each.fault.kind for each in self.happened if each.took})

    def turn(self) -> None:
        """Begin what is due, keep up what goes on, and end what is over."""
        now = time.monotonic()
        for each in self.under_way:
            self._see_to(each, now)
        busy = {each.injection.target for each in self.under_way}
        for fault in [fault for fault in self._waiting if self._began_at + fault.at_seconds <= now]:
            injection = injection_of(fault, self._world)
            if injection.target not in busy and self._begin(fault, injection, now):
                busy.add(injection.target)
                self._waiting.remove(fault)

    def _begin(self, fault: Fault, injection: Injection, now: float) -> bool:
        """Do it, if there is something to do it to; returns False where it is to be tried again."""
        happened = Happened(fault, injection, time.monotonic())
        try:
            done = injection.begin() is not False
        except TROUBLES as error:
            # Some of it may be done: it is undone in its time, but does not count.
            self._say(f"{happened}: {error}")
            done, happened.took = True, False
        if not done:
            if now - self._sought_since.setdefault(fault.number, now) < LONGEST_SEARCH_SECONDS:
                return False
            happened.took, happened.over_at, happened.back_at = False, now, now
        self._say(str(happened) if happened.took else f"{happened}: did nothing")
        self.happened.append(happened)
        if KINDS[fault.kind].instant and done:
            happened.over_at = happened.began_at
        return True

    def _see_to(self, each: Happened, now: float) -> None:
        if each.over_at is None:
            try:
                if now >= each.began_at + each.fault.lasts_seconds + each.undoings * UNDO_AGAIN_SECONDS:
                    self._undo(each)
                else:
                    each.injection.keep_up()
            except TROUBLES as error:
                self._failed(each, error)
        if each.over_at is None:
            return
        if each.injection.over():
            each.back_at = time.monotonic()
        elif now - each.over_at > LONGEST_RECOVERY_SECONDS:
            self._say(f"{each}: not back after {LONGEST_RECOVERY_SECONDS:g} s")
            each.back_at = now

    def _undo(self, each: Happened) -> None:
        each.took = each.took and each.injection.took()
        each.injection.end()
        each.over_at = time.monotonic()
        self._say(f"{each}: over" if each.took else f"{each}: over, and nothing met it")

    def _failed(self, each: Happened, error: Exception) -> None:
        each.undoings += 1
        self._say(f"{each}: {error}")
        if each.undoings == MOST_UNDOINGS:
            self.problems.append(f"{each} could not be undone: {error}.")
            each.over_at = time.monotonic()
