"""Where downloads are kept: models, clips, the embedded server, the test broker; never in the checkout."""

import os
import tempfile
from pathlib import Path

from consumer.errors import SetupError


def cache_directory() -> Path:
    """Return the cache's absolute path: VAULT_ML_CACHE, else `vault-ml` under XDG_CACHE_HOME or ~/.cache.

    Raises:
        SetupError: something else is there, or we may not look into it.
    """
    directory = _configured().expanduser().absolute()
    try:
        os.stat(f"{directory}/.")  # noqa: PTH116 - pathlib drops the dot, which asks for a directory to enter
    except FileNotFoundError:
        pass  # made when the first file is kept
    except OSError as error:
        raise _unusable(directory, error) from error
    return directory


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
        raise _unusable(directory, error) from error


def _configured() -> Path:
    own = os.environ.get("VAULT_ML_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vault-ml"


def _unusable(directory: Path, error: OSError) -> SetupError:
    return SetupError(
        f"The cache cannot be used, {directory}: {error.strerror}; set VAULT_ML_CACHE to a directory "
        "that you may write to."
    )
