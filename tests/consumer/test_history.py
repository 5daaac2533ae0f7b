"""The note beside a committed offset: what was written is read, and what is not ours is ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.backlog import MAX_BREAKDOWNS
from consumer.history import KINDS, MAX_NOTE_BYTES, Breakdowns, History, decode, encode

names = st.builds(
    lambda offset, index: f"{offset}.{index}" if index else str(offset),
    st.integers(0, 2**62),
    st.integers(0, 500),
)
breakdowns = st.builds(Breakdowns, st.integers(1, MAX_BREAKDOWNS), st.sampled_from(sorted(KINDS)))


@given(st.frozensets(names, max_size=20), st.dictionaries(names, breakdowns, max_size=15))
def test_what_is_written_is_read(under_way: frozenset[str], tried: dict[str, Breakdowns]) -> None:
    history = History("0badcafe", under_way, tried)
    assert decode(encode(history)) == history


@given(st.frozensets(names, max_size=400), st.dictionaries(names, breakdowns, max_size=400))
def test_a_note_is_never_longer_than_kafka_takes_and_keeps_what_comes_first(
    under_way: frozenset[str], tried: dict[str, Breakdowns]
) -> None:
    note = encode(History("0badcafe", under_way, tried))
    assert len(note.encode()) <= MAX_NOTE_BYTES
    kept = decode(note)
    assert kept is not None
    assert kept.under_way <= under_way

    def offset(name: str) -> tuple[int, ...]:
        return tuple(int(part) for part in f"{name}.0".split(".")[:2])

    for whole, part in ((under_way, kept.under_way), (tried.keys(), kept.tried.keys())):
        assert sorted(whole, key=offset)[: len(part)] == sorted(part, key=offset)
        assert bool(part) == bool(whole), "the first one always has room"


def test_a_partition_left_in_good_order_without_trouble_needs_no_note() -> None:
    assert encode(History()) == ""
    assert decode("") == History()


@pytest.mark.parametrize(
    "note",
    [
        "checkpoint-17",
        "{",
        "[]",
        "17",
        "null",
        '{"v":2,"tried":{}}',
        '{"v":1}',
        '{"v":1,"tried":{"x":[1,"worker_died"]}}',
        '{"v":1,"tried":{"1":[null,"worker_died"]}}',
        '{"v":1,"tried":{"1":7}}',
        '{"v":1,"tried":{},"by":"a","open":["1","?"]}',
        '{"v":1,"tried":{},"by":"a","open":7}',
        "[" * 4000,
    ],
)
def test_a_damaged_or_foreign_note_is_none_of_ours(note: str) -> None:
    assert decode(note) is None


@given(st.text(max_size=4096))
def test_no_note_makes_it_fail(note: str) -> None:
    decode(note)


def test_a_count_from_elsewhere_is_at_most_what_makes_a_dead_letter() -> None:
    found = decode('{"v":1,"tried":{"5":[99,"made_up"]}}')
    assert found is not None
    assert found.tried == {"5": Breakdowns(MAX_BREAKDOWNS, "worker_died")}
