"""The worker pool: a process may die or hang, the service does not notice more than one failed try."""

import itertools
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from consumer.errors import WorkerDied, WorkerTooLarge
from consumer.limits import WorkerLimits
from consumer.pool import Answer, WorkerPool
from tests.consumer.pools import DEADLINE_SECONDS, answers

MIB = 1024**2


def behave(task: str) -> str:
    """Run in a worker: do what the task says."""
    match task:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
        case "hang":
            threading.Event().wait()
        case "raise":
            raise ValueError("nobody foresaw this")
        case "pid":
            return str(os.getpid())
        case "grow":
            grown = []
            while True:
                grown.append(bytearray(b"x") * (8 * MIB))
                time.sleep(0.01)
        case "ask for much":
            return str(len(bytearray(2048 * MIB)))
        case "leak":
            leaked = []
            while True:
                leaked.append(os.open(os.devnull, os.O_RDONLY))
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "a while":
            time.sleep(0.7)
    return task.upper()


def test_a_worker_that_is_killed_costs_its_own_task_only() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=30.0) as pool:
        for ticket, task in enumerate(["one", "die", "two"]):
            pool.submit(ticket, task)
        got = answers(pool, 3)
    assert got[0] == "ONE"
    assert isinstance(got[1], WorkerDied)
    assert got[2] == "TWO"


def test_a_worker_that_hangs_is_ended_at_the_time_limit() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=1.0) as pool:
        pool.submit(0, "hang")
        pool.submit(1, "after")
        got = answers(pool, 2)
    assert isinstance(got[0], WorkerDied)
    assert "RECORDING_TIME_LIMIT" in str(got[0])
    assert got[1] == "AFTER"


def test_a_wall_clock_that_is_set_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=30.0) as pool:
        pool.submit(0, "warm")
        answers(pool, 1)
        real, hours = time.time, itertools.count()
        monkeypatch.setattr(time, "time", lambda: real() + 3600.0 * next(hours))
        pool.submit(1, "a while")
        assert answers(pool, 1)[1] == "A WHILE"


def test_an_unforeseen_exception_comes_back_and_does_not_vanish() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=30.0) as pool:
        pool.submit(0, "raise")
        got = answers(pool, 1)
    assert "nobody foresaw this" in str(got[0])


def test_the_pool_goes_on_when_an_idle_worker_is_killed() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=30.0) as pool:
        pool.submit(0, "pid")
        pid = answers(pool, 1)[0]
        assert isinstance(pid, str)
        os.kill(int(pid), signal.SIGKILL)
        got: dict[int, Answer] = {}
        deadline, ticket = time.monotonic() + DEADLINE_SECONDS, 1
        while got.get(ticket) != "AGAIN" and time.monotonic() < deadline:
            ticket += 1
            pool.submit(ticket, "again")
            got = answers(pool, 1)
        assert got == {ticket: "AGAIN"}


def test_workers_do_not_outlive_the_pool() -> None:
    with WorkerPool(behave, workers=2, time_limit_seconds=30.0) as pool:
        pool.submit(0, "pid")
        pid = answers(pool, 1)[0]
        assert isinstance(pid, str)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110  /proc, not a file
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110  as above


def test_a_task_that_the_pool_lost_is_answered_by_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=0.5, watchdog_seconds=0.5) as pool:
        # As pebble does with a task queued in the moment in which it gives itself up: no answer, ever.
        monkeypatch.setattr(pool, "_schedule", lambda task: Future())
        pool.submit(1, "lost")
        monkeypatch.undo()
        assert isinstance(answers(pool, 1)[1], WorkerDied)
        pool.submit(2, "after")
        assert answers(pool, 1)[2] == "AFTER"


def test_waiting_for_a_worker_does_not_count_against_the_time_limit() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=1.4) as pool:
        for ticket in range(4):
            pool.submit(ticket, "a while")
        assert set(answers(pool, 4).values()) == {"A WHILE"}, "the last one waited for more than its limit"


def test_a_worker_that_grows_is_ended_and_replaced_and_its_neighbour_goes_on() -> None:
    with WorkerPool(behave, workers=2, time_limit_seconds=60.0, limits=WorkerLimits(256 * MIB)) as pool:
        pool.submit(0, "grow")
        pool.submit(1, "a while")
        pool.submit(2, "after")
        got = answers(pool, 3)
    assert isinstance(got[0], WorkerTooLarge)
    assert "more than WORKER_MEMORY (256 MiB)" in str(got[0])
    assert (got[1], got[2]) == ("A WHILE", "AFTER")


def test_a_worker_that_asks_for_more_than_it_may_have_is_replaced() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=60.0, limits=WorkerLimits(256 * MIB)) as pool:
        pool.submit(0, "pid")
        pool.submit(1, "ask for much")
        pool.submit(2, "pid")
        got = answers(pool, 3)
    assert isinstance(got[1], WorkerTooLarge)
    assert got[0] != got[2], "what else went wrong in the old process, nobody knows"


def test_a_worker_that_has_too_many_files_open_is_replaced() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=60.0, limits=WorkerLimits(256 * MIB)) as pool:
        pool.submit(0, "leak")
        pool.submit(1, "after")
        got = answers(pool, 2)
    assert "too many files" in str(got[0])
    assert got[1] == "AFTER"


def test_a_decoder_that_crashes_is_no_question_of_memory() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=60.0, limits=WorkerLimits(256 * MIB)) as pool:
        pool.submit(0, "segfault")
        pool.submit(1, "after")
        got = answers(pool, 2)
    assert isinstance(got[0], WorkerDied) and not isinstance(got[0], WorkerTooLarge)
    assert got[1] == "AFTER"


def test_a_task_that_waited_while_an_idle_worker_was_ended_is_not_blamed() -> None:
    with WorkerPool(behave, workers=1, time_limit_seconds=60.0) as pool:
        pool.submit(0, "pid")
        pid = answers(pool, 1)[0]
        assert isinstance(pid, str)
        os.kill(int(pid), signal.SIGSTOP)  # so that it does not take the task before it is ended
        pool.submit(1, "after")
        os.kill(int(pid), signal.SIGKILL)
        assert answers(pool, 1) == {1: "AFTER"}
