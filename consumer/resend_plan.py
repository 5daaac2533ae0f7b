"""The plan of what is sent again: which letters, as which events, and why the others are not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter

from consumer.dead_letter import SERVICE
from consumer.letter_event import event_again
from consumer.letters import DeadLetter, mark_of
from consumer.moments import in_words
from consumer.replay_mark import MOST_REPLAYS, ReplayMark


@dataclass(frozen=True)
class Sending:
    """One event to be sent again.

    older: positions of older letters of the same recording, which are done with it too.
    noted: that the letter was sent before; None where it was not.
    """

    letter: DeadLetter
    topic: str
    event: bytes = field(repr=False)
    mark: ReplayMark
    older: tuple[str, ...] = ()
    noted: ReplayMark | None = None


@dataclass(frozen=True)
class Plan:
    """What is sent, oldest first, and which letters are not, each with a sentence that says why."""

    sendings: tuple[Sending, ...]
    left_out: tuple[tuple[DeadLetter, str], ...]


def recording_of(letter: DeadLetter) -> str:
    """Return what letters of one recording have in common, as a mark can say it."""
    return letter.id if letter.id and ReplayMark.takes_id(letter.id) else letter.position


def plan_of(
    letters: Iterable[DeadLetter],
    marks: Mapping[str, ReplayMark],
    *,
    source: str,
    topic: str | None = None,
    again: bool = False,
    others: Mapping[str, tuple[str, ...]] | None = None,
    now: datetime,
) -> Plan:
    """Decide which letters are sent again, and as what.

    Args:
        letters: that were chosen; of several of one recording the newest is sent.
        marks: of letters that were sent before, by position.
        source: QUEUE_NAME, where they are sent to.
        topic: where to instead.
        again: also those that were sent before, or whose event was.
        others: positions of other letters of the same recording, by that of the letter that was chosen.
        now: the time that the marks say.
    """
    sendings: dict[str, Sending] = {}
    left_out = []
    for letter in sorted(letters, key=attrgetter("age")):
        noted = mark_of(letter, marks)
        reason = why_never(letter, source=source, topic=topic) or (
            None if again else _why_not_once_more(letter, noted)
        )
        if reason is not None:
            left_out.append((letter, reason))
            continue
        count = min(MOST_REPLAYS, max(letter.replays, 0 if noted is None else noted.count) + 1)
        identity = recording_of(letter)
        mark = ReplayMark("dead-letter", identity, count, in_words(now))
        before = sendings.pop(identity, None)
        older = (others or {}).get(letter.position, ())
        if before is not None:
            older = (*before.older, before.letter.position, *older)
        event = event_again(letter) or b""
        sendings[identity] = Sending(letter, topic or source, event, mark, older, noted)
    return Plan(tuple(sendings.values()), tuple(left_out))


def why_never(letter: DeadLetter, *, source: str, topic: str | None) -> str | None:
    """Return why a letter cannot be sent, for the end of a sentence; None where it can.

    Whoever may write a letter may name any topic in it: without one from the operator, events go to
    `source` only.
    """
    if topic is None and letter.service != SERVICE:
        return f"{letter.service or 'another service'} wrote it: use the tools of that one"
    if not letter.whole:
        return f"its event is not whole ({letter.left_out}): have its sender send it once more"
    if topic is None and letter.destination != source:
        came_from = f"topic {letter.destination!r}" if letter.destination else "a topic that it does not name"
        return f"it came from {came_from}, and QUEUE_NAME is {source!r}: say where to with --topic-to"
    if not letter.payload:
        return "it holds no event"
    if event_again(letter) is None:
        return "credentials in it are masked, and it is no event as JSON: ask its sender for it"
    return None


def _why_not_once_more(letter: DeadLetter, noted: ReplayMark | None) -> str | None:
    if noted is not None:
        return f"it was sent again at {noted.at}: add --again to repeat it"
    if letter.replays > 0:
        return f"it was sent again {letter.replays} time(s) and failed: mend that, add --again"
    return None
