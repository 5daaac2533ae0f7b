"""`vault-ml` in a group that hears of its members often: who does not poll for 2.5 s loses its partitions.

    python -m tests.hasty_pod run

librdkafka wants max.poll.interval.ms (300 s by default) to be no shorter than session.timeout.ms.
"""

from functools import partial

from consumer import run
from consumer.stream import EventSource

POLL_INTERVAL_SECONDS = 2.5

if __name__ == "__main__":
    from consumer.cli import main

    milliseconds = round(POLL_INTERVAL_SECONDS * 1000)
    hasty = {
        "max.poll.interval.ms": milliseconds,
        "session.timeout.ms": milliseconds,
        "heartbeat.interval.ms": milliseconds // 5,
    }
    run.EventSource = partial(EventSource, properties=hasty)  # type: ignore[attr-defined,assignment]  # narrowly, for a test
    main()
