"""What is secret in an event, taken out before anything leaves the program.

Two kinds: values under a name that says so (`secret_names`), and links that open a door by themselves
(`links`), under whatever name. JSON is taken apart and each value looked at, strings that hold JSON included;
what is no JSON is searched as text (`secret_text`). What names the recording and its camera stays as it came,
but for links and our own settings (`secret_fields`). The stages' state, such as `monitorStage`, is kept for
later stages; what is secret inside it is taken out as everywhere else.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from consumer.errors import EventMalformed
from consumer.events import unique_names
from consumer.known_secrets import mask_known_secrets, mask_known_text
from consumer.secret_fields import ANYWHERE, EVENT, Kind, Place, is_pair, kinds, mask_identifier
from consumer.secret_names import MASK
from consumer.secret_text import mask_text

_JSON_IN_STRINGS = 3
"""Levels that are parsed: JSON in a string of JSON in a string, and once more; below that it is text."""


def remove_credentials(event: Mapping[str, Any], known_secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return a copy of an event without its credentials: secret names left out, strings masked.

    Booleans, null and what is empty stay under any name: later stages read `hasPassword: true`.

    Args:
        event: parsed.
        known_secrets: values of our own settings, masked in every string and name.
    """
    cleaning = _Cleaning(leave_out=True, known_secrets=tuple(known_secrets))
    return cleaning.fields(event, _JSON_IN_STRINGS, EVENT)


def mask_payload(payload: bytes, known_secrets: Collection[str] = ()) -> bytes:
    """Return a message with its credentials masked, still of the same shape and good for a replay.

    JSON is masked by name at any depth; anything else (also JSON with a name twice in one object) as text, as
    well as possible. A message without credentials comes back byte for byte.

    Args:
        payload: the value of a message, JSON or not.
        known_secrets: values of our own settings, masked wherever they stand.
    """
    try:
        parsed = _parsed(payload)
        masked = _MASKING.event(parsed)
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

    def event(self, value: Any) -> Any:  # noqa: ANN401  # any JSON value
        """Clean what is an event, a list of events, or anything else."""
        if isinstance(value, list) and not is_pair(value):
            return [self.event(item) if isinstance(item, Mapping) else self.entry(item) for item in value]
        return self.fields(value, place=EVENT) if isinstance(value, Mapping) else self.entry(value)

    def entry(self, value: Any, levels: int = _JSON_IN_STRINGS) -> Any:  # noqa: ANN401  # any JSON value
        """Clean an entry of a list, or what stands alone."""
        return [value[0], MASK] if is_pair(value) else self.value(value, levels)

    def value(self, value: Any, levels: int = _JSON_IN_STRINGS, place: Place = ANYWHERE) -> Any:  # noqa: ANN401  # any JSON value
        if isinstance(value, Mapping):
            return self.fields(value, levels, place)
        if isinstance(value, list):
            return [self.entry(item, levels) for item in value]
        return self._string(value, levels) if isinstance(value, str) else value

    def fields(
        self, fields: Mapping[Any, Any], levels: int = _JSON_IN_STRINGS, place: Place = ANYWHERE
    ) -> dict[Any, Any]:
        clean: dict[Any, Any] = {}
        for name, item, kind in kinds(fields, place):
            if kind is Kind.OTHER:
                inner = place.inner.get(name, ANYWHERE)
                clean[mask_known_text(name, self.known_secrets)] = self.value(item, levels, inner)
            elif kind is Kind.IDENTIFIER:
                clean[name] = self._identifier(item, levels)
            elif not self.leave_out:
                clean[name] = MASK
        return clean

    def _identifier(self, value: Any, levels: int) -> Any:  # noqa: ANN401  # any JSON value
        if isinstance(value, str):
            return mask_identifier(value, self.known_secrets)
        if isinstance(value, list):  # of names, such as `secondary_providers`
            return [
                mask_identifier(item, self.known_secrets)
                if isinstance(item, str)
                else self.value(item, levels)
                for item in value
            ]
        return self.value(value, levels)

    def _string(self, text: str, levels: int) -> str:
        masked = _masked_string(text, levels, sentences=self.leave_out)
        return mask_known_text(masked, self.known_secrets)


_MASKING = _Cleaning()


def _masked_string(text: str, levels: int, *, sentences: bool) -> str:
    # Some producers put JSON into a string (`payload.result`).
    if levels and text.lstrip()[:1] in ("{", "[", '"'):
        try:
            parsed = _parsed(text)
            masked = _MASKING.entry(parsed, levels - 1)
        except (ValueError, RecursionError):
            return mask_text(text, sentences=sentences)
        return text if masked == parsed else json.dumps(masked, ensure_ascii=False)
    return mask_text(text, source=False, sentences=sentences)


def _parsed(text: str | bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Return the JSON value; of a name that stands twice in an object one value would not be looked at."""
    try:
        return json.loads(text, object_pairs_hook=unique_names)
    except EventMalformed as error:
        raise ValueError(str(error)) from None
