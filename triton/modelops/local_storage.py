"""A model repository in a directory: temporary directories on the shelf, fsync, rename."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from consumer.errors import SetupError
from modelops.storage import Place

_LOCK_FILE = ".lock"
_TEMPORARY_PREFIX = ".tmp-"


class LocalStorage:
    """A directory and, beside it on the same file system, its shelf `<directory>.shelf`."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()  # a repository behind a link has its shelf beside the real directory
        self._shelf = self._root.with_name(self._root.name + ".shelf")

    @property
    def location(self) -> str:
        """Path of the repository."""
        return str(self._root)

    def where(self, place: Place) -> str:
        """Path of a place."""
        return str(self._path(place))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the kernel's lock on a file of the shelf, which ends with its holder, also by kill -9.

        Raises:
            SetupError: another process holds it, or the shelf cannot be used.
        """
        self._make_roots()
        descriptor = os.open(self._shelf / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SetupError(
                    f"Another process changes {self._root} ({_holder(descriptor)}): "
                    "wait until it is done, then run this again."
                ) from error
            since = datetime.now(UTC).isoformat(timespec="seconds")
            who = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, who.encode(), 0)
            for leftover in self._leftovers():
                shutil.rmtree(leftover)
            yield
        finally:
            os.close(descriptor)

    def names(self, directory: Place) -> list[str]:
        """Names of what lies directly in a directory, sorted."""
        try:
            return sorted(path.name for path in self._path(directory).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_whole(self, directory: Place) -> bool:
        """Say yes where the directory is there: it came by a rename."""
        return self._path(directory).is_dir()

    def read(self, file: Place) -> bytes:
        """Return a file's content."""
        return self._path(file).read_bytes()

    def write(self, file: Place, content: bytes) -> None:
        """Write beside, sync, rename over what was there."""
        target = self._path(file)
        with self._temporary_directory() as temporary:
            _write(temporary / target.name, content)
            self._rename(temporary / target.name, target)

    def write_directory(self, directory: Place, files: Mapping[str, bytes]) -> None:
        """Write the directory on the shelf, sync it, rename it to its place."""
        with self._temporary_directory() as temporary:
            for path, content in files.items():
                file = temporary / path
                file.parent.mkdir(parents=True, exist_ok=True)
                _write(file, content)
            for inner in sorted(path for path in temporary.rglob("*") if path.is_dir()):
                _sync(inner)
            _sync(temporary)
            self._rename_directory(temporary, self._path(directory))

    def move(self, source: Place, target: Place) -> None:
        """Move a directory by one rename."""
        self._rename_directory(self._path(source), self._path(target))

    def remove(self, directory: Place) -> None:
        """Take a directory out of sight by one rename, then delete it."""
        with self._temporary_directory() as temporary:
            self._rename(self._path(directory), temporary / "removed")

    def leftovers(self) -> list[str]:
        """Temporary directories that nobody works in: nobody holds the lock."""
        try:
            descriptor = os.open(self._shelf / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return [str(path) for path in self._leftovers()]
        except BlockingIOError:
            return []  # what is there is being worked on
        finally:
            os.close(descriptor)

    def _path(self, place: Place) -> Path:
        return (self._shelf if place.on_shelf else self._root) / place.path

    def _leftovers(self) -> list[Path]:
        return sorted(self._shelf.glob(f"{_TEMPORARY_PREFIX}*"))

    def _make_roots(self) -> None:
        if self._root.is_file():
            raise SetupError(f"{self._root} is a file: give a directory as the repository.")
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            self._shelf.mkdir(exist_ok=True)
        except OSError as error:
            raise SetupError(self._shelf_sentence(str(error))) from error
        if self._shelf.stat().st_dev != self._root.stat().st_dev:
            raise SetupError(self._shelf_sentence("they are on different file systems"))

    def _shelf_sentence(self, reason: str) -> str:
        return (
            f"Versions wait in {self._shelf} before they are renamed into {self._root}, and that does "
            f"not work ({reason}): mount the volume one level above both."
        )

    @contextlib.contextmanager
    def _temporary_directory(self) -> Iterator[Path]:
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=self._shelf))
        try:
            temporary.chmod(0o755)  # the server runs as another user
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _rename_directory(self, source: Path, target: Path) -> None:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "it is there already", str(target))
        if not target.parent.is_dir():
            target.parent.mkdir()
            _sync(target.parent.parent)
        self._rename(source, target)

    def _rename(self, source: Path, target: Path) -> None:
        try:
            source.rename(target)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise SetupError(self._shelf_sentence("they are mounted apart")) from error
            raise
        _sync(target.parent)
        _sync(source.parent)


def _holder(lock: int) -> str:
    try:
        who = json.loads(os.pread(lock, 4096, 0))
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has only just begun"


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
