"""Modules that stand in for NVIDIA's builder and fail the way native code does."""

import os
import time
from types import ModuleType


def __getattr__(name: str) -> object:
    """Stand for everything that the builder's module has; the first use fails as the environment says."""
    if name.startswith("__") and name != "__version__":
        raise AttributeError(name)
    if name == "__version__":
        return "1.0"
    if os.environ["BUILDER_FAULT"] == "crash":
        os.abort()
    time.sleep(600)
    return ModuleType(name)
