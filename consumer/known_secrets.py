"""Secrets that are known by value, those of our own settings, masked wherever they stand."""

import base64
import json
import re
from collections.abc import Collection
from functools import lru_cache

from consumer.secret_names import MASK

SHORTEST_SECRET = 6
"""Characters. Shorter settings (`xxx`, `admin`, `kafka`) occur in ordinary words, keys and topics; masking
them would tear holes into everything."""

_SHORT_ESCAPES = {
    '"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t",
}  # fmt: skip
"""What JSON writes behind a backslash (RFC 8259, section 7)."""

_JSON_LEVELS = 3
"""JSON in a string of JSON in a string of JSON: `payload.result` of an event in a log line, say."""

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def mask_known_secrets(payload: bytes, known_secrets: Collection[str]) -> bytes:
    """Return bytes with the values of our own settings masked, in the ways that programs write them.

    Plain, with the escapes of JSON (of JSON inside JSON too) or of Python, quoted once for a URL, or in
    base64 by themselves or as a part of something longer. Not found: base64 with line breaks in it or of
    base64, what is quoted for a URL twice, hexadecimal digits, UTF-16, and what is compressed or encrypted.
    """
    known = tuple(sorted({secret for secret in known_secrets if len(secret) >= SHORTEST_SECRET}))
    return _known_pattern(known).sub(MASK.encode(), payload) if known else payload


def mask_known_text(text: str, known_secrets: Collection[str]) -> str:
    """Return text as `mask_known_secrets` returns bytes; halves of characters stay what they are."""
    if not known_secrets:
        return text
    raw = text.encode("utf-8", "surrogatepass")
    return mask_known_secrets(raw, known_secrets).decode("utf-8", "surrogatepass")


@lru_cache(maxsize=8)
def _known_pattern(secrets: tuple[str, ...]) -> re.Pattern[bytes]:
    # Longest first: a secret that begins with another one must not leave its tail behind.
    ordered = sorted(secrets, key=len, reverse=True)
    plain = [pattern for secret in ordered for pattern in (*_written(secret), *_in_python(secret))]
    encoded = {core for secret in ordered for core in _in_base64(secret.encode("utf-8", "replace"))}
    return re.compile(b"|".join([*plain, *map(re.escape, sorted(encoded, key=len, reverse=True))]))


def _written(secret: str) -> list[bytes]:
    """Return patterns for the ways to write a secret: as it is, in JSON, in JSON inside that; or in a URL."""
    levels = [[_ways(character, level) for character in secret] for level in range(_JSON_LEVELS + 1)]
    if "\\" not in secret:
        # Of any mixture. With backslashes it would be open how many stand for one, and endless to try.
        levels = [[set[str]().union(*of_character) for of_character in zip(*levels, strict=True)]]
    return [b"".join(b"(?:%s)" % b"|".join(map(_quoted, sorted(ways))) for ways in level) for level in levels]


def _ways(character: str, level: int) -> set[str]:
    """Return how JSON writes a character, so many levels deep; its writers differ in what they escape."""
    if level == 0:
        return {character}
    ways = {character, json.dumps(character)[1:-1], _as_units(character)}
    if character in _SHORT_ESCAPES:
        ways = {f"\\{_SHORT_ESCAPES[character]}", _as_units(character)} | (
            {"/"} if character == "/" else set()
        )
    for _ in range(level - 1):
        ways = {json.dumps(way, ensure_ascii=False)[1:-1] for way in ways} | {
            json.dumps(way)[1:-1] for way in ways
        }
    return ways


def _as_units(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def _quoted(way: str) -> bytes:
    """Return a pattern for a text of which each character may be quoted for a URL."""
    pattern = b""
    for character in way:
        raw = character.encode("utf-8", "surrogatepass")
        ways = [re.escape(raw), b"(?i:%s)" % b"".join(b"%%%02x" % byte for byte in raw)]
        pattern += b"(?:%s)" % b"|".join([*ways, *([rb"\+"] if character == " " else [])])
    return b"(?i:%s)" % pattern if len(way) > 1 else pattern


def _in_base64(secret: bytes) -> set[bytes]:
    """Return what base64 makes of a secret at each of the three places of a byte, neighbours left out."""
    cores = set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret)
        first, end = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
        cores |= {text[first:end], text[first:end].translate(_URL_SAFE)}
    return cores


def _in_python(secret: str) -> list[bytes]:
    """Return patterns for a secret as repr() and ascii() show it, of a text and of bytes."""
    raw = secret.encode("utf-8", "surrogatepass")
    return [
        re.escape(shown.encode("utf-8", "surrogatepass"))
        for shown in {repr(secret)[1:-1], ascii(secret)[1:-1], repr(raw)[2:-1]}
    ]
