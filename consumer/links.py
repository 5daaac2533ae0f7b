"""Links that open a door by themselves, masked: a signed URL, a camera's URL with a login in it.

Scheme, host and path stay. People write cameras' passwords into links as they are, with quotes, blanks, `@`
and `/`; so where it is open how far a login goes, it goes far. Every pass is linear in the text's length.
"""

import re
from urllib.parse import unquote_plus

from consumer.secret_names import MASK, is_secret_name

_SLASHES = re.compile(r"(:(?:\\*+/){2})")
r"""`://`, also as PHP (`:\/\/`) and JSON inside JSON (`:\\\/\\\/`) write it."""

_CAMERA_SCHEMES = ("rtsp", "rtsps", "rtspu", "rtmp", "rtmps", "onvif", "srt")
_LINE = re.compile(r"[^\r\n]*+")
_LINE_OF_SOURCE = re.compile(r"""(?:[^\r\n"\\]|\\+.?|"(?!\s*+(?:[,:}\])]|$)))*+""", re.DOTALL)
_BLANK = re.compile(r"\s")
_RUN = re.compile(r"""[^\s"]*+""")
_LOGIN_BEGINS = re.compile(r"""[^\s"/?#:@]*+:(?!\d{1,5}(?:[/?#\s"'<>\\,;)]|$))""")
"""`user:` of a login; `host:554` is none."""

_NUMERIC_HOST = re.compile(r"""\[[0-9a-f:.%]++\](?::[0-9]{1,5}+)?+(?=[/?#\s"]|$)""", re.IGNORECASE)
"""`[2001:db8::1]`, an IPv6 address: no login stands in front of it, and its colons are none of a login."""

_QUERY = re.compile(r"""(:(?:\\*+/){2}[^\s"?#]*+)(?:([?#])([^\s"]*+))?""")
_PUNCTUATION = "\\'<>,;.)}]"
"""What may follow a link in a text, and ends none."""

_PARAMETERS = re.compile(r"[&;?#]")
_UNIT = re.compile(r"(?<!\\)\\++u00(2[013-689a-f]|[346][0-9a-f]|5[0-9abd-f]|7[0-9a-e])", re.IGNORECASE)
r"""Go writes `&` as `\u0026`. Quotes and backslashes stay escaped: they would end what they stand in."""

_BEARER_PARAMETERS = frozenset({"signature", "sig", "awsaccesskeyid", "keypairid", "policy"})
"""Query parameters that make a link a key; those of S3 and Google Cloud are known by their beginning."""


def mask_links(text: str, *, source: bool = False) -> str:
    """Return the text with logins and signatures of links masked; scheme, host and path stay.

    Args:
        text: may hold any number of links, and anything else.
        source: of JSON or the like, so that a quote before `,` or `}` ends a string, and a login in it.
    """
    pieces = _SLASHES.split(text)
    if len(pieces) == 1:
        return text
    # Pieces are: text, slashes, text, slashes, ...: each text after the first begins a link's authority.
    for index in range(2, len(pieces), 2):
        camera = pieces[index - 2].lower().endswith(_CAMERA_SCHEMES)
        if not _NUMERIC_HOST.match(pieces[index]):
            pieces[index] = (
                _without_camera_login(pieces[index], source) if camera else _without_login(pieces[index])
            )
    return _QUERY.sub(_masked_query, "".join(pieces))


def decoded_units(text: str) -> str:
    r"""Return the text with its `\u0026` as `&`, however many levels deep they are escaped."""
    return _UNIT.sub(lambda unit: chr(int(unit[1], 16)), text) if "\\" in text else text


def _without_camera_login(rest: str, source: bool) -> str:
    line = (_LINE_OF_SOURCE if source else _LINE).match(rest)
    reach = line.end() if line else 0
    if not _LOGIN_BEGINS.match(rest):
        blank = _BLANK.search(rest, 0, reach)
        reach = blank.start() if blank else reach
    end = rest.rfind("@", 0, reach)
    path = rest.find("/", 0, max(end, 0))
    in_path = 0 <= path < rest.find("@") and ":" not in rest[:end]  # `rtsp://cam/live@main`: no password
    return rest if end < 0 or in_path else MASK + rest[end:]


def _without_login(rest: str) -> str:
    run = _RUN.match(rest)
    reach = run.end() if run else 0
    authority = re.match(r"[^/?#]*+", rest[:reach])
    if "@" in rest[: authority.end() if authority else 0]:
        # A password may hold a slash; a query with a mail address in it is no password.
        before_query = re.match(r"[^?#]*+", rest[:reach])
        end = rest.rfind("@", 0, before_query.end() if before_query else 0)
    elif _LOGIN_BEGINS.match(rest):
        end = rest.rfind("@", 0, reach)
    else:
        return rest
    return rest if end < 0 else MASK + rest[end:]


def _masked_query(link: re.Match[str]) -> str:
    place, mark, query = link.groups()
    if not query:
        return link.group()
    told = query.rstrip(_PUNCTUATION)
    names = {parameter.partition("=")[0][:256] for parameter in _PARAMETERS.split(decoded_units(told))}
    if not (
        place.endswith("storage/signed") or any(is_bearer_parameter(unquote_plus(each)) for each in names)
    ):
        return link.group()
    return f"{place}{mark}{MASK}{query[len(told) :]}"


def is_bearer_parameter(name: str) -> bool:
    """Tell whether a query parameter of this name makes a link a key."""
    plain = name[:256].lower().replace("-", "").replace("_", "")
    return plain.startswith(("xamz", "xgoog")) or plain in _BEARER_PARAMETERS or is_secret_name(plain)
