"""Duplicates: events that Vault's outbox sends again are looked at once, where that is switched on.

Vault's outbox delivers at least once and gives an event no id (learn.uug.ai, vault/outbox). So two events are
the same here when they say the same, their credentials aside: a link may be signed anew. A recording that was
stored again under its key has another date or size, and is looked at again.

What is remembered is this pod's own and lasts as long as the pod.
"""

import hashlib
import json
from collections import OrderedDict

from consumer.backlog import InHand
from consumer.credentials import remove_credentials
from consumer.events import RecordingEvent
from consumer.messages import Position

MAX_WAITING = 16
"""Repetitions that wait for the first one's outcome; further ones are looked at by themselves."""


class Duplicates:
    """Remembers the last recordings that were answered, and those in hand.

    Args:
        window: how many are remembered; 0 for none, then nothing is a duplicate. Each takes about 300 bytes.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._answered: OrderedDict[bytes, Position] = OrderedDict()
        self._in_hand: dict[bytes, tuple[InHand, list[InHand]]] = {}
        """The first of its kind, and those that wait for what becomes of it."""

    @property
    def waiting(self) -> int:
        """How many repetitions wait for the outcome of their first."""
        return sum(len(repeated) for _, repeated in self._in_hand.values())

    def meet(self, recording: InHand) -> bool:
        """Say whether a recording that was just fetched is to be looked at now.

        One that is not either has its first one's place in `duplicate_of`, and is skipped; or it waits here
        until `ended` gives it back. An event that somebody sends again with a mark is to be looked at again.
        """
        if not self._window or recording.replay is not None:
            return True
        identity = identity_of(recording.event)
        first = self._answered.get(identity)
        if first == recording.position:
            # Its partition went before its answer was in Kafka, and is here again: nothing has answered it.
            del self._answered[identity]
        elif first is not None:
            self._answered.move_to_end(identity)
            recording.duplicate_of = first
            return False
        if identity not in self._in_hand:
            self._in_hand[identity] = recording, []
            return True
        _, repeated = self._in_hand[identity]
        if len(repeated) >= MAX_WAITING:
            return True
        repeated.append(recording)
        return False

    def ended(self, recording: InHand, *, answered: bool) -> list[InHand]:
        """Take note that a recording is in hand no more; return those that waited for it.

        Where it was answered they are its duplicates. Where it became a dead letter, or its partition went,
        they are events like any other, the first of which is to be looked at: give them to `meet` again.

        Args:
            recording: that ended.
            answered: it has a result; on its way to Kafka at least.
        """
        if not self._window or recording.replay is not None:
            return []
        identity = identity_of(recording.event)
        first, repeated = self._in_hand.get(identity, (None, []))
        if first is recording:
            del self._in_hand[identity]
        elif not answered:
            return []
        if answered and identity not in self._answered:
            self._answered[identity] = recording.position
            if len(self._answered) > self._window:
                self._answered.popitem(last=False)
        return [each for each in repeated if not each.progress.revoked] if first is recording else []


def identity_of(event: RecordingEvent) -> bytes:
    """Return what two events share that say the same, their credentials aside: 16 bytes."""
    said = json.dumps(remove_credentials(event.raw), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).digest()[:16]
