"""The key that a Triton with restricted admin calls asks for: from a variable or a file, never shown.

What such a server wants to see is in its docs/customization_guide/inference_protocols.md, "Limit Endpoint
Access" (triton-inference-server/server).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consumer.errors import SetupError

KEY_VARIABLE = "TRITON_ADMIN_KEY"
KEY_FILE_VARIABLE = f"{KEY_VARIABLE}_FILE"
HEADER_PREFIX = "triton-grpc-protocol-"

_KEY = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<value>[!-~]+)")


@dataclass(frozen=True)
class AdminKey:
    """What `--grpc-restricted-protocol=model-repository:NAME=VALUE` of the server asks for; never shown."""

    name: str
    value: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The header that goes with each admin call."""
        return {f"{HEADER_PREFIX}{self.name.lower()}": self.value}


def read_admin_key(environ: Mapping[str, str]) -> AdminKey | None:
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
    found = _KEY.fullmatch(text.strip())
    if found is None:
        raise SetupError(
            f"{KEY_FILE_VARIABLE if path else KEY_VARIABLE} will not do: write NAME=VALUE, "
            "as after the colon of the server's --grpc-restricted-protocol."
        )
    return AdminKey(found["name"], found["value"])
