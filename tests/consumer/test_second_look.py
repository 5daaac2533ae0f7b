"""A second look never stands in the way of the first: it fails instead, and says why."""

from concurrent.futures import Future

import numpy as np
import pytest

from consumer import second_look
from consumer.errors import InferenceFailed
from consumer.second_look import SecondLook
from consumer.triton_client import FrameBatch, FrameRows, PendingAnswer

BATCH = np.zeros((2, 96, 96), np.uint8)


class Server:
    """Holds the requests until a test answers them."""

    def __init__(self) -> None:
        self.asked: list[PendingAnswer] = []

    def begin(self, _batch: FrameBatch) -> PendingAnswer:
        self.asked.append(PendingAnswer())
        return self.asked[-1]

    def answer(self, number: int) -> list[FrameRows]:
        rows = [FrameRows(np.full((1, 6), number * 10 + n, np.float32), "2", 0.1) for n in range(2)]
        self.future(number).set_result(rows)
        return rows

    def future(self, number: int) -> "Future[list[FrameRows]]":
        return self.asked[number].future


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def taken() -> list[FrameRows]:
    return []


@pytest.fixture
def look(server: Server, taken: list[FrameRows]) -> SecondLook:
    return SecondLook(server.begin, taken.append)


def test_answers_are_taken_in_the_order_of_the_frames(
    server: Server, look: SecondLook, taken: list[FrameRows]
) -> None:
    look.offer(BATCH)
    look.offer(BATCH)
    late, early = server.answer(1), server.answer(0)
    look.finish(patience_seconds=5.0)
    assert taken == early + late
    assert look.failed is None


def test_answers_that_are_there_are_taken_before_the_next_batch_goes_out(
    server: Server, look: SecondLook, taken: list[FrameRows]
) -> None:
    look.offer(BATCH)
    first = server.answer(0)
    assert taken == []
    look.offer(BATCH)
    assert taken == first


def test_one_that_is_not_there_in_time_is_given_up_and_the_server_is_told(
    server: Server, look: SecondLook, taken: list[FrameRows]
) -> None:
    look.offer(BATCH)
    look.finish(patience_seconds=0.0)
    assert look.failed == "timeout"
    assert server.future(0).cancelled()
    assert taken == []


def test_a_failure_ends_it_and_no_further_frames_are_sent(server: Server, look: SecondLook) -> None:
    look.offer(BATCH)
    server.future(0).set_exception(InferenceFailed("no"))
    look.offer(BATCH)
    assert look.failed == "inference_failed"
    look.offer(BATCH)
    assert len(server.asked) == 1


def test_one_that_falls_behind_is_given_up_before_its_frames_fill_the_memory(
    server: Server, look: SecondLook
) -> None:
    for _ in range(100):
        look.offer(BATCH)
    assert look.failed == "behind"
    assert len(server.asked) == second_look.MAX_BATCHES_BEHIND
    assert all(pending.future.cancelled() for pending in server.asked)


def test_what_is_under_way_is_cancelled_when_the_first_look_fails(server: Server, look: SecondLook) -> None:
    with pytest.raises(InferenceFailed), look:
        look.offer(BATCH)
        raise InferenceFailed("the first look")
    assert server.future(0).cancelled()
