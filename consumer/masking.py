"""Masking: what must never be read in a log, a header, an error sentence or a probe's answer."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from consumer.known_secrets import mask_known_text
from consumer.secret_fields import ANYWHERE, LOG_LINE, Kind, Place, is_pair, kinds, mask_identifier
from consumer.secret_names import MASK
from consumer.secret_text import mask_text

_USER_IN_URL = re.compile(r"(?<=://)[^/\s\"'<>@]+@")
# A signed link is a password: what follows `?` is dropped, in whole URLs and in the paths that urllib3 logs.
_QUERY = re.compile(r"(?<=[^\s\"'<>?])\?[^\s\"'<>?=&]+=[^\s\"'<>]*")


def mask_urls(text: str) -> str:
    """Return `text` with users in URLs and query strings replaced by ***, whether they are secret or not."""
    return _QUERY.sub(f"?{MASK}", _USER_IN_URL.sub(f"{MASK}@", text))


class Masker:
    """Replaces given secrets, values behind names of credentials, and the telling parts of URLs, in text.

    Args:
        secrets: values in force; recognised as `mask_known_secrets` says.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)

    def __call__(self, text: str) -> str:
        """Return `text` with secrets, credentials, users in URLs and query strings replaced by ***."""
        return mask_urls(mask_text(mask_known_text(text, self._secrets), sentences=True))

    def value(self, value: object) -> object:
        """Return `value` masked all the way down; what JSON does not know becomes its masked repr()."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self(value)
            case dict():
                return {self(str(key)): inner for key, inner in self._fields(value, ANYWHERE).items()}
            case list() | tuple() | set() | frozenset():
                return [[inner[0], MASK] if is_pair(inner) else self.value(inner) for inner in value]
            case bytes():
                return self(value.decode("utf-8", "backslashreplace"))
            case _:
                return self(repr(value))

    def fields(self, fields: Mapping[Any, object]) -> dict[Any, object]:
        """Return a log line's fields with masked values; a field named like a credential is masked whole."""
        return self._fields(fields, LOG_LINE)

    def _fields(self, fields: Mapping[Any, object], place: Place) -> dict[Any, object]:
        return {name: self._field(value, kind) for name, value, kind in kinds(fields, place)}

    def _field(self, value: object, kind: Kind) -> object:
        if kind is Kind.SECRET:
            return MASK
        if kind is Kind.IDENTIFIER and isinstance(value, str):
            return mask_urls(mask_identifier(value, self._secrets))
        return self.value(value)
