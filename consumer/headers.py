"""Headers of a Kafka message that was received: names and values as anybody may have written them."""

from typing import cast

import structlog
from confluent_kafka import Message

_log = structlog.get_logger("vault-ml.headers")


def headers_of(message: Message) -> tuple[tuple[str, bytes], ...]:
    """Return the headers in their order, or none where a name is not UTF-8: the client cannot show those.

    A message is not lost for its headers. confluent-kafka 2.16 raises SystemError there, seen with
    `rd_kafka_producev` and the name `\\xff`.
    """
    try:
        # What has been received is always a list of pairs; the declared type is that of what may be sent.
        headers = cast(list[tuple[str, bytes | None]], message.headers() or [])
    except (SystemError, UnicodeDecodeError):
        _log.warning(
            "headers cannot be read, going on without",
            source=f"{message.topic()}/{message.partition()}/{message.offset()}",
        )
        return ()
    return tuple((name, value or b"") for name, value in headers)
