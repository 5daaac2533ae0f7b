"""Headers of a Kafka message that was received: names and values as anybody may have written them."""

from operator import methodcaller

import structlog
from confluent_kafka import Message

_log = structlog.get_logger("vault-ml.headers")

_HEADERS = methodcaller("headers")
"""Calls from C. Where a name is not UTF-8 the client gives a result and sets an exception, both. A call from
C sees that; one that the interpreter has specialised (PEP 659) does not: it comes up at some later line."""


def headers_of(message: Message) -> tuple[tuple[str, bytes], ...]:
    """Return the headers in their order, or none where a name is not UTF-8: the client cannot show those.

    To be called once for a message: the second time the client gives what it did not finish, and dies of it.
    A message is not lost for its headers. Seen with confluent-kafka 2.16, `rd_kafka_producev` and the name
    `\\xff`.
    """
    try:
        headers: list[tuple[str, bytes | None]] = _HEADERS(message) or []
    except (SystemError, UnicodeDecodeError):
        _log.warning(
            "headers cannot be read, going on without",
            source=f"{message.topic()}/{message.partition()}/{message.offset()}",
        )
        return ()
    return tuple((name, value or b"") for name, value in headers)
