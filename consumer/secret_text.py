r"""Credentials in text that is not JSON, or no longer: logs, headers, cut-off events, strings inside strings.

Looked for are names with a value behind (`password=…`, `"storage_secret": "…"`, `Authorization: …`) at any
place, whatever quotes are open there. A value ends where its own kind of quote ends, however many levels deep
it is escaped; what never ends is masked to the end of the text. In doubt more is masked. One pass, linear.
"""

import re

from consumer.links import decoded_units, is_bearer_parameter, mask_links
from consumer.secret_names import MASK, is_secret_name, names_secrets

_NAME = re.compile(
    r"""(?<![a-z0-9_.-])(?P<name>[a-z0-9_.-]++)(?P<quote>(?:\\*+["']|\\++u002[27])?+)
        (?P<separator>\s*+(?:[:=]{1,2}+>?+|>)(?:\s|\\++[nrt])*+)""",
    re.IGNORECASE | re.VERBOSE,
)
_QUOTE = re.compile(r"""(\\*+)(["'])""")
_BRACKET_OR_QUOTE = re.compile(r"""[\[\]{}]|(?<!\\)\\*+["']""")
_NO_SECRET = re.compile(
    r"""(?:null|none|true|false|\*\*\*)(?![^\s,;&}\])"'\\])|\[\s*+\]|\{\s*+\}""", re.IGNORECASE
)
_SCHEME = re.compile(r"(?:bearer|basic|digest|negotiate|token|apikey)[ \t]++", re.IGNORECASE)
_WORD = re.compile(
    rf"""(?:{_SCHEME.pattern})?+(?:[^\s"&\\]|\\++(?!["'nrt\\]))*+""",
    re.IGNORECASE,
)
_ELEMENT = re.compile(r"[^<]*+")
_REST_OF_LINE = re.compile(r"""(?:=\\*+"[^"\r\n]*+"?+|\\++(?!["'nr\\])|[^"\r\n\\])*+""")
r"""Of a header or a phrase; a header may quote: `Digest username="u", response="…"`."""

_BESIDE = (
    re.compile(
        r"""[\[(]\s*+b?(?P<quote>\\*+["'])(?P<name>[\w.-]++)(?P=quote)\s*+,
            \s*+b?\\*+["'](?P<value>[^"'\\]++)(?=\\*+["']\s*+[\])])""",
        re.VERBOSE,
    ),
    re.compile(
        r"""\b(?:name|key|id)=(?P<quote>\\*+["'])(?P<name>[\w.-]++)(?P=quote)\s++
            value=\\*+["'](?P<value>[^"'\\]++)""",
        re.VERBOSE | re.IGNORECASE,
    ),
    re.compile(r"<(?:[\w.-]++:)?+(?P<name>[\w.-]++)\s[^<>]*+(?<!/)>(?P<value>[^<]*[^<\s])"),
)
"""`("X-Api-Key", "...")`, `<add name="password" value="..."/>`, `<wsse:Password Type="...">...`."""

_BLOCK = re.compile(r"[|>][-+0-9]{0,2}+[ \t]*+(?:\r?\n(?:[ \t]++[^\r\n]*+|(?=\r?\n|\Z)))++")
"""A text over several lines in YAML, which goes as far as it is indented."""

_BEARER = re.compile(r"(?<!\w)((?i:bearer)[ \t]++)(?=[a-z._~+/=-]*+[A-Z0-9])[\w.~+/=-]{8,}+")
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----).*?(?:(?=-----END )|\Z)", re.DOTALL
)
"""What is a secret without any name in front: `Bearer eyJh…` and keys in PEM (RFC 7468)."""

_TELLING = re.compile(r"""[:=>]|["'],|\\u00|bearer|private""", re.IGNORECASE)
"""Without any of these there is nothing to mask; most strings of an event have none."""

_IN_SENTENCES = ("token", "tokens", "authorization", "key")
"""Words of which sentences tell: `Failed to acquire SASL OAUTHBEARER token: invalid_client`."""

_SENTENCE = re.compile(r"\w [a-z]+: [\w{]", re.IGNORECASE)
_PROSE = re.compile(
    r"""\{ | (?:[A-Z][a-z]++(?=[ ][a-z]) | [a-z]++(?:[_-][a-z]++)*+) [.,;:!?)"']*+ (?:\s|$)""", re.VERBOSE
)
"""What goes on as people write: small letters up to a blank, as secrets hardly ever are; or an answer."""

_WORD_BEFORE = re.compile(r"[a-z]+(?= \Z)", re.IGNORECASE)
_NUMBER = re.compile(r"""[-+]?[0-9][0-9.,]*+(?![^\s,;&}\])"'\\])""")
_OF_WORDS = ("authorization", "cookie", "passphrase")
"""Names whose value goes to the end of its line."""
_PUNCTUATION = "'<>,;)}]"
_ESCAPED_LETTERS = "bfnrt"


