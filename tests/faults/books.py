"""The books of a run, balanced from the outside: events in = results + dead letters, by reading the topics.

Nothing here knows what happened meanwhile: an event is a place in the source topic, and its outcomes are the
messages whose header `vault-ml-source` names that place.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumer.dead_letter import REASON_HEADER
from consumer.results import Header
from consumer.topics import Record
from tests.faults.recordings import RECIPE_HEADER, RECIPES, Expected

_OF_THE_PLACE = {Header.ID, Header.SOURCE}
"""Headers that differ between two recordings of the same recipe."""


@dataclass(frozen=True)
class Event:
    """One event of the source topic, and how it must end."""

    source: str
    recipe: str
    index: int
    key: str
    expected: Expected


@dataclass(frozen=True)
class Entry:
    """Something that is not as it must be."""

    source: str
    recipe: str
    why: str


@dataclass(frozen=True)
class Balance:
    """What the books say.

    lost: events without an outcome.
    duplicated: events with more than one.
    wrong: events whose outcome is another than without faults, or does not have an id of its own.
    strange: outcomes of events that nobody sent.
    """

    events: int
    results: int
    letters: int
    lost: tuple[Entry, ...]
    duplicated: tuple[Entry, ...]
    wrong: tuple[Entry, ...]
    strange: tuple[Entry, ...]
    by_outcome: Mapping[str, int]

    @property
    def balanced(self) -> bool:
        """Whether every event has exactly one outcome, and the right one."""
        return not (self.lost or self.duplicated or self.wrong or self.strange)

    @property
    def entries(self) -> list[tuple[str, Entry]]:
        """Everything that is not as it must be, with the word for it."""
        words = ("lost", "duplicated", "wrong", "strange")
        return [(word, entry) for word in words for entry in getattr(self, word)]


@dataclass(frozen=True)
class Right:
    """The result of a recording without faults; its key stands in it as `key`."""

    key: str
    value: Mapping[str, Any]
    headers: Mapping[str, str]


RightResults = Mapping[tuple[str, int], Right]
"""By recipe, and place among the events of a message."""


@dataclass
class _Outcomes:
    results: list[Record] = field(default_factory=list)
    letters: list[Record] = field(default_factory=list)


def events_of(messages: Iterable[Record]) -> Iterator[Event]:
    """Give the events that lie in a source topic."""
    for message in messages:
        recipe = RECIPES[message.headers[RECIPE_HEADER]]
        keys = _keys(message.value)
        for index, expected in enumerate(recipe.ends):
            source = f"{message.topic}/{message.partition}/{message.offset}/{index}"
            yield Event(source, recipe.name, index, keys[index] if index < len(keys) else "", expected)


def right_results(messages: Sequence[Record], results: Sequence[Record]) -> dict[tuple[str, int], Right]:
    """Return what a run without faults made of one message of each recipe.

    Raises:
        ValueError: it did not make of one what its recipe says.
    """
    by_source = {record.headers.get(Header.SOURCE): record for record in results}
    found: dict[tuple[str, int], Right] = {}
    for event in events_of(messages):
        if event.expected.causes:
            continue
        record = by_source.get(event.source)
        outcome = None if record is None else record.headers.get(Header.OUTCOME)
        if record is None or outcome != event.expected.outcome:
            raise ValueError(
                f"Without faults, {event.recipe} must end as {event.expected}, not as {outcome}."
            )
        found[event.recipe, event.index] = Right(event.key, json.loads(record.value or b"{}"), record.headers)
    return found


def balance(
    messages: Iterable[Record], results: Iterable[Record], letters: Iterable[Record], right: RightResults
) -> Balance:
    """Compare what was sent with what came of it.

    Args:
        messages: all of the source topic.
        results: all of the target topic that can be read.
        letters: all of the dead-letter topic that can be read.
        right: what the results must be.
    """
    outcomes: defaultdict[str, _Outcomes] = defaultdict(_Outcomes)
    for record in results:
        outcomes[record.headers.get(Header.SOURCE, "")].results.append(record)
    for record in letters:
        outcomes[record.headers.get(Header.SOURCE, "")].letters.append(record)
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    counts: defaultdict[str, int] = defaultdict(int)
    events, ids = 0, dict[str, str]()
    of_results = sum(len(each.results) for each in outcomes.values())
    of_letters = sum(len(each.letters) for each in outcomes.values())
    for event in events_of(messages):
        events += 1
        came = outcomes.pop(event.source, _Outcomes())
        all_of_it = came.results + came.letters
        if not all_of_it:
            found["lost"].append(_entry(event, "no outcome"))
            continue
        if len(all_of_it) > 1:
            places = ", ".join(f"{r.topic}/{r.partition}/{r.offset}" for r in all_of_it)
            found["duplicated"].append(_entry(event, f"{len(all_of_it)} outcomes: {places}"))
        counts[_kind_of(all_of_it[0])] += 1
        for record in all_of_it:
            problem = _problem(event, record, is_letter=record in came.letters, right=right)
            problem = problem or _problem_of_id(event, record, ids)
            if problem is not None:
                found["wrong"].append(_entry(event, problem))
                break
    found["strange"] = [Entry(source, "", "an outcome of no event") for source in outcomes]
    return Balance(
        events=events,
        results=of_results,
        letters=of_letters,
        lost=tuple(found["lost"]),
        duplicated=tuple(found["duplicated"]),
        wrong=tuple(found["wrong"]),
        strange=tuple(found["strange"]),
        by_outcome=dict(sorted(counts.items())),
    )


def _problem(event: Event, record: Record, *, is_letter: bool, right: RightResults) -> str | None:
    """Return what is wrong with an outcome, or None."""
    if is_letter != bool(event.expected.causes):
        return f"it ended as {_kind_of(record)}, not as {event.expected.outcome}"
    if is_letter:
        return _problem_of_letter(event, record)
    sound = right[event.recipe, event.index]
    value = json.loads(record.value or b"{}")
    wanted = _with_key(sound.value, sound.key, event.key)
    if value != wanted:
        return f"its value is {_differences(value, wanted)}"
    ours, theirs = _comparable(record.headers), _comparable(sound.headers)
    if ours != theirs:
        return f"its headers are {_differences(ours, theirs)}"
    return None


def _problem_of_id(event: Event, record: Record, ids: dict[str, str]) -> str | None:
    """Return what is wrong with the id that a reader folds repetitions by, or None; notes it in `ids`."""
    own = record.headers.get(Header.ID, "")
    if not own or record.key != own.encode():
        return f"its key is {record.key!r}, and its id {own!r}"
    if ids.setdefault(own, event.source) != event.source:
        return f"its id is that of {ids[own]} too"
    return None


def _problem_of_letter(event: Event, record: Record) -> str | None:
    envelope = json.loads(record.value or b"{}")
    letter = envelope.get("deadLetter", {})
    cause = record.headers.get(REASON_HEADER)
    if letter.get("reason") != event.expected.reason or cause not in event.expected.causes:
        return (
            f"its dead letter says {letter.get('reason')} ({cause}), not {event.expected.reason} "
            f"({' or '.join(sorted(event.expected.causes))})"
        )
    named = letter.get("attributes", {}).get("key", "")
    if named != event.key:
        return f"its dead letter names {named!r}, not {event.key!r}"
    if event.key and _keys(base64.b64decode(envelope.get("payload", ""))) != [event.key]:
        return "its dead letter does not hold its event"
    return None


def _entry(event: Event, why: str) -> Entry:
    return Entry(event.source, event.recipe, why)


def _kind_of(record: Record) -> str:
    outcome = record.headers.get(Header.OUTCOME, "nothing")
    reason = record.headers.get(REASON_HEADER)
    return f"{outcome}:{reason}" if reason else outcome


def _comparable(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _OF_THE_PLACE}


def _with_key(value: Mapping[str, Any], old: str, new: str) -> Any:  # noqa: ANN401  # JSON
    return json.loads(json.dumps(value).replace(json.dumps(old), json.dumps(new))) if old else value


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return "; ".join(f"{name}: {found.get(name)!r} for {wanted.get(name)!r}" for name in names)[:400]


def _keys(value: bytes | None) -> list[str]:
    """Return the recordings' keys that a message names, in order; empty texts where it names none."""
    try:
        parsed = json.loads(value or b"null")
    except ValueError:
        return []
    entries = parsed if isinstance(parsed, list) else [parsed]
    return [(entry or {}).get("payload", {}).get("key", "") for entry in entries]
