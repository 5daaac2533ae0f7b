"""Masking: what must never be read in a log, a header, an error sentence or a probe's answer."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from consumer.credentials import MASK, is_secret_name

SHORTEST_SECRET = 4
"""Characters. Shorter values ("xxx", "on") occur in ordinary words; masking them would garble the text."""

_USER_IN_URL = re.compile(r"(?<=://)[^/\s\"'<>@]+@")
# A signed link is a password: what follows `?` is dropped, in whole URLs and in the paths that urllib3 logs.
_QUERY = re.compile(r"(?<=[^\s\"'<>?])\?[^\s\"'<>?=&]+=[^\s\"'<>]*")


class Masker:
    """Replaces given secrets, and the telling parts of URLs, in text.

    Args:
        secrets: values in force; each is also recognised quoted for JSON, for Python and for a URL.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        # Longest first: a secret that begins with another one must not leave its tail behind.
        ordered = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """Return `text` with secrets, users in URLs and query strings replaced by ***."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return _QUERY.sub(f"?{MASK}", _USER_IN_URL.sub(f"{MASK}@", text))

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
        return {
            name: MASK if is_secret_name(str(name)) and value not in (None, "") else self.value(value)
            for name, value in fields.items()
        }


def _forms(secret: str) -> set[str]:
    """Return the secret as it looks inside JSON, repr() and URLs."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
    }