def mask_text(text: str, *, source: bool = True, sentences: bool = False) -> str:
    """Return a text with the credentials in it masked: values behind names that say so, and links.

    Args:
        text: anything.
        source: of JSON or the like (see `mask_links`); False for a text that a parser has unescaped.
        sentences: the text is written for people, who must read what is wrong with a `token: …`.
    """
    if _TELLING.search(text) is None:
        return text
    plain = decoded_units(text)
    masked = mask_links(plain, source=source)
    for beside in _BESIDE:
        masked = beside.sub(_masked_beside, masked)
    masked = _without_values(masked, sentences=sentences)
    masked = _PRIVATE_KEY.sub(rf"\1{MASK}", _BEARER.sub(rf"\1{MASK}", masked))
    return text if masked == plain else masked


def _masked_beside(found: re.Match[str]) -> str:
    if not is_secret_name(found["name"]):
        return found.group()
    return found.group()[: found.start("value") - found.start()] + MASK


def _without_values(text: str, *, sentences: bool) -> str:
    pieces = []
    copied = position = 0
    while (found := _NAME.search(text, position)) is not None:
        position = found.end()  # the value of an innocent name may hold a name itself
        if not _is_secret(text, found) or (sentences and _is_told(text, found)):
            continue
        begin, end, position = _value(text, found)
        if begin < end:
            quote = found["quote"] if text[begin] in "[{" else ""
            pieces += [text[copied:begin], quote, MASK, quote]
            copied = end
    pieces.append(text[copied:])
    return "".join(pieces)


def _is_secret(text: str, found: re.Match[str]) -> bool:
    begin = found.start()
    if found["separator"].strip() == ">" and text[max(0, begin - 1) : begin] not in ("<", ":"):
        return False  # no element of XML
    name = found["name"]
    # `\npassword` in a string: the letter belongs to the escape.
    escaped = text[begin - 1 : begin] == "\\" and name[0] in _ESCAPED_LETTERS
    if (
        found["separator"] == "="
        and text[max(0, begin - 1) : begin] in ("?", "&")
        and is_bearer_parameter(name)
    ):
        return True  # of a link without its beginning
    if name.lower() == "key":  # `API key: ...`
        before = _WORD_BEFORE.search(text, max(0, begin - 32), begin)
        return before is not None and is_secret_name(before.group() + name)
    if names_secrets(name):
        return _NUMBER.match(text, found.end()) is None
    return is_secret_name(name) or (escaped and is_secret_name(name[1:]))


def _is_told(text: str, found: re.Match[str]) -> bool:
    """Tell whether the name is a word of a sentence that goes on as one, with no login behind it."""
    return (
        found["name"].lower() in _IN_SENTENCES
        and _SENTENCE.match(text, max(0, found.start() - 2)) is not None
        and _SCHEME.match(text, found.end()) is None
        and _PROSE.match(text, found.end()) is not None
    )


def _value(text: str, found: re.Match[str]) -> tuple[int, int, int]:
    """Return where the value behind a name begins, where it ends, and where to look on."""
    begin = found.end()
    quote = _QUOTE.match(text, begin)
    if quote is not None:
        end, beyond = _string_end(text, quote)
        return quote.end(), end, beyond
    if _NO_SECRET.match(text, begin):
        return begin, begin, begin
    if text[begin : begin + 1] in ("[", "{"):
        end = _container_end(text, begin)
        return begin, end, end
    if found["separator"].strip() == ">":
        kind = _ELEMENT
    elif _BLOCK.match(text, begin):
        kind = _BLOCK
    elif found["name"].lower().endswith(_OF_WORDS) and not found["quote"]:
        kind = _REST_OF_LINE
    else:
        kind = _WORD
    match = kind.match(text, begin)
    end = match.end() if match else begin
    while end > begin and text[end - 1] in _PUNCTUATION:
        end -= 1
    return begin, end, end


def _string_end(text: str, opening: re.Match[str]) -> tuple[int, int]:
    r"""Return where a string's content ends, and where its closing quote does.

    Where a quote is written with n backslashes, an escaped quote has n + 1 more, and an escaped backslash
    2n + 2. Fewer than n are a quote of a string around this one.
    """
    escapes, mark = len(opening[1]), opening[2]
    for quote in re.compile(rf"(?<!\\)(\\*+){mark}").finditer(text, opening.end()):
        backslashes = len(quote[1])
        more = backslashes - escapes
        if more < 0:
            return quote.start(), quote.start()
        if more // (escapes + 1) % 2 == 0:
            return quote.end() - 1 - escapes, quote.end()
    return len(text), len(text)


def _container_end(text: str, begin: int) -> int:
    depth, position = 0, begin
    while (token := _BRACKET_OR_QUOTE.search(text, position)) is not None:
        position = token.end()
        mark = token.group()
        if mark in ("[", "{"):
            depth += 1
        elif mark in ("]", "}"):
            depth -= 1
            if depth == 0:
                return position
        else:
            quote = _QUOTE.match(text, token.start())
            position = _string_end(text, quote)[1] if quote else position
    return len(text)
