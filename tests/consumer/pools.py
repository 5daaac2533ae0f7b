"""What tests of the worker pool share."""

import time

from consumer.pool import Answer, WorkerPool

DEADLINE_SECONDS = 60.0


def answers(pool: WorkerPool, count: int) -> dict[int, Answer]:
    """Return that many answers by their tickets, or as many as came in time."""
    got: dict[int, Answer] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(got) < count and time.monotonic() < deadline:
        answer = pool.take(wait_seconds=0.1)
        if answer is not None:
            got[answer[0]] = answer[1]
    return got
