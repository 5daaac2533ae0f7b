"""Worker processes that may die, hang or grow: pebble's pool, made anew when it breaks.

Processes are spawned, never forked: gRPC and librdkafka do not survive a fork. What crosses between
processes is JSON text in both directions.
"""

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import pebble
import structlog

from consumer.errors import Unforeseen, WorkerDied, WorkerTooLarge
from consumer.limits import WorkerLimits, confine
from consumer.memory_watch import MemoryWatch

_log = structlog.get_logger("vault-ml.pool")

TaskFunction = Callable[[str], str]
Answer = str | WorkerDied | Unforeseen


_LOOK_SECONDS = 0.5
"""Between two looks for a task that has had its time, while somebody waits for an answer."""

WATCHDOG_SECONDS = 30.0
"""An answer that is later than its time limit by so much got lost between the processes."""

TOO_LARGE_STATUS, TOO_MANY_FILES_STATUS = 76, 77
"""Exit statuses of a worker that could not have the memory, or one more file, that it asked for."""


@dataclass(frozen=True)
class _Submitted:
    task: str
    future: Future[str]
    at: float
    tries: int


class _Broken(WorkerDied):
    """The pool broke while no worker was known to have the task."""


class WorkerPool:
    """Runs one function on tasks in N processes and collects the answers, in the order they come.

    Args:
        function: a module-level function, JSON text in, JSON text out; it must not raise.
        workers: number of processes.
        time_limit_seconds: a task that runs longer is hung: its process is ended and replaced. The time that
            it waits for a worker does not count.
        limits: of memory and open files for each worker; None for none.
        watchdog_seconds: see WATCHDOG_SECONDS.
    """

    def __init__(
        self,
        function: TaskFunction,
        *,
        workers: int,
        time_limit_seconds: float,
        limits: WorkerLimits | None = None,
        watchdog_seconds: float = WATCHDOG_SECONDS,
    ) -> None:
        self._function = partial(_run, function)
        self._limits = limits
        self._workers = workers
        self._time_limit_seconds = time_limit_seconds
        # A task may wait in the pool for the one before it.
        self._patience_seconds = 2 * time_limit_seconds + watchdog_seconds
        self._submitted: dict[int, _Submitted] = {}
        self._running_since: dict[Future[str], float] = {}
        self._overdue: set[Future[str]] = set()
        self._answers: SimpleQueue[tuple[int, Answer]] = SimpleQueue()
        self._hello, self._arrived = multiprocessing.Pipe(duplex=False)
        self._watch = None if limits is None else MemoryWatch(limits.memory_bytes, self._arrivals)
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        if self._watch is not None:
            self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._watch is not None:
            self._watch.__exit__(kind, value, trace)
        self._hello.close()
        self._arrived.close()

    @property
    def largest_worker_bytes(self) -> int:
        """Resident memory of the largest worker, looked at a moment ago; 0 where nobody watches."""
        return 0 if self._watch is None else self._watch.largest_bytes

    @property
    def under_way(self) -> int:
        """Tasks submitted whose answer has not been taken yet."""
        return len(self._submitted)

    def submit(self, ticket: int, task: str) -> None:
        """Queue a task; its answer comes back under the same ticket, which no other task may have had.

        Queue no more than one beside those that the workers have: the wait counts against the watchdog.
        """
        self._submit(ticket, task, tries=1)

    def _submit(self, ticket: int, task: str, tries: int) -> None:
        try:
            future = self._schedule(task)
        except RuntimeError:
            # pebble gives its pool up when a process dies while none has work (ended for its memory, say).
            self._renew()
            future = self._schedule(task)
        self._submitted[ticket] = _Submitted(task, future, time.monotonic(), tries)
        future.add_done_callback(lambda done: self._answers.put((ticket, self._answer(done))))

    def take(self, wait_seconds: float = 0.0) -> tuple[int, Answer] | None:
        """Return the next answer with its ticket, or None when there is none in time."""
        if self._submitted and time.monotonic() - self._oldest() > self._patience_seconds:
            self._renew()
        deadline = time.monotonic() + wait_seconds
        while True:
            self._end_overdue()
            left = max(0.0, deadline - time.monotonic())
            try:
                ticket, answer = self._answers.get(timeout=min(left, _LOOK_SECONDS))
            except Empty:
                if left <= _LOOK_SECONDS:
                    return None
                continue
            # A task that was answered for a broken pool may still be answered by it: once is enough.
            submitted = self._submitted.pop(ticket, None)
            if submitted is None:
                continue
            self._running_since.pop(submitted.future, None)
            self._overdue.discard(submitted.future)
            if isinstance(answer, _Broken):
                if submitted.tries == 1:
                    # It waited while an idle worker was ended: that says nothing of it.
                    self._submit(ticket, submitted.task, tries=2)
                    continue
                answer = WorkerDied(str(answer))
            return ticket, answer

    def stop(self) -> None:
        """End the processes; tasks under way are dropped."""
        self._end(self._pool)

    def _oldest(self) -> float:
        return next(iter(self._submitted.values())).at

    def _end_overdue(self) -> None:
        """End the workers of tasks that have had their time.

        pebble would do it, by the wall clock: one that is set an hour ahead would end every worker.
        """
        now = time.monotonic()
        for future in [submitted.future for submitted in self._submitted.values()]:
            if (
                future.running()
                and now - self._running_since.setdefault(future, now) > self._time_limit_seconds
            ):
                self._overdue.add(future)
                future.cancel()

    def _renew(self) -> None:
        """Make the pool anew; what the old one did not answer is answered for it."""
        self._end(self._pool)
        for ticket, submitted in self._submitted.items():
            if not submitted.future.done():
                self._answers.put((ticket, WorkerDied("The worker pool broke and was made anew.")))
        self._pool = self._new_pool()

    @staticmethod
    def _end(pool: pebble.ProcessPool) -> None:
        pool.stop()  # type: ignore[no-untyped-call]  # pebble types most of its calls, not this one
        pool.join()

    def _new_pool(self) -> pebble.ProcessPool:
        # glibc gives each thread an arena of its own; with the threads of gRPC and decoders that come and go,
        # those fragment, and a worker grows by half over hundreds of recordings. Read at a process's start.
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")
        return pebble.ProcessPool(
            max_workers=self._workers,
            context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            # With the function comes all that it imports, before the limits count what is there.
            initargs=(self._function, self._limits, self._arrived),
        )

    def _arrivals(self) -> Iterator[int]:
        while self._hello.poll():
            yield int(self._hello.recv_bytes())

    def _schedule(self, task: str) -> Future[str]:
        # pebble starts its threads and processes with the first task; they inherit our mask of signals. A
        # Ctrl-C at a terminal goes to all processes, and is for the main one alone to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.schedule(self._function, args=(task,))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _answer(self, future: Future[str]) -> Answer:
        if future in self._overdue:
            return WorkerDied(
                f"A worker was still busy after {self._time_limit_seconds:g} s and was ended "
                "(RECORDING_TIME_LIMIT)."
            )
        if future.cancelled():
            return WorkerDied("The worker pool was stopped.")
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, BrokenProcessPool):
            return _Broken(f"The worker pool broke ({error}).")
        if isinstance(error, pebble.ProcessExpired):
            return self._why_expired(error)
        # A fault of ours: it must cost this recording, not the service.
        _log.error("a worker failed in a way that nobody foresaw", exc_info=error)
        return Unforeseen(f"A worker failed on it: {type(error).__name__}: {error}")

    def _why_expired(self, error: pebble.ProcessExpired) -> WorkerDied:
        why = None if self._watch is None else self._watch.why(error.pid)
        if why is not None:
            return WorkerTooLarge(why)
        if error.exitcode == TOO_LARGE_STATUS:
            return WorkerTooLarge(
                "A worker asked for more memory than WORKER_MEMORY lets it have, and ended."
            )
        if error.exitcode == TOO_MANY_FILES_STATUS:
            return WorkerDied("A worker had too many files open, and ended.")
        return WorkerDied(f"A worker process died on it (status {error.exitcode}).")


def _begin(_function: TaskFunction, limits: WorkerLimits | None, arrived: Connection) -> None:
    """Run in each worker before its first task."""
    if limits is not None:
        confine(limits)
        # Whole or not at all, as it is shorter than PIPE_BUF: no lock that a worker could die with.
        arrived.send_bytes(str(os.getpid()).encode())


def _run(function: TaskFunction, task: str) -> str:
    try:
        return function(task)
    except MemoryError:
        os._exit(TOO_LARGE_STATUS)  # what else in this process met the same refusal, nobody knows
    except OSError as error:
        if error.errno == errno.EMFILE:
            os._exit(TOO_MANY_FILES_STATUS)
        raise
