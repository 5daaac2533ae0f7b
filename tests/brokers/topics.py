"""What tests ask of a broker's topics and groups; messages go in and out with consumer.topics."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its types forget what it offers
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic  # confluent_kafka.admin offers it, but its types do not say so

_SECONDS = 30.0
_SENSELESS = {
    (ResourceType.GROUP, AclOperation.WRITE),
    (ResourceType.TRANSACTIONAL_ID, AclOperation.READ),
}
"""Kafka refuses an ACL for what nobody can do."""


def create_topic(
    bootstrap: str,
    prefix: str,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
    *,
    exact: bool = False,
) -> str:
    """Create a topic of a name that no other test has (or exactly that name), and return the name."""
    name = prefix if exact else f"{prefix}-{uuid.uuid4().hex[:8]}"
    # The client must outlive the answer: one that is collected earlier takes its requests with it.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
    admin.create_topics([topic], operation_timeout=_SECONDS)[name].result(_SECONDS)
    return name


def committed_offsets(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Return the committed offset of each partition of a topic; partitions without one are left out."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    asked = ConsumerGroupTopicPartitions(group)
    answer = admin.list_consumer_group_offsets([asked])[group].result(_SECONDS)
    found: list[TopicPartition] = answer.topic_partitions or []
    return {each.partition: each.offset for each in found if each.topic == topic and each.offset >= 0}


def delete_before(bootstrap: str, topic: str, offset: int, partition: int = 0) -> None:
    """Move a partition's start to an offset, as retention does when a segment is too old."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    at = TopicPartition(topic, partition, offset)
    admin.delete_records([at])[at].result(_SECONDS)


def allow_all_but_create(bootstrap: str, user: str, *, transactions: bool = True) -> None:
    """Let a user read and write topics, join groups, and open transactions if so; for an authorizer."""
    operations = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE)
    kinds = [ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID]
    for kind in kinds if transactions else kinds[:-1]:
        allow(bootstrap, user, kind, "*", [each for each in operations if (kind, each) not in _SENSELESS])


def allow(
    bootstrap: str, user: str, kind: ResourceType, name: str, operations: Iterable[AclOperation]
) -> None:
    """Let a user do something with one topic, group or transactional id; for an authorizer.

    A name that ends in `*` means all that begin so.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    pattern = ResourcePatternType.LITERAL
    if name != "*" and name.endswith("*"):
        pattern, name = ResourcePatternType.PREFIXED, name[:-1]
    bindings = [
        AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    for created in admin.create_acls(bindings).values():
        created.result(_SECONDS)


@contextmanager
def without_write(bootstrap: str, user: str, topic: str) -> Iterator[None]:
    """Take the right to write to a topic away from a user, for a while; for an authorizer."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    who = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", AclOperation.WRITE)
    denied = AclBinding(*who, AclPermissionType.DENY)
    admin.create_acls([denied])[denied].result(_SECONDS)
    try:
        yield
    finally:
        same = AclBindingFilter(*who, AclPermissionType.DENY)
        admin.delete_acls([same])[same].result(_SECONDS)
