"""Masking: what must never be read in a log, a header, an error sentence or a probe's answer."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from consumer.known_secrets import mask_known_secrets
from consumer.links import mask_links
from consumer.secret_names import MASK, is_secret_name
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
        return mask_urls(mask_text(self._without_known(text), sentences=True))

    def value(self, value: object) -> object:
        """Return `value` masked all the way down; what JSON does not know becomes its masked repr()."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self(value)
            case dict():
                return {self(str(key)): inner for key, inner in self.fields(value).items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(inner) for inner in value]
            case bytes():
                return self(value.decode("utf-8", "backslashreplace"))
            case _:
                return self(repr(value))

    def fields(self, fields: Mapping[Any, object]) -> dict[Any, object]:
        """Return the fields with masked values; a field named like a credential is masked whole."""
        return {name: self._field(str(name), value) for name, value in fields.items()}

    def _field(self, name: str, value: object) -> object:
        if is_secret_name(name) and value not in (None, ""):
            return MASK
        if name == "key" and isinstance(value, str):
            return mask_urls(mask_links(self._without_known(value)))  # a recording may be `u/token=1.mp4`
        return self.value(value)

    def _without_known(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        return mask_known_secrets(raw, self._secrets).decode("utf-8", "surrogatepass")
