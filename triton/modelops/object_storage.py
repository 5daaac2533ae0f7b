"""A model repository in an object store, where nothing can be renamed.

What must appear whole has one object that makes it whole and is written last: the provenance of a version,
the config.pbtxt of a model. What is under way is written down first, so that whoever locks next can end it.

Triton looks at a model again only where its newest object has become newer, by whole seconds, and directories
have no time in an object store (triton-inference-server/core, src/filesystem/implementations/s3.h, and
ModelTimestamp in src/model_repository_manager/model_repository_manager.cc). So it would never see that a
version is gone. Whatever comes or goes therefore ends with a new `00/changed`: a name of digits, so that no
version counts as changed by it, and with a leading zero, so that it is no version itself.
"""

import contextlib
import errno
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Self

from consumer.errors import SetupError
from modelops.candidate import PROVENANCE_FILE
from modelops.object_lock import ObjectLock
from modelops.object_store import Address, ObjectStore
from modelops.storage import Place

CHANGED = "00/changed"
"""In a model's directory: written whenever a version came or went."""

_TICK_SECONDS = 1.1
"""After that, an object is newer than all before it, in whole seconds."""


@dataclass(frozen=True)
class _UnderWay:
    """A change of several objects.

    written: keys that it writes, the last of which makes them whole. removed: keys that are then deleted.
    touched: a key that is written at the end, where Triton shall look again.
    """

    written: list[str]
    removed: list[str]
    touched: str | None = None


class ObjectStorage:
    """A prefix in a bucket and, beside it, its shelf `<prefix>.shelf`."""

    def __init__(
        self,
        address: Address,
        store: ObjectStore,
        *,
        make_lock: Callable[[ObjectStore, str, str], ObjectLock] = ObjectLock,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._address, self._store, self._tick_seconds = address, store, tick_seconds
        self._shelf = f"{address.root}.shelf"
        self._under_way = f"{self._shelf}/.under-way.json"
        self._lock = make_lock(store, f"{self._shelf}/.lock", address.url)

    @classmethod
    def at(cls, url: str) -> Self:
        """Open the storage at one of Triton's URLs.

        Raises:
            SetupError: the URL will not do, or the package for it is missing.
        """
        address = Address.parse(url)
        return cls(address, ObjectStore.at(address))

    @property
    def location(self) -> str:
        """URL of the repository, as Triton takes it."""
        return self._address.url

    def where(self, place: Place) -> str:
        """URL of a place."""
        suffix = ".shelf" if place.on_shelf else ""
        return f"{self._address.url}{suffix}/{place.path}".rstrip("/")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock, and end what a dead publisher has begun.

        Raises:
            SetupError: another process holds it.
        """
        with self._lock.hold():
            self._finish()
            yield

    def names(self, directory: Place) -> list[str]:
        """Names directly below a place, sorted."""
        return self._store.names(self._key(directory))

    def is_whole(self, directory: Place) -> bool:
        """Whether the provenance is there, which comes last."""
        return PROVENANCE_FILE in self.names(directory)

    def read(self, file: Place) -> bytes:
        """Return an object's content."""
        return self._store.get(self._key(file))

    def write(self, file: Place, content: bytes) -> None:
        """Put one object, which is whole by itself."""
        if not file.on_shelf:
            time.sleep(self._tick_seconds)  # Triton may have seen the one before in this very second
        self._lock.check()
        self._store.put(self._key(file), content)

    def write_directory(self, directory: Place, files: Mapping[str, bytes]) -> None:
        """Put the objects in the given order; the last one makes them whole."""
        self._require_free(directory)
        contents = {self._key(directory / path): content for path, content in files.items()}
        with self._writing_down(_UnderWay(list(contents), [])):
            for key, content in contents.items():
                self._lock.check()
                self._store.put(key, content)

    def move(self, source: Place, target: Place) -> None:
        """Copy a version with its provenance last, then delete the source with its provenance first."""
        self._require_free(target)
        keys = sorted(
            self._store.keys(self._key(source)), key=lambda key: key.endswith(f"/{PROVENANCE_FILE}")
        )
        copies = [self._key(target) + key.removeprefix(self._key(source)) for key in keys]
        served = target if source.on_shelf else source
        touched = f"{self._key(served).rpartition('/')[0]}/{CHANGED}"
        under_way = _UnderWay(copies, keys[::-1], touched)
        with self._writing_down(under_way):
            for key, copy in zip(keys, copies, strict=True):
                self._lock.check()
                self._store.copy(key, copy)
            self._complete(under_way)

    def remove(self, directory: Place) -> None:
        """Delete a version, its provenance first."""
        keys = self._store.keys(self._key(directory))
        under_way = _UnderWay([], sorted(keys, key=lambda key: not key.endswith(f"/{PROVENANCE_FILE}")))
        with self._writing_down(under_way):
            self._complete(under_way)

    def leftovers(self) -> list[str]:
        """What a dead publisher has begun and not ended."""
        if self._begun() is None or self._lock.is_held():
            return []
        return [f"{self._address.url}.shelf/.under-way.json"]

    def _key(self, place: Place) -> str:
        return f"{self._shelf if place.on_shelf else self._address.root}/{place.path}".rstrip("/")

    def _require_free(self, directory: Place) -> None:
        if self.names(directory):
            raise FileExistsError(errno.EEXIST, "it is there already", self.where(directory))

    @contextlib.contextmanager
    def _writing_down(self, under_way: _UnderWay) -> Iterator[None]:
        self._finish()  # also of our own, had it failed
        self._store.put(self._under_way, json.dumps(asdict(under_way)).encode())
        yield
        self._lock.check()
        self._store.delete(self._under_way)

    def _begun(self) -> _UnderWay | None:
        try:
            return _UnderWay(**json.loads(self._store.get(self._under_way)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise SetupError(
                f"{self._address.url}.shelf/.under-way.json cannot be read ({error}): remove it."
            ) from error

    def _finish(self) -> None:
        """End what was begun: take back what was not written whole, else delete what was to go."""
        self._lock.check()
        begun = self._begun()
        if begun is None:
            return
        written = begun.written
        is_whole = not written or written[-1] in self._store.keys(written[-1].rpartition("/")[0])
        if is_whole:
            self._complete(begun)
        else:
            self._delete(written[::-1])
        self._store.delete(self._under_way)

    def _complete(self, under_way: _UnderWay) -> None:
        self._delete(under_way.removed)
        if under_way.touched is not None:
            time.sleep(self._tick_seconds)
            self._lock.check()
            self._store.put(under_way.touched, b"")

    def _delete(self, keys: list[str]) -> None:
        for key in keys:
            self._lock.check()
            self._store.delete(key)
