"""Which recordings are due: the oldest, each once, and none that keeps back those behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from consumer import due_letters
from consumer.due_letters import Due, Shelf, take
from consumer.letters import DeadLetter
from consumer.resend_plan import plan_of, why_never
from tests.consumer.failed import NOON, letter

LEFT_OUT = "its 9 bytes were left out"


def taken(letters: Sequence[DeadLetter], limit: int) -> tuple[list[Due], list[str]]:
    """Return what is sent, and the places of what cannot be; the source topic has none of the events."""

    def made_whole(each: DeadLetter) -> DeadLetter:
        return each if each.whole else replace(each, left_out=f"{each.left_out}, and no such event is found")

    def refuse(each: DeadLetter) -> str | None:
        return why_never(each, source="source", topic=None)

    sent, refused = [], []
    for each in take(lambda: letters, made_whole, refuse, limit):
        if isinstance(each, tuple):
            refused.append(each[0].letter.position)
        else:
            sent.append(each)
    return sent, refused


def places(dues: Sequence[Due]) -> list[str]:
    return [each.letter.position for each in dues]


@pytest.mark.parametrize("lost", [1, 40])
def test_letters_whose_event_is_not_found_do_not_keep_back_those_behind_them(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(due_letters, "_RESERVE", 8)
    letters = [letter(number, payload=b"", left_out=LEFT_OUT) for number in range(lost)]
    letters += [letter(lost), letter(lost + 1)]
    sent, refused = taken(letters, 1)
    assert places(sent) == [f"0/{lost}"]
    assert refused == [f"0/{number}" for number in range(lost)]


def test_a_limit_does_not_cut_between_the_letters_of_one_recording() -> None:
    letters = [letter(0, "a.mp4"), *map(letter, range(1, 9)), letter(9, "a.mp4")]
    (due,), _ = taken(letters, 1)
    assert (due.letter.position, due.others) == ("0/9", ("0/0",))
    (sending,) = plan_of([due.letter], {}, others={"0/9": due.others}, source="source", now=NOON).sendings
    assert sending.older == ("0/0",)


def test_of_a_recording_the_newest_letter_that_holds_its_event_is_sent() -> None:
    letters = [letter(0, "a.mp4"), letter(1, "a.mp4"), letter(2, "a.mp4", payload=b"", left_out=LEFT_OUT)]
    (due,), refused = taken(letters, 10)
    assert (due.letter.position, sorted(due.others), refused) == ("0/1", ["0/0", "0/2"], [])


def test_the_rest_of_a_recording_that_was_let_go_does_not_come_as_another() -> None:
    shelf = Shelf(2)
    for each in (letter(3), letter(4), letter(5), letter(6), letter(7), letter(0, "7.mp4"), letter(1)):
        shelf.add(each)
    assert places(shelf.oldest()) == ["0/1", "0/3"]
    assert not shelf.holds_all


def test_letters_of_a_megabyte_take_no_more_memory_than_small_ones() -> None:
    """The command may run beside a live pod, whose memory it shares."""
    held = 0

    def large(numbers: range) -> Iterator[DeadLetter]:
        for number in numbers:
            yield letter(number, payload=b"x" * 1024**2)

    shelf = Shelf(10_000)
    for each in large(range(100)):
        shelf.add(each)
        held = max(held, shelf.held_bytes)
    assert held <= 2 * due_letters.MOST_BYTES + 2 * 1024**2
    kept = shelf.oldest()
    assert places(kept) == [f"0/{number}" for number in range(len(kept))]
    assert 30 <= len(kept) <= 32


def test_events_that_come_from_the_source_topic_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_letters, "MOST_BYTES", 3_000)
    letters = [letter(number, payload=b"", left_out=LEFT_OUT) for number in range(10)]

    def fetched(each: DeadLetter) -> DeadLetter:
        return replace(each, payload=b"x" * 1_000, left_out="")

    sent = list(take(lambda: letters, fetched, lambda _: None, 10))
    assert len(sent) == 3
