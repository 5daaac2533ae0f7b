"""Worker processes that may die or hang: pebble's pool, made anew when it breaks.

Processes are spawned, never forked: gRPC and librdkafka do not survive a fork. What crosses between
processes is JSON text in both directions.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import pebble
import structlog

from consumer.errors import Unforeseen, WorkerDied

_log = structlog.get_logger("vault-ml.pool")

TaskFunction = Callable[[str], str]
Answer = str | WorkerDied | Unforeseen


WATCHDOG_SECONDS = 30.0
"""An answer that is later than its time limit by so much got lost between the processes."""


@dataclass(frozen=True)
class _Submitted:
    future: Future[str]
    at: float


class WorkerPool:
    """Runs one function on tasks in N processes and collects the answers, in the order they come.

    Args:
        function: a module-level function, JSON text in, JSON text out; it must not raise.
        workers: number of processes.
        time_limit_seconds: a task that runs longer is hung: its process is ended and replaced.
        watchdog_seconds: see WATCHDOG_SECONDS.
    """

    def __init__(
        self,
        function: TaskFunction,
        *,
        workers: int,
        time_limit_seconds: float,
        watchdog_seconds: float = WATCHDOG_SECONDS,
    ) -> None:
        self._function = function
        self._workers = workers
        self._time_limit_seconds = time_limit_seconds
        # A task may wait in the pool for the one before it.
        self._patience_seconds = 2 * time_limit_seconds + watchdog_seconds
        self._submitted: dict[int, _Submitted] = {}
        self._answers: SimpleQueue[tuple[int, Answer]] = SimpleQueue()
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def under_way(self) -> int:
        """Tasks submitted whose answer has not been taken yet."""
        return len(self._submitted)

    def submit(self, ticket: int, task: str) -> None:
        """Queue a task; its answer comes back under the same ticket, which no other task may have had.

        Queue no more than one beside those that the workers have: the wait counts against the watchdog.
        """
        try:
            future = self._schedule(task)
        except RuntimeError:
            # pebble gives its pool up when a process dies while none has work (killed for memory, say).
            self._renew()
            future = self._schedule(task)
        self._submitted[ticket] = _Submitted(future, time.monotonic())
        future.add_done_callback(lambda done: self._answers.put((ticket, self._answer(done))))

    def take(self, wait_seconds: float = 0.0) -> tuple[int, Answer] | None:
        """Return the next answer with its ticket, or None when there is none in time."""
        if self._submitted and time.monotonic() - self._oldest() > self._patience_seconds:
            self._renew()
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                ticket, answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return None
            # A task that was answered for a broken pool may still be answered by it: once is enough.
            if self._submitted.pop(ticket, None) is not None:
                return ticket, answer

    def stop(self) -> None:
        """End the processes; tasks under way are dropped."""
        self._end(self._pool)

    def _oldest(self) -> float:
        return next(iter(self._submitted.values())).at

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
        return pebble.ProcessPool(max_workers=self._workers, context=multiprocessing.get_context("spawn"))

    def _schedule(self, task: str) -> Future[str]:
        # pebble starts its threads and processes with the first task; they inherit our mask of signals. A
        # Ctrl-C at a terminal goes to all processes, and is for the main one alone to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.schedule(self._function, args=(task,), timeout=self._time_limit_seconds)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _answer(self, future: Future[str]) -> Answer:
        if future.cancelled():
            return WorkerDied("The worker pool was stopped.")
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, TimeoutError):
            return WorkerDied(
                f"A worker was still busy after {self._time_limit_seconds:g} s and was ended "
                "(RECORDING_TIME_LIMIT)."
            )
        if isinstance(error, pebble.ProcessExpired | BrokenProcessPool):
            return WorkerDied(f"A worker process died on it ({error}).")
        # A fault of ours: it must cost this recording, not the service.
        _log.error("a worker failed in a way that nobody foresaw", exc_info=error)
        return Unforeseen(f"A worker failed on it: {type(error).__name__}: {error}")
