"""An object store that Triton reads: s3://, gs:// and as:// through fsspec, which ships no types.

Forms of the URLs: triton-inference-server/server, docs/user_guide/model_repository.md, and the pattern in
triton-inference-server/core, src/filesystem/implementations/s3.h.
"""

import contextlib
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from consumer.errors import SetupError

_S3_ENDPOINT = re.compile(r"s3://(https?://)?([0-9A-Za-z.-]+:[0-9]+)/(.*)")
_PATH = re.compile(r"[0-9A-Za-z._/-]+")
"""What Triton's own pattern takes for a path behind a host."""

_MODULES = {"s3": "s3fs", "gs": "gcsfs", "as": "adlfs"}
_CLASSES = {"s3": "S3FileSystem", "gs": "GCSFileSystem", "as": "AzureBlobFileSystem"}
_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_STORAGE_", "TRITON_CLOUD_")


@dataclass(frozen=True)
class Address:
    """Where a repository lies in an object store.

    url: as Triton takes it. root: bucket (or container) and path, without slashes at its ends.
    options: for fsspec's file system of that scheme.
    """

    url: str
    scheme: str
    root: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read one of Triton's URLs.

        s3://bucket/path, s3://host:port/bucket/path, s3://https://host:port/bucket/path,
        gs://bucket/path, as://account/container/path.

        Raises:
            SetupError: it is none of these, or it names a bucket without a path in it.
        """
        url = url.rstrip("/")
        scheme, _, rest = url.partition("://")
        options: dict[str, str] = {}
        endpoint = _S3_ENDPOINT.fullmatch(url)
        if endpoint:
            options["endpoint_url"] = (endpoint[1] or "http://") + endpoint[2]  # Triton's default, too
            rest = endpoint[3]
        elif scheme == "as":
            options["account_name"], _, rest = rest.partition("/")
            if os.environ.get("AZURE_STORAGE_KEY"):  # Triton's name for it; adlfs has another
                options["account_key"] = os.environ["AZURE_STORAGE_KEY"]
        root = re.sub("/+", "/", rest).strip("/")
        if not _PATH.fullmatch(root) or "/" not in root:
            raise SetupError(
                f"{url} will not do for a model repository: write s3://bucket/path, "
                "s3://https://host:port/bucket/path, gs://bucket/path or as://account/container/path, with a "
                "path of letters, digits, '-', '_' and '.', because the shelf lies beside it in the bucket."
            )
        return cls(url, scheme, root, options)


class ObjectStore:
    """A file system of fsspec, used as what it is: whole objects by key, which is bucket and path.

    Whatever goes wrong is an OSError. Nothing is kept in a cache.
    """

    def __init__(self, files: Any) -> None:  # noqa: ANN401 - fsspec ships no types
        self._files = files

    @classmethod
    def at(cls, address: Address) -> Self:
        """Connect to the store of an address.

        Raises:
            SetupError: the package for it is missing.
        """
        module = _MODULES[address.scheme]
        try:
            file_system = getattr(importlib.import_module(module), _CLASSES[address.scheme])
        except ImportError as error:
            raise SetupError(
                f"{address.url} needs the package {module}: install vault-ml with its extra, "
                f"`pip install '.[{address.scheme}]'`."
            ) from error
        with _as_os_error():
            # Its instances are shared by default, and with them what they remember of listings.
            return cls(file_system(skip_instance_cache=True, use_listings_cache=False, **address.options))

    def names(self, directory: str) -> list[str]:
        """Names directly below a key, sorted; none where there is nothing."""
        with _as_os_error():
            self._files.invalidate_cache()
            try:
                listed = self._files.ls(directory, detail=False)
            except FileNotFoundError:
                return []
        inside = (path.strip("/").removeprefix(f"{directory}/") for path in listed)
        return sorted({name for name in inside if name and "/" not in name})

    def keys(self, directory: str) -> list[str]:
        """Keys of all objects below a key, sorted."""
        with _as_os_error():
            self._files.invalidate_cache()
            return sorted(key.strip("/") for key in self._files.find(directory))

    def get(self, key: str) -> bytes:
        """Return an object's content; raises FileNotFoundError."""
        with _as_os_error():
            content: bytes = self._files.cat_file(key)
            return content

    def put(self, key: str, content: bytes) -> None:
        """Write or replace an object."""
        with _as_os_error():
            self._files.pipe_file(key, content)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one, which the store itself decides; say whether it was written.

        A conditional put: If-None-Match on S3, ifGenerationMatch=0 on Google's, If-None-Match on Azure's.
        """
        with _as_os_error():
            try:
                self._files.pipe_file(key, content, mode="create")
            except FileExistsError:
                return False
            return True

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store."""
        with _as_os_error():
            self._files.cp_file(source, target)

    def delete(self, key: str) -> None:
        """Delete an object; fine where there is none."""
        with _as_os_error(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(key)


def credentials(location: Path | str) -> dict[str, str]:
    """Variables of the environment that a Triton needs to read a repository; none for a local one."""
    if not isinstance(location, str):
        return {}
    ours = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    # Without keys in the environment, the AWS library would ask an address that only machines of AWS have.
    return {"AWS_EC2_METADATA_DISABLED": "true", **ours} if location.startswith("s3://") else ours


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        # The three packages raise classes of their own without a common root below Exception.
        raise OSError(str(error) or type(error).__name__) from error
