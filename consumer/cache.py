"""Where downloads are kept: models, clips, the embedded server, the test broker; never in the checkout."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the cache directory: VAULT_ML_CACHE, else `vault-ml` under XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("VAULT_ML_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "vault-ml"
