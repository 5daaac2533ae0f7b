"""Where downloads are kept: models, clips, the embedded server, the test broker; never in the checkout."""

import os
import tempfile
from pathlib import Path

from consumer.errors import SetupError


def cache_directory() -> Path:
    """Return the cache's absolute path: VAULT_ML_CACHE, else `vault-ml` under XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("VAULT_ML_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return parent.expanduser().absolute() / "vault-ml"


def make_in_cache(directory: Path) -> Path:
    """Make a directory of the cache where it is missing, and return it; files can be written there.

    Raises:
        SetupError: there can be no such directory, or nothing can be written to it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        raise SetupError(
            f"The cache cannot be used, {directory}: {error.strerror}; set VAULT_ML_CACHE to a directory "
            "that you may write to."
        ) from error
