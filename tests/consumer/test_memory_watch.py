"""The memory watch: which worker must end, and when none may."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import pytest

from consumer.cgroup import MemoryUse
from consumer.memory_watch import WORTH_ENDING_BYTES, MemoryWatch, judge

MIB = 1024**2
LIMIT = 1024 * MIB
SECONDS = 60.0


def test_a_worker_above_its_own_bound_is_ended_however_much_the_pod_has_left() -> None:
    verdict = judge({11: 300 * MIB, 12: 520 * MIB}, 512 * MIB, None)
    assert verdict is not None
    assert verdict.pid == 12
    assert "WORKER_MEMORY (512 MiB)" in verdict.why


def test_the_largest_worker_is_ended_before_the_pod_is_full() -> None:
    workers = {11: 300 * MIB, 12: 500 * MIB}
    assert judge(workers, LIMIT, MemoryUse(900 * MIB, LIMIT)) is None
    verdict = judge(workers, LIMIT, MemoryUse(930 * MIB, LIMIT))
    assert verdict is not None
    assert verdict.pid == 12
    assert "nearly full" in verdict.why


def test_a_pod_that_is_full_of_something_else_ends_no_worker() -> None:
    idle = {11: WORTH_ENDING_BYTES, 12: 100 * MIB}
    assert judge(idle, LIMIT, MemoryUse(1020 * MIB, LIMIT)) is None
    assert judge({}, LIMIT, MemoryUse(1020 * MIB, LIMIT)) is None


def hold(size_bytes: int, ready: object) -> None:
    """Run in a process: take memory and keep it."""
    held = bytearray(size_bytes)
    ready.send(len(held))  # type: ignore[attr-defined]  # a connection
    signal.pause()


@contextmanager
def holding(*sizes: int) -> Iterator[Sequence[BaseProcess]]:
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    try:
        for size in sizes:
            here, there = context.Pipe()
            process = context.Process(target=hold, args=(size, there), daemon=True)
            process.start()
            processes.append(process)
            assert here.poll(SECONDS)
        yield processes
    finally:
        for each in processes:
            each.kill()
            each.join()


def test_it_ends_the_largest_process_and_knows_why_and_no_second_one_before_the_first_has_gone() -> None:
    with holding(100 * MIB, 300 * MIB, 250 * MIB) as (small, large, second):
        pids = [process.pid or 0 for process in (small, large, second)]
        watch = MemoryWatch(LIMIT, lambda: pids, lambda: MemoryUse(1000 * MIB, LIMIT))
        watch.look()
        large.join(SECONDS)
        assert large.exitcode == -signal.SIGKILL
        assert small.is_alive() and second.is_alive()
        assert "nearly full" in (watch.why(pids[1]) or "")
        assert watch.why(pids[0]) is None
        assert 300 * MIB < watch.largest_bytes < 400 * MIB
        watch.look()
        second.join(SECONDS)
        assert second.exitcode == -signal.SIGKILL
        watch.look()
        assert small.is_alive(), "ending it would free nothing"


def test_processes_that_have_gone_are_forgotten() -> None:
    with holding(10 * MIB) as (process,):
        arrivals = [[process.pid or 0], [], []]
        watch = MemoryWatch(LIMIT, lambda: arrivals.pop(0), lambda: None)
        watch.look()
        assert watch.largest_bytes > 10 * MIB
        process.kill()
        process.join()
        watch.look()
        assert watch.largest_bytes == 0


def test_a_worker_that_gets_the_number_of_one_that_was_ended_is_judged_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    with holding(200 * MIB) as (process,), monkeypatch.context() as only_noted:
        only_noted.setattr(os, "kill", lambda pid, _signal: ended.append(pid))  # so that the number stays
        pid, full = process.pid or 0, MemoryUse(1000 * MIB, LIMIT)
        arrivals, used = [[pid], [pid], []], [full, MemoryUse(0, LIMIT), full]
        watch = MemoryWatch(LIMIT, lambda: arrivals.pop(0), lambda: used.pop(0))
        watch.look()
        assert watch.why(pid) is not None
        watch.look()
        assert watch.why(pid) is None, "nobody has ended this one"
        watch.look()
        assert ended == [pid, pid], "the number of an old one keeps nobody alive"
