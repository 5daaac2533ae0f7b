"""What is secret in an event, taken out before anything leaves the program.

Two kinds: values under a name that says so (`secret_names`), and links that open a door by themselves
(`links`), under whatever name. JSON is taken apart and each value looked at, strings that hold JSON included;
what is no JSON is searched as text (`secret_text`). A recording's name (`key`) may hold `token=1`: only links
are masked in it. The stages' state, such as `monitorStage`, is kept (later stages read it); what is secret
inside it is taken out as everywhere else.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from consumer.known_secrets import mask_known_secrets
from consumer.links import mask_links
from consumer.secret_names import MASK, is_secret_name
from consumer.secret_text import mask_text

_JSON_IN_STRINGS = 3
"""Levels that are parsed: JSON in a string of JSON in a string, and once more; below that it is text."""

_NAMING, _NAMED = ("name", "key", "header", "field"), ("value", "val")
"""`{"name": "Authorization", "value": "..."}`: how lists of headers and forms are written."""


def remove_credentials(event: Mapping[str, Any], known_secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return a copy of an event without its credentials: secret names left out, strings masked.

    Args:
        event: parsed.
        known_secrets: values of our own settings, masked in every string and name.
    """
    return _Cleaning(leave_out=True, known_secrets=tuple(known_secrets)).fields(event, _JSON_IN_STRINGS)


def mask_payload(payload: bytes, known_secrets: Collection[str] = ()) -> bytes:
    """Return a message with its credentials masked, still of the same shape and good for a replay.

    JSON is masked by name at any depth; anything else (also JSON with a name twice in one object) as text, as
    well as possible. A message without credentials comes back byte for byte.

    Args:
        payload: the value of a message, JSON or not.
        known_secrets: values of our own settings, masked wherever they stand.
    """
    try:
        parsed = json.loads(payload, object_pairs_hook=_each_name_once)
        masked = _MASKING.value(parsed, _JSON_IN_STRINGS)
        if masked != parsed:
            payload = json.dumps(masked).encode()
    except (ValueError, RecursionError):
        # Latin-1 gives every byte one character and back, so that what is not masked stays as it was.
        payload = mask_text(payload.decode("latin-1")).encode("latin-1")
    return mask_known_secrets(payload, known_secrets)


@dataclass(frozen=True)
class _Cleaning:
    """A walk through parsed JSON.

    leave_out: secret names are left out of objects, not masked.
    known_secrets: masked by value in every string.
    """

    leave_out: bool = False
    known_secrets: tuple[str, ...] = ()

    def value(self, value: Any, levels: int) -> Any:  # noqa: ANN401  # any JSON value
        if isinstance(value, Mapping):
            return self.fields(value, levels)
        if isinstance(value, list):
            return [self.value(item, levels) for item in value]
        return self._string(value, levels) if isinstance(value, str) else value

    def fields(self, fields: Mapping[Any, Any], levels: int) -> dict[Any, Any]:
        named = any(
            isinstance(item, str) and name.lower() in _NAMING and is_secret_name(item)
            for name, item in fields.items()
        )
        clean: dict[Any, Any] = {}
        for name, item in fields.items():
            # An empty value tells nothing, and null stays null, so that the types survive a replay.
            if is_secret_name(name) or (named and name.lower() in _NAMED):
                if not self.leave_out:
                    clean[name] = item if item in (None, "") else MASK
            elif name == "key" and isinstance(item, str):
                clean[name] = self._without_known(mask_links(item))
            else:
                clean[self._without_known(name)] = self.value(item, levels)
        return clean

    def _string(self, text: str, levels: int) -> str:
        return self._without_known(_masked_string(text, levels))

    def _without_known(self, text: str) -> str:
        if not self.known_secrets:
            return text
        raw = text.encode("utf-8", "surrogatepass")
        return mask_known_secrets(raw, self.known_secrets).decode("utf-8", "surrogatepass")


_MASKING = _Cleaning()


def _masked_string(text: str, levels: int) -> str:
    # Some producers put JSON into a string (`payload.result`).
    if levels and text.lstrip()[:1] in ("{", "[", '"'):
        try:
            parsed = json.loads(text, object_pairs_hook=_each_name_once)
            masked = _MASKING.value(parsed, levels - 1)
        except (ValueError, RecursionError):
            return mask_text(text)
        return text if masked == parsed else json.dumps(masked, ensure_ascii=False)
    return mask_text(text, source=False)


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice in an object")  # one of its values would not be looked at
    return fields
