"""Tells an outage from one bad recording, and says when to try again.

An outage closes the gate: nothing is sent to work but one probe at a time, the partitions are paused, and no
deadline of a recording runs. What closes it: an `Outage` (Vault's /ping fails, Triton is away), a SetupError
(the model no longer keeps the contract), or different recordings in a row that fail in a way that something
shared could explain. What opens it: any recording whose shared parts answered.
"""

import random
from dataclasses import dataclass, field

from consumer.errors import MayHeal, Outage, SetupError, VaultMLError

DIFFERENT_RECORDINGS_IN_A_ROW = 3
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0


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
    _failed_in_a_row: set[str] = field(default_factory=set)

    @property
    def closed(self) -> bool:
        """Whether work is held back."""
        return self.cause is not None

    def failed(self, recording: str, error: VaultMLError, now: float) -> bool:
        """Take note of a failed try; return True when it is an outage, not the recording's own fault."""
        if isinstance(error, Outage | SetupError):
            self._close(error, now)
            return True
        if not (isinstance(error, MayHeal) and error.suspects_outage):
            # Its own fault, found out with everything shared at work.
            self.answered(now)
            return False
        self._failed_in_a_row.add(recording)
        if self.closed or len(self._failed_in_a_row) >= DIFFERENT_RECORDINGS_IN_A_ROW:
            self._close(error, now)
            return True
        return False

    def answered(self, now: float) -> None:
        """Take note that everything shared is at work; opens the gate."""
        self._closed_before = self.seconds_closed(now)
        self._failed_in_a_row.clear()
        self.cause = None
        self._waits = 0

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
        ceiling = min(self.longest_wait_seconds, FIRST_WAIT_SECONDS * 2.0**self._waits)
        self._probe_at = now + self.rng.uniform(ceiling / 2, ceiling)
        self._waits += 1
