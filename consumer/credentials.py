"""What is secret in an event, and how it is taken out before anything leaves the program.

Two kinds: values under a name that says so (`storage_secret`, `password`), and links that open a door by
themselves (a signed URL, a camera's URL with a login in it) under whatever name. Names are compared without
case, `_` and `-`. Not secret, and kept: `event-token`, `publickey` and `productid` of the metadata (the
README's results carry them), and the stages' state such as `monitorStage` (later stages read it; what is
secret inside it is taken out as everywhere else).
"""

import base64
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

MASK = "***"

SHORTEST_KNOWN_SECRET = 6
"""Shorter settings are not masked by value: `xxx` or `user` would tear holes into everything."""

_SECRET_NAMES = frozenset(
    {
        # What Hub hands to a classifier in `data` and `storage`: the address goes with its keys.
        "storageuri", "storageaccesskey", "storagesecret", "storagesecretkey",
        "accesskey", "accesskeyid", "secretkey", "secretaccesskey", "secret",
        "privatekey", "apikey", "encryptionkey", "symmetrickey", "sharedkey", "accountkey",
        "connectionstring",
        "password", "passwd", "passphrase", "credentials", "authorization", "cookie", "jwt",
        "token", "accesstoken", "refreshtoken", "idtoken", "bearertoken", "sessiontoken", "authtoken",
        "sastoken",
        "signedurl", "presignedurl",
    }
)  # fmt: skip
_SECRET_ENDINGS = ("password", "secret", "secretkey", "accesskey", "accesskeyid", "privatekey", "apikey",
                   "signedurl")  # fmt: skip
"""`vaultOverrideSecretKey`, `thumbnailSignedUrl`: what stands in front says whose, not what."""

_BEARER_PARAMETERS = frozenset({"signature", "sig", "awsaccesskeyid", "keypairid", "policy"})
"""Query parameters that make a link a key; those of S3 and Google Cloud are known by their beginning."""

_SHORT_ESCAPES = {
    '"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t",
}  # fmt: skip
"""What JSON writes behind a backslash (RFC 8259, section 7)."""

_JSON_LEVELS = 3
"""JSON in a string of JSON in a string of JSON: `payload.result` of an event in a log line, say."""

_URL_SAFE = bytes.maketrans(b"+/", b"-_")

_LINK = re.compile(r"""[a-z][a-z0-9+.-]{1,15}://[^\s"'<>\\]++""", re.IGNORECASE)
_NAME_AND_VALUE = re.compile(
    r"""(?P<before>(?P<quote>\\?["']?)(?P<name>[a-z][a-z_-]{2,63}+)(?P=quote)\s*+[:=]\s*+)
        (?P<value>\\?"(?:[^"\\]|\\[^"])*+\\?"? | '[^']*+'? | [^\s"',;&{}\[\]\\]++)""",
    re.IGNORECASE | re.VERBOSE,
)


def is_secret_name(name: str) -> bool:
    """Tell whether the value under this name is a credential."""
    plain = name.lower().replace("_", "").replace("-", "")
    return plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)


def mask_links(text: str) -> str:
    """Return the text with logins and signatures of links masked; scheme, host and path stay."""
    return _LINK.sub(lambda match: _masked_link(match.group()), text)


def remove_credentials(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of an event without its credentials: secret names left out, links masked."""
    return {
        name: _without_credentials(value)
        for name, value in event.items()
        if not (isinstance(name, str) and is_secret_name(name))
    }


def mask_payload(payload: bytes, known_secrets: Collection[str] = ()) -> bytes:
    """Return a message with its credentials masked, still of the same shape and good for a replay.

    JSON is masked by name at any depth; anything else (and what a parser does not see: doubled names) by
    patterns, as well as possible. A message without credentials comes back byte for byte.

    Args:
        payload: the value of a message, JSON or not.
        known_secrets: values of our own settings, masked wherever they stand.
    """
    try:
        parsed = json.loads(payload)
        masked = _with_masks(parsed)
        if masked != parsed:
            payload = json.dumps(masked).encode()
    except (ValueError, RecursionError):
        pass  # not JSON, or nothing that a parser takes: the patterns below have to do
    # Latin-1 gives every byte one character and back, so that what is not masked stays as it was.
    text = _NAME_AND_VALUE.sub(_masked_value, mask_links(payload.decode("latin-1")))
    return mask_known_secrets(text.encode("latin-1"), known_secrets)


def mask_known_secrets(payload: bytes, known_secrets: Collection[str]) -> bytes:
    """Return bytes with the values of our own settings masked, however they are written.

    Plain, with the escapes of JSON (of JSON inside JSON too), quoted for a URL, or in base64 by themselves or
    as a part of something longer. What is compressed or encrypted is not looked into.
    """
    known = tuple(sorted({secret for secret in known_secrets if len(secret) >= SHORTEST_KNOWN_SECRET}))
    return _known_pattern(known).sub(MASK.encode(), payload) if known else payload


@lru_cache(maxsize=8)
def _known_pattern(secrets: tuple[str, ...]) -> re.Pattern[bytes]:
    # Longest first: a secret that begins with another one must not leave its tail behind.
    ordered = sorted(secrets, key=len, reverse=True)
    plain = [pattern for secret in ordered for pattern in _written(secret)]
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


def _without_credentials(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, Mapping):
        return remove_credentials(value)
    if isinstance(value, list):
        return [_without_credentials(item) for item in value]
    return _masked_string(value) if isinstance(value, str) else value


def _with_masks(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, dict):
        # An empty value tells nothing, and null stays null, so that the types survive a replay.
        return {
            name: MASK if is_secret_name(name) and item not in (None, "") else _with_masks(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_with_masks(item) for item in value]
    return _masked_string(value) if isinstance(value, str) else value


def _masked_string(text: str) -> str:
    masked = mask_links(text)
    # Some producers put JSON into a string (`payload.result`); plain text, a recording's key, stays as it is.
    if masked.lstrip()[:1] in ("{", "["):
        masked = _NAME_AND_VALUE.sub(_masked_value, masked)
    return masked


def _masked_value(match: re.Match[str]) -> str:
    value = match["value"]
    if not is_secret_name(match["name"]) or value in ("null", "true", "false", '""', "''"):
        return match.group()
    quote = '\\"' if value.startswith('\\"') else value[0] if value[0] in "\"'" else ""
    return f"{match['before']}{quote}{MASK}{quote}"


def _masked_link(link: str) -> str:
    scheme, _, rest = link.partition("://")
    address, query_mark, query = re.match(r"([^?#]*+)([?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]  # matches any text
    authority, slash, path = address.partition("/")
    after_colon = authority.partition(":")[2]
    if "@" in authority:
        authority = f"{MASK}@{authority.rpartition('@')[2]}"
    elif after_colon and not after_colon.isdecimal() and "@" in rest:
        # People write cameras' passwords into links as they are, with `?`, `/` and `#`: no port looks so.
        return _masked_link(f"{scheme}://{MASK}@{rest.rpartition('@')[2]}")
    if query and (path.endswith("storage/signed") or any(map(_is_bearer, re.split("[&;?#]", query)))):
        query = MASK
    return f"{scheme}://{authority}{slash}{path}{query_mark}{query}"


def _is_bearer(parameter: str) -> bool:
    name = unquote_plus(parameter.partition("=")[0]).lower().replace("-", "").replace("_", "")
    return name.startswith(("xamz", "xgoog")) or name in _BEARER_PARAMETERS or is_secret_name(name)
