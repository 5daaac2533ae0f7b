"""The key that a Triton with restricted admin calls asks for: from a variable or a file, never shown.

It is no setting of the consumer, which never administers; that one's own key is TRITON_ACCESS_KEY.
"""

from collections.abc import Mapping
from pathlib import Path

from consumer.errors import SetupError
from consumer.triton_access import ProtocolKey

KEY_VARIABLE = "TRITON_ADMIN_KEY"
KEY_FILE_VARIABLE = f"{KEY_VARIABLE}_FILE"


def read_admin_key(environ: Mapping[str, str]) -> ProtocolKey | None:
    """Return the key of TRITON_ADMIN_KEY or of the file that TRITON_ADMIN_KEY_FILE names; None without both.

    Raises:
        SetupError: both are set, the file cannot be read, or what is there is not NAME=VALUE.
    """
    text, path = environ.get(KEY_VARIABLE), environ.get(KEY_FILE_VARIABLE)
    if text and path:
        raise SetupError(f"{KEY_VARIABLE} and {KEY_FILE_VARIABLE} are both set: remove one of them.")
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise SetupError(f"{KEY_FILE_VARIABLE} names {path}, which cannot be read: {reason}.") from error
    if not text:
        return None
    key = ProtocolKey.parse(text)
    if key is None:
        raise SetupError(
            f"{KEY_FILE_VARIABLE if path else KEY_VARIABLE} will not do: write NAME=VALUE, "
            "as after the colon of the server's --grpc-restricted-protocol."
        )
    return key
