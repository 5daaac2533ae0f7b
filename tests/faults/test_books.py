"""What the books promise: they notice what was lost, what came twice and what is wrong."""

import base64
import json
from dataclasses import replace

import pytest

from consumer.topics import Record
from tests.faults import books, recordings
from tests.faults.books import Balance, Right

SOURCE = "soak"


def sent(recipe: str, offset: int) -> Record:
    value = recordings.RECIPES[recipe].message(offset)
    return Record(SOURCE, 0, offset, None, value, {recordings.RECIPE_HEADER: recipe})


def key_of(recipe: str, offset: int) -> str:
    key: str = json.loads(recordings.RECIPES[recipe].message(offset) or b"{}")["payload"]["key"]
    return key


def result(
    offset: int, key: str, *, index: int = 0, outcome: str = "done", boxes: object = ((1, 2),)
) -> Record:
    value = {"payload": {"key": key}, "data": {"boxes": boxes}}
    headers = {
        "vault-ml-id": f"id of {key}",
        "vault-ml-source": f"{SOURCE}/0/{offset}/{index}",
        "vault-ml-outcome": outcome,
        "vault-ml-frames": "[[0,0]]",
    }
    return Record(
        "soak.results", 0, offset, headers["vault-ml-id"].encode(), json.dumps(value).encode(), headers
    )


def letter(offset: int, key: str, *, cause: str, reason: str = "handler_error", index: int = 0) -> Record:
    payload = base64.b64encode(json.dumps({"payload": {"key": key}}).encode()).decode()
    value = {"payload": payload, "deadLetter": {"reason": reason, "attributes": {"key": key}}}
    headers = {
        "vault-ml-id": f"id of letter {key}",
        "vault-ml-source": f"{SOURCE}/0/{offset}/{index}",
        "vault-ml-outcome": "dead-letter",
        "vault-ml-reason": cause,
    }
    return Record(
        "soak.dead-letter", 0, offset, headers["vault-ml-id"].encode(), json.dumps(value).encode(), headers
    )


RIGHT = {
    ("plain", 0): Right(
        "calm/plain", {"payload": {"key": "calm/plain"}, "data": {"boxes": [[1, 2]]}}, result(0, "").headers
    )
}
MESSAGES = [sent("plain", 0), sent("plain", 1), sent("missing", 2)]
RESULTS = [result(0, key_of("plain", 0)), result(1, key_of("plain", 1))]
LETTERS = [letter(2, key_of("missing", 2), cause="refused")]


def balance(results: list[Record], letters: list[Record]) -> Balance:
    return books.balance(MESSAGES, results, letters, RIGHT)


def test_events_are_results_and_dead_letters() -> None:
    found = balance(RESULTS, LETTERS)
    assert found.balanced
    assert (found.events, found.results, found.letters) == (3, 2, 1)
    assert found.by_outcome == {"dead-letter:refused": 1, "done": 2}


def test_a_lost_event_is_noticed() -> None:
    found = balance(RESULTS[:1], LETTERS)
    assert not found.balanced
    assert [entry.source for entry in found.lost] == [f"{SOURCE}/0/1/0"]


@pytest.mark.parametrize(
    ("more_results", "more_letters", "source"),
    [
        pytest.param([RESULTS[0]], [], f"{SOURCE}/0/0/0", id="two results"),
        pytest.param([], [LETTERS[0]], f"{SOURCE}/0/2/0", id="two dead letters"),
        pytest.param(
            [], [letter(1, key_of("plain", 1), cause="worker_died")], f"{SOURCE}/0/1/0", id="one of each"
        ),
    ],
)
def test_a_duplicate_is_noticed(more_results: list[Record], more_letters: list[Record], source: str) -> None:
    found = balance(RESULTS + more_results, LETTERS + more_letters)
    assert [entry.source for entry in found.duplicated] == [source]
    assert not found.lost


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        pytest.param(result(1, key_of("plain", 1), boxes=[[1, 3]]), "its value", id="other boxes"),
        pytest.param(result(1, key_of("plain", 0)), "its value", id="the result of another recording"),
        pytest.param(result(1, key_of("plain", 1), outcome="partial"), "its headers", id="other outcome"),
    ],
)
def test_a_wrong_result_is_noticed(wrong: Record, says: str) -> None:
    found = balance([RESULTS[0], wrong], LETTERS)
    assert [entry.source for entry in found.wrong] == [f"{SOURCE}/0/1/0"]
    assert says in found.wrong[0].why


