"""What each field of an object is, by its name and its place: a secret, an identifier, or anything else.

Identifiers name a recording, its camera, its device and its storage. Readers look things up under them, so
they go on as they came, but for logins in links and our own settings: a camera may be called
`Brenner Pass: north`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from consumer.known_secrets import mask_known_text
from consumer.links import mask_links
from consumer.secret_names import is_secret_name, names_secrets

IDENTIFIERS = frozenset(
    {
        "event-instancename", "deviceName", "deviceId", "deviceKey", "fileName", "organisationId",
        "productid", "publickey", "traceId",
    }
)  # fmt: skip
"""At any place; uug-ai/models pkg/models/pipeline.go and uug-ai/cli queue/main.go have these names."""

_NAMING, _NAMED = ("name", "key", "header", "field", "id", "k"), ("value", "val", "v")
"""`{"name": "Authorization", "value": "..."}`: how lists of headers and forms are written."""
_PAIR = 2


class Kind(Enum):
    """What becomes of a field."""

    SECRET = auto()
    """Has a value behind a name that says so. What tells nothing (`hasPassword: true`, null, "") is OTHER."""
    IDENTIFIER = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Place:
    """An object that we know: what is an identifier in it besides `IDENTIFIERS`, and the objects inside."""

    identifiers: frozenset[str] = frozenset()
    inner: Mapping[str, "Place"] = field(default_factory=dict)


ANYWHERE = Place()
LOG_LINE = Place(frozenset({"key", "camera"}))
_PAYLOAD = Place(frozenset({"key"}))
"""Elsewhere `key` may be a private key, as in `tls.key`."""
_UNWRAPPED = Place(
    frozenset({"source", "provider", "secondary_providers", "bucket", "region", "events"}),
    {"payload": _PAYLOAD},
)
EVENT = Place(_UNWRAPPED.identifiers, {"payload": _PAYLOAD, "message": _UNWRAPPED})


def kinds(fields: Mapping[Any, Any], place: Place) -> Iterator[tuple[Any, Any, Kind]]:
    """Yield each field's name, its value and what it is."""
    named = any(
        isinstance(item, str) and str(name).lower() in _NAMING and is_secret_name(item)
        for name, item in fields.items()
    )
    for name, item in fields.items():
        told = str(name)
        if told in IDENTIFIERS or told in place.identifiers:
            yield name, item, Kind.IDENTIFIER
        elif (_is_secret(told, item) or (named and told.lower() in _NAMED)) and not _tells_nothing(item):
            yield name, item, Kind.SECRET
        else:
            yield name, item, Kind.OTHER


def is_pair(value: object) -> bool:
    """Tell whether an entry of a list is a secret with its name in front: `["X-Api-Key", "..."]`."""
    return (
        isinstance(value, list | tuple)
        and len(value) == _PAIR
        and all(isinstance(each, str) for each in value)
        and is_secret_name(value[0])
        and value[1] != ""
    )


def _is_secret(name: str, item: object) -> bool:
    return is_secret_name(name) or (names_secrets(name) and not isinstance(item, int | float))


def _tells_nothing(value: object) -> bool:
    """Tell whether no secret can be read from a value; a number may be one (a PIN)."""
    return isinstance(value, bool | None) or (isinstance(value, str | list | dict | tuple) and not value)


def mask_identifier(text: str, known_secrets: Collection[str] = ()) -> str:
    """Return an identifier without logins in links and without our own secrets, and else as it is."""
    return mask_known_text(mask_links(text), known_secrets)
