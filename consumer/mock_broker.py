"""A Kafka broker inside this process, for the demonstration and for fast tests: librdkafka's mock cluster.

It listens on a real socket of 127.0.0.1, so that other processes can use it, and is there in milliseconds.
It knows consumer groups, but no admin API and no isolated transactions, and keeps about 5 MB of a partition
in memory: no promise of delivery rests on it. Those are tested on Apache Kafka itself.

The functions are those of librdkafka's src/rdkafka_mock.h; confluent-kafka's wheel exports them, but its
Python API does not offer them.
"""

import ctypes
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, cimpl

from consumer.errors import SetupError

_PRODUCER = 0  # rd_kafka_type_t
_REASON_BYTES = 512


class MockBroker:
    """A mock cluster of one broker, as a context manager.

    Args:
        topics: name -> number of partitions, for the topics that exist from the start. Any other topic comes
            into being with four partitions when a client first asks for it.

    Raises:
        SetupError: librdkafka could not start it.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._topics = dict(topics or {})
        self.library = _librdkafka()
        self._client: int | None = None

    def __enter__(self) -> Self:
        """Start the broker and create its topics."""
        self._client = _start(self.library)
        for name, partitions in self._topics.items():
            self.create_topic(name, partitions)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the broker; its messages are gone."""
        if self._client is not None:
            self.library.rd_kafka_destroy(self._client)
            self._client = None

    @property
    def cluster(self) -> int:
        """Address of the `rd_kafka_mock_cluster_t`: what librdkafka's fault injection asks for."""
        if self._client is None:
            raise SetupError("The mock broker is not running: use it inside its `with` block.")
        address: int = self.library.rd_kafka_handle_mock_cluster(self._client)
        return address

    @property
    def bootstrap(self) -> str:
        """`host:port`, as it stands in KAFKA_BROKER."""
        addresses: bytes = self.library.rd_kafka_mock_cluster_bootstraps(self.cluster)
        return addresses.decode()

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic.

        Raises:
            SetupError: it is there already, or librdkafka refuses its name or size.
        """
        code: int = self.library.rd_kafka_mock_topic_create(self.cluster, name.encode(), partitions, 1)
        if code != KafkaError.NO_ERROR:
            raise SetupError(f"The mock broker cannot create the topic {name}: {KafkaError(code).str()}.")


def _librdkafka() -> ctypes.CDLL:
    """Return the librdkafka that confluent-kafka is linked to, with the signatures of what is called here."""
    # Loading the extension module a second time is free; its symbols include those of what it links.
    library = ctypes.CDLL(cimpl.__file__)
    address, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "rd_kafka_conf_new": (address, []),
        "rd_kafka_conf_set": (number, [address, text, text, text, ctypes.c_size_t]),
        "rd_kafka_conf_destroy": (None, [address]),
        "rd_kafka_new": (address, [number, address, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [address]),
        "rd_kafka_handle_mock_cluster": (address, [address]),
        "rd_kafka_mock_cluster_bootstraps": (text, [address]),
        "rd_kafka_mock_topic_create": (number, [address, text, number, number]),
    }
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise SetupError(
            f"This build of confluent-kafka hides the mock cluster ({error}): install its wheel from PyPI."
        ) from error
    return library


def _start(library: ctypes.CDLL) -> int:
    """Start the client that carries the mock cluster and return its address (`rd_kafka_t`)."""
    reason = ctypes.create_string_buffer(_REASON_BYTES)
    configuration = library.rd_kafka_conf_new()
    # log_level 0: the mock cluster's remarks on its own clients are of no use to the person in front of it.
    for name, value in {"test.mock.num.brokers": "1", "log_level": "0"}.items():
        if library.rd_kafka_conf_set(configuration, name.encode(), value.encode(), reason, len(reason)) != 0:
            library.rd_kafka_conf_destroy(configuration)
            raise SetupError(f"The mock broker does not start: {reason.value.decode()}.")
    client: int | None = library.rd_kafka_new(_PRODUCER, configuration, reason, len(reason))
    if client is None:
        library.rd_kafka_conf_destroy(configuration)
        raise SetupError(f"The mock broker does not start: {reason.value.decode()}.")
    return client