def test_a_missing_header_is_noticed() -> None:
    headers = {name: value for name, value in RESULTS[1].headers.items() if name != "vault-ml-frames"}
    found = balance([RESULTS[0], replace(RESULTS[1], headers=headers)], LETTERS)
    assert [entry.source for entry in found.wrong] == [f"{SOURCE}/0/1/0"]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(replace(RESULTS[1], key=None), id="no key"),
        pytest.param(replace(RESULTS[1], key=RESULTS[0].key), id="the key of another recording"),
        pytest.param(
            replace(
                RESULTS[1],
                key=RESULTS[0].key,
                headers={**RESULTS[1].headers, "vault-ml-id": RESULTS[0].headers["vault-ml-id"]},
            ),
            id="the id of another recording",
        ),
    ],
)
def test_a_result_that_readers_would_fold_into_another_is_noticed(wrong: Record) -> None:
    assert [e.source for e in balance([RESULTS[0], wrong], LETTERS).wrong] == [f"{SOURCE}/0/1/0"]


def without_payload(record: Record) -> Record:
    value = {**json.loads(record.value or b"{}"), "payload": ""}
    return replace(record, value=json.dumps(value).encode())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(letter(2, key_of("missing", 2), cause="undecodable"), id="another cause"),
        pytest.param(letter(2, "", cause="refused"), id="no recording"),
        pytest.param(without_payload(LETTERS[0]), id="no event"),
        pytest.param(
            letter(2, key_of("missing", 2), cause="refused", reason="retry_exhausted"), id="another reason"
        ),
        pytest.param(letter(2, key_of("missing", 0), cause="refused"), id="another recording"),
    ],
)
def test_a_wrong_dead_letter_is_noticed(wrong: Record) -> None:
    assert [entry.source for entry in balance(RESULTS, [wrong]).wrong] == [f"{SOURCE}/0/2/0"]


def test_a_good_recording_that_became_a_dead_letter_is_wrong() -> None:
    innocent = letter(1, key_of("plain", 1), cause="worker_died", reason="retry_exhausted")
    found = balance(RESULTS[:1], [*LETTERS, innocent])
    assert [entry.source for entry in found.wrong] == [f"{SOURCE}/0/1/0"]


def test_an_outcome_of_no_event_is_noticed() -> None:
    found = balance([*RESULTS, result(7, "soak/plain/7.mp4")], LETTERS)
    assert [entry.source for entry in found.strange] == [f"{SOURCE}/0/7/0"]


def test_each_event_of_a_list_has_its_own_outcome() -> None:
    events = list(books.events_of([sent("list", 3)]))
    assert [event.source.rsplit("/", 1)[1] for event in events] == ["0", "1", "2"]
    assert [event.expected.outcome for event in events] == ["done", "dead-letter", "skipped:ondemand"]
    key = events[0].key
    right = {("list", 0): RIGHT["plain", 0], ("list", 2): RIGHT["plain", 0]}
    found = books.balance([sent("list", 3)], [result(3, key)], [], right)
    assert [entry.source for entry in found.lost] == [f"{SOURCE}/0/3/1", f"{SOURCE}/0/3/2"]


def test_a_run_without_faults_that_is_wrong_is_no_measure() -> None:
    with pytest.raises(ValueError, match="Without faults, plain must end as"):
        books.right_results([sent("plain", 0)], [])
