"""Whatever comes in: no crash, only the designed outcomes, and nothing secret goes out."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.analysis import Analysis
from consumer.dead_letter import build_dead_letter
from consumer.errors import EventMalformed
from consumer.events import MAX_ENTRIES, MalformedEvent, RecordingEvent, parse_message
from consumer.messages import Position
from consumer.results import build_result
from tests.fakes.recorded_events import SECRETS, VERSIONS, WORKFLOW_RUN

MAX_BYTES = 1_000_012
POSITION = Position("source", 0, 7)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        found.extend(_places(inner, (*path, name)))
    return found


@st.composite
def mutated_events(draw: st.DrawFn) -> object:
    """A real event in which up to three places are something else, or gone."""
    event: Any = json.loads(json.dumps(draw(st.sampled_from([*VERSIONS.values(), WORKFLOW_RUN]))))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(_places(event)))
        if not path:
            event = draw(json_values)
            break
        place = event
        for name in path[:-1]:
            place = place[name]
        if draw(st.booleans()):
            del place[path[-1]]
        else:
            place[path[-1]] = draw(json_values)
    return event


def _check_outcomes(value: bytes) -> None:
    entries = parse_message(value)
    assert 1 <= len(entries) <= MAX_ENTRIES
    assert [entry.index for entry in entries] == list(range(len(entries)))
    for entry in entries:
        if isinstance(entry, MalformedEvent):
            assert isinstance(entry.error, EventMalformed)
            assert str(entry.error).endswith(".")
            letter = build_dead_letter(
                entry.payload, entry.error, POSITION, destination="dead", attempts=1, max_bytes=MAX_BYTES
            )
            assert json.loads(letter.value)["deadLetter"]["reason"] == "malformed"
        else:
            assert isinstance(entry, RecordingEvent)
            assert entry.key or entry.skip_reason in ("tombstone", "empty_list")
            _check_result(entry)


def _refused(constant: str) -> None:
    pytest.fail(f"{constant} came out, which is not JSON")


def _check_result(event: RecordingEvent) -> None:
    analysis = Analysis.skipped(event.skip_reason) if event.skip_reason else Analysis("done")
    message = build_result(event, analysis, POSITION, MAX_BYTES)
    value = json.loads(message.value, parse_constant=_refused)
    assert value["operation"] == "classification"
    assert {"probabilities", "labels", "boxes"} <= set(value["data"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_have_a_designed_outcome(value: bytes) -> None:
    _check_outcomes(value)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_any_json_has_a_designed_outcome(value: object) -> None:
    _check_outcomes(json.dumps(value).encode())


@settings(max_examples=500, deadline=None)
@given(st.lists(mutated_events(), min_size=1, max_size=3), st.booleans())
def test_mutated_real_events_have_a_designed_outcome(events: list[object], in_a_list: bool) -> None:
    _check_outcomes(json.dumps(events if in_a_list else events[0]).encode())


@settings(max_examples=300, deadline=None)
@given(mutated_events(), st.integers(0, 2000), st.binary(max_size=3))
def test_damaged_bytes_of_real_events_have_a_designed_outcome(event: object, at: int, noise: bytes) -> None:
    value = json.dumps(event).encode()
    _check_outcomes(value[:at] + noise + value[at + len(noise) :])
    _check_outcomes(value[:at])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(VERSIONS.values())), st.dictionaries(st.text(), json_values, max_size=3))
def test_what_a_real_event_says_survives_beside_unknown_names(
    event: dict[str, Any], more: dict[str, Any]
) -> None:
    added = {name: inner for name, inner in more.items() if name not in event}
    value = json.dumps({**added, **event}).encode()
    (entry,) = parse_message(value)
    if isinstance(entry, MalformedEvent):
        return  # the unknown part holds what JSON does not: covered above
    assert dict(entry.raw) == {**added, **event}
    assert entry.key == event["payload"]["key"]
    out = build_result(entry, Analysis("done"), POSITION, MAX_BYTES).value.decode()
    assert not any(secret in out for secret in SECRETS)
