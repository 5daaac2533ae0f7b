"""Names that say that what stands under them is a credential: `storage_secret`, `hubToken`, `X-Api-Key`.

Compared without case, `_`, `-`, `.` and a number behind (`storage_secret_2`). Not secret, and kept:
`publickey`, `productid` and `event-token` of an event's metadata, which the README's results carry.
"""

import re
from functools import lru_cache

MASK = "***"
"""What stands where a secret stood."""

_NAMES = frozenset(
    {
        # What Hub hands to a classifier in `data` and `storage`: the address goes with its keys.
        "storageuri", "storagesecret",
        "auth", "bearer", "credential", "credentials", "jwt", "passphrase", "secret", "secrets",
    }
)  # fmt: skip
_ENDINGS = (
    "password", "passwords", "passwd", "passphrase", "secret", "token", "credentials",
    "accesskey", "accesskeyid", "accountkey", "apikey", "encryptionkey", "masterkey", "privatekey",
    "secretkey", "sharedkey", "signingkey", "sshkey", "symmetrickey",
    "authorization", "cookie", "connectionstring", "sasurl", "signedurl",
    "hubkey", "kerberoscloudkey",
    "userpass", "dbpass", "rtsppass", "loginpass", "loginpas", "userpwd", "dbpwd",
)  # fmt: skip
"""`vaultOverrideSecretKey`, `thumbnailSignedUrl`: what stands in front says whose, not what."""

_LISTS = ("apikeys", "accesskeys", "privatekeys", "secretkeys", "accesstokens", "refreshtokens")
_KEPT_ENDING = "eventtoken"
_SHORT_WORD = re.compile(
    r"(?:(?:^|[^a-zA-Z ])(?:pass|Pass|PASS|pwd|Pwd|PWD)|(?<=[a-z0-9])(?:Pass|Pwd))[^a-zA-Z]*$"
)
"""`mqtt_pass` and `mqttPass`, but no `compass` and no `Brenner Pass`."""

_SEPARATORS = str.maketrans("", "", "_-. ")
_LONGEST = 128
"""Characters of a name that are looked at, from its end; a hostile one has a million."""


def is_secret_name(name: str) -> bool:
    """Tell whether the value under this name is a credential."""
    return _is_secret_name(name[-_LONGEST:])


def names_secrets(name: str) -> bool:
    """Tell whether there are credentials under this name, unless it is a number: `tokens: 3` counts them."""
    return _names_secrets(name[-_LONGEST:])


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    plain = _plain(name)
    if plain.endswith(_KEPT_ENDING):
        return False
    return plain in _NAMES or plain.endswith(_ENDINGS) or _SHORT_WORD.search(name) is not None


@lru_cache(maxsize=1024)
def _names_secrets(name: str) -> bool:
    plain = _plain(name)
    return plain == "tokens" or plain.endswith(_LISTS)


def _plain(name: str) -> str:
    return name.lower().translate(_SEPARATORS).rstrip("0123456789")
