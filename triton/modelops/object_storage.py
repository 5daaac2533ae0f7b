"""A model repository in an object store, where nothing can be renamed.

What must appear whole has one object that makes it whole and is written last: the provenance of a version,
the config.pbtxt of a model. What is under way is written down first, so that whoever locks next can end it.
"""

import contextlib
import errno
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Self

from consumer.errors import SetupError
from modelops.candidate import PROVENANCE_FILE
from modelops.object_lock import ObjectLock
from modelops.object_store import Address, ObjectStore
from modelops.storage import Place


@dataclass(frozen=True)
class _UnderWay:
    """A change of several objects.

    written: keys that it writes, the last of which makes them whole. removed: keys that are then deleted.
    """

    written: list[str]
    removed: list[str]


class ObjectStorage:
    """A prefix in a bucket and, beside it, its shelf `<prefix>.shelf`."""

    def __init__(
        self,
        address: Address,
        store: ObjectStore,
        *,
        make_lock: Callable[[ObjectStore, str, str], ObjectLock] = ObjectLock,
    ) -> None:
        self._address, self._store = address, store
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
        under_way = _UnderWay(copies, keys[::-1])
        with self._writing_down(under_way):
            for key, copy in zip(keys, copies, strict=True):
                self._lock.check()
                self._store.copy(key, copy)
            self._delete(under_way.removed)

    def remove(self, directory: Place) -> None:
        """Delete a version, its provenance first."""
        keys = self._store.keys(self._key(directory))
        under_way = _UnderWay([], sorted(keys, key=lambda key: not key.endswith(f"/{PROVENANCE_FILE}")))
        with self._writing_down(under_way):
            self._delete(under_way.removed)

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
        self._delete(begun.removed if is_whole else written[::-1])
        self._store.delete(self._under_way)

    def _delete(self, keys: list[str]) -> None:
        for key in keys:
            self._lock.check()
            self._store.delete(key)
