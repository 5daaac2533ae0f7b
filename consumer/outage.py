"""Tells an outage from one bad recording, and says when to try again.

An outage closes the gate: nothing is sent to work but one probe at a time, the partitions are paused, and no
deadline of a recording runs. What closes it: an `Outage` (Vault's /ping fails, Triton is away), a SetupError
(the model no longer keeps the contract), or different recordings in a row that fail in a way that something
shared could explain. What opens it: a recording that shows the part at work which was away.
"""

import random
from dataclasses import dataclass, field

from consumer.backoff import jittered_wait
from consumer.errors import Outage, Part, SetupError, VaultMLError

DIFFERENT_RECORDINGS_IN_A_ROW = 3
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 5.0

_SHOWN_BY_ANY_ANSWER: frozenset[Part] = frozenset({"vault", "disk", "workers"})


@dataclass
class OutageGate:
    """State of what all recordings need; times are seconds of one monotonic clock, given by the caller."""

    longest_wait_seconds: float = LONGEST_WAIT_SECONDS
    rng: random.Random = field(default_factory=random.Random)
    cause: VaultMLError | None = None
    """Why the gate is closed; None while it is open."""
    _closed_since: float = 0.0
    _closed_before: float = 0.0
    _probe_at: float = 0.0
    _waits: int = 0
    _failed_in_a_row: dict[str, Part] = field(default_factory=dict)
    _at_fault: set[str] = field(default_factory=set)
    """Recordings that failed while others did not: what they do from then on is their own affair."""
    _given_up: set[str] = field(default_factory=set)
    """Those of the row that are dead letters already."""

    @property
    def closed(self) -> bool:
        """Whether work is held back."""
        return self.cause is not None

    def failed(self, recording: str, error: VaultMLError, now: float) -> bool:
        """Take note of a failed try; return True when it is an outage, not the recording's own fault."""
        if isinstance(error, Outage | SetupError):
            self._close(error, now)
            return True
        if error.part is None:
            self.answered(now, inferred=False)
            return False
        if recording in self._at_fault:
            return False
        self._failed_in_a_row[recording] = error.part
        in_a_row = sum(part == error.part for part in self._failed_in_a_row.values())
        if self.closed or in_a_row >= DIFFERENT_RECORDINGS_IN_A_ROW:
            self._close(error, now)
            return True
        return False

    def answered(self, now: float, *, inferred: bool) -> None:
        """Take note that a recording got through, to the model or not; opens the gate if that shows enough.

        Args:
            now: the time.
            inferred: whether Triton answered too, and not only Vault.
        """
        shown = _SHOWN_BY_ANY_ANSWER | {"triton"} if inferred else _SHOWN_BY_ANY_ANSWER
        for recording, part in list(self._failed_in_a_row.items()):
            if part in shown:
                del self._failed_in_a_row[recording]
                if recording in self._given_up:
                    self._given_up.discard(recording)
                else:
                    self._at_fault.add(recording)
        # A cause that names no part (a set-up that became wrong) is over when a recording got all the way.
        if self.cause is not None and (self.cause.part in shown or (self.cause.part is None and inferred)):
            self._closed_before = self.seconds_closed(now)
            self.cause = None

    def gave_up(self, recording: str) -> None:
        """Take note of a recording that failed until its time was up; it goes on counting in its row.

        Else an outage that only recordings show would never be seen where few come: each would be given up
        before there are enough of them.
        """
        if recording in self._failed_in_a_row:
            self._given_up.add(recording)

    def forget(self, recording: str) -> None:
        """Drop what is remembered of a recording that has its outcome, unless it was given up."""
        if recording not in self._given_up:
            self._failed_in_a_row.pop(recording, None)
        self._at_fault.discard(recording)

    def probe_due(self, now: float) -> bool:
        """Whether one recording may be tried while the gate is closed."""
        return self.closed and now >= self._probe_at

    def seconds_closed(self, now: float) -> float:
        """Seconds that the gate has been closed in all; a recording's deadline does not run in them."""
        return self._closed_before + (now - self._closed_since if self.closed else 0.0)

    def _close(self, cause: VaultMLError, now: float) -> None:
        if not self.closed:
            self._closed_since = now
            self._waits = 0
        elif now < self._probe_at:
            # Others that were under way when the gate closed: one outage, not many.
            return
        self.cause = cause
        self._probe_at = now + jittered_wait(
            self._waits,
            first_seconds=FIRST_WAIT_SECONDS,
            longest_seconds=self.longest_wait_seconds,
            rng=self.rng,
        )
        self._waits += 1
