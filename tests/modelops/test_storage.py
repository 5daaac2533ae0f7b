"""A crash at any moment leaves the old state or the new, and two publishers never meet."""

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from consumer.errors import SetupError
from modelops.object_lock import ObjectLock
from modelops.object_storage import ObjectStorage
from modelops.object_store import Address, ObjectStore
from modelops.ports import free_ports
from modelops.repository import Repository
from modelops.verify import verify
from tests.modelops.candidates import candidate
from tests.modelops.conftest import PythonRunner
from tests.modelops.crashing import OPERATIONS

ROOT = Path(__file__).parents[2]

# What a reader sees


def _state(repository: Repository) -> object:
    """All that a reader sees, wherever it lies: versions with their files and labels, and the rollout."""
    return {
        name: (
            repository.companion(name).rollout,
            [_digest(text.encode()) for text in repository.config_texts(name).values()],
            [_version(repository, name, version) for version in repository.served(name)],
            [_version(repository, name, version) for version in repository.shelved(name)],
        )
        for name in repository.models()
    }


def _version(repository: Repository, name: str, version: int) -> object:
    files = {file: _digest(repository.read(name, version, file)) for file in repository.files(name, version)}
    return version, files, repository.companion(name).versions[version]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _prepare(repository: Repository, operation: str, *, first: bool) -> None:
    """Version 1 in service and version 2 where the operation expects it."""
    if not first:
        repository.publish(candidate())
        repository.publish(candidate())
        if operation == "shelve":
            repository.serve("yolo", 2)


CRASHES = [
    pytest.param("publish", True, id="first version"),
    *(pytest.param(operation, False, id=operation) for operation in OPERATIONS),
]


# A directory


@pytest.fixture(scope="module")
def crash() -> Iterator[Callable[[str, str, int], str]]:
    """Run an operation on a repository in a process that dies at a moment; gives `killed` or `done`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.modelops.crashing"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'triton'}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip

        def run(location: str, operation: str, moment: int) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{location}\t{operation}\t{moment}\n")
            process.stdin.flush()
            return process.stdout.readline().rstrip()

        yield run
        process.kill()


@pytest.mark.parametrize(("operation", "first"), CRASHES)
def test_kill_9_at_any_moment_leaves_the_old_state_or_the_new(
    operation: str, first: bool, tmp_path: Path, crash: Callable[[str, str, int], str]
) -> None:
    _prepare(Repository.open(tmp_path / "before" / "repository"), operation, first=first)
    (tmp_path / "before").mkdir(exist_ok=True)
    after = Repository.open(shutil.copytree(tmp_path / "before", tmp_path / "after") / "repository")
    before = _state(Repository.open(tmp_path / "before" / "repository"))
    OPERATIONS[operation](after)
    allowed = [before, _state(after)]
    seen = []
    for moment in range(1, 1000):
        repository = Repository.open(shutil.copytree(tmp_path / "before", tmp_path / "now") / "repository")
        outcome = crash(repository.location, operation, moment)
        seen.append(allowed.index(_state(repository)))
        assert all("again" in problem for problem in verify(repository))
        highest = max([0, *_numbers(repository)])
        published = repository.publish(candidate())
        assert published.version > highest
        assert verify(repository) == []
        shutil.rmtree(tmp_path / "now")
        if outcome == "done":
            break
        assert outcome == "killed"
    assert len(seen) > 5, "or nothing was killed"
    assert seen == sorted(seen), "never back to the old state"
    assert set(seen) == {0, 1}


def _numbers(repository: Repository) -> list[int]:
    return [
        number
        for name in repository.models()
        for number in (*repository.served(name), *repository.shelved(name))
    ]


def test_a_second_publisher_is_told_who_is_at_work(tmp_path: Path, run_python: PythonRunner) -> None:
    repository = Repository.open(tmp_path / "repository")
    holder = run_python(
        "import signal, sys; sys.path[:0] = ['.', 'triton']\n"
        "from modelops.repository import Repository\n"
        "with Repository.open(sys.argv[1]).lock(): print('held', flush=True); signal.pause()",
        repository.location,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"

    with pytest.raises(SetupError, match=rf"Another process changes .*process {holder.pid} on .*, since 2"):
        repository.publish(candidate())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert repository.publish(candidate()).version == 1


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(candidate())
    before = _state(repository)

    with _file_size_limit(1000), pytest.raises(SetupError, match=r"yolo could not be published: .*too large"):
        repository.publish(candidate())
    assert _state(repository) == before
    assert repository.leftovers() == []


@contextlib.contextmanager
def _file_size_limit(size_bytes: int) -> Iterator[None]:
    """Make the kernel refuse to write more into a file: the nearest to a full disk without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_shelf_on_another_file_system_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") / f"vault-ml-shelf-{os.getpid()}"
    elsewhere.mkdir()
    try:
        (tmp_path / "repository.shelf").symlink_to(elsewhere)
        with pytest.raises(
            SetupError, match=r"different file systems.*mount the volume one level above both"
        ):
            Repository.open(tmp_path / "repository").publish(candidate())
        assert list((tmp_path / "repository").iterdir()) == []
        assert list(elsewhere.iterdir()) == []
    finally:
        elsewhere.rmdir()


def test_a_shelf_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "repository.shelf").write_text("in the way")

    with pytest.raises(SetupError, match="mount the volume one level above both"):
        Repository.open(tmp_path / "repository").publish(candidate())


def test_a_repository_behind_a_link_keeps_its_shelf_beside_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "volume" / "repository").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "volume" / "repository")
    repository = Repository.open(tmp_path / "link")
    for _ in range(2):
        repository.publish(candidate())

    assert (tmp_path / "volume" / "repository.shelf" / "yolo" / "2").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "volume"]


# An object store


class Died(BaseException):
    """The process is gone: nothing in it catches this."""


class DyingStore(ObjectStore):
    """Changes nothing any more from its n-th change on."""

    def __init__(self, store: ObjectStore, moment: int) -> None:
        super().__init__(store._files)
        self._left = moment - 1

    def _change(self) -> None:
        if self._left <= 0:
            raise Died
        self._left -= 1

    def put(self, key: str, content: bytes) -> None:
        self._change()
        super().put(key, content)

    def create(self, key: str, content: bytes) -> bool:
        self._change()
        return super().create(key, content)

    def copy(self, source: str, target: str) -> None:
        self._change()
        super().copy(source, target)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)


def _later(store: ObjectStore, directory: str, where: str) -> ObjectLock:
    """Build the lock of somebody who comes an hour later."""
    return ObjectLock(store, directory, where, now=lambda: datetime.now(UTC) + timedelta(hours=1))


@pytest.mark.parametrize(("operation", "first"), CRASHES)
def test_a_writer_that_dies_between_two_objects_leaves_the_old_state_or_the_new(
    operation: str, first: bool
) -> None:
    memory = fsspec.filesystem("memory")
    _die_everywhere(operation, ObjectStore(memory), f"s3://bucket/{uuid4().hex}", first=first)


def test_a_publisher_that_dies_between_two_objects_of_s3_leaves_the_old_state_or_the_new(
    bucket_url: str,
) -> None:
    _die_everywhere("publish", ObjectStore.at(Address.parse(bucket_url)), bucket_url, first=True, step=4)


def _die_everywhere(
    operation: str, store: ObjectStore, bucket_url: str, *, first: bool, step: int = 1
) -> None:
    """Die before the first change, and then before each `step`-th."""
    begin = Address.parse(f"{bucket_url}/0")
    _prepare(Repository(ObjectStorage(begin, store, tick_seconds=0)), operation, first=first)
    prepared = {
        key.removeprefix(begin.root): store.get(key) for key in store.keys(begin.root.rpartition("/")[0])
    }
    after = Repository(ObjectStorage(begin, store, tick_seconds=0))
    before = _state(after)
    OPERATIONS[operation](after)
    allowed = [before, _state(after)]
    seen = []
    for moment in range(1, 1000, step):
        address = Address.parse(f"{bucket_url}/{moment}")
        for key, content in prepared.items():
            store.put(address.root + key, content)
        try:
            OPERATIONS[operation](
                Repository(ObjectStorage(address, DyingStore(store, moment), tick_seconds=0))
            )
            died = False
        except Died:
            died = True
        repository = Repository(ObjectStorage(address, store, make_lock=_later, tick_seconds=0))
        seen.append(allowed.index(_state(repository)))
        assert all("again" in problem for problem in verify(repository))
        highest = max([0, *_numbers(repository)])
        assert repository.publish(candidate()).version > highest
        assert verify(repository) == []
        if not died:
            break
    assert len(seen) > 3, "or nothing died"
    assert seen == sorted(seen), "never back to the old state"
    assert set(seen) == {0, 1}


def test_of_publishers_that_begin_together_each_gets_its_own_version_or_a_sentence(bucket_url: str) -> None:
    Repository.open(bucket_url).publish(candidate())
    together = threading.Barrier(4)

    def publish(_: int) -> int | None:
        repository = Repository.open(bucket_url)
        together.wait(30)
        try:
            return repository.publish(candidate()).version
        except SetupError as error:
            assert "Another process changes" in str(error)
            return None

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(publish, range(4)))
    published = [version for version in outcomes if version is not None]
    assert published, "one of them gets the lock"
    assert sorted(published) == Repository.open(bucket_url).shelved("yolo")


def test_of_two_that_find_a_dead_holders_lock_one_gets_it(bucket_url: str) -> None:
    address = Address.parse(bucket_url)
    directory = f"{address.root}.shelf/.lock"
    for _ in range(3):
        with (
            pytest.raises(Died),
            ObjectLock(DyingStore(ObjectStore.at(address), 2), directory, "here").hold(),
        ):
            pass
        with (
            pytest.raises(SetupError, match=rf"process {os.getpid()} on .* if it was killed until 2"),
            ObjectLock(ObjectStore.at(address), directory, "here").hold(),
        ):
            pass
        together, tried = threading.Barrier(2), threading.Barrier(2)

        def take(_: int, together: threading.Barrier = together, tried: threading.Barrier = tried) -> bool:
            lock = _later(ObjectStore.at(address), directory, "here")
            together.wait(30)
            try:
                with lock.hold():
                    tried.wait(30)
                    return True
            except SetupError:
                tried.wait(30)
                return False

        with ThreadPoolExecutor(2) as threads:
            assert sorted(threads.map(take, range(2))) == [False, True]


class CarelessStore(ObjectStore):
    """Takes no notice of a condition, as S3-compatible stores did for years."""

    def create(self, key: str, content: bytes) -> bool:
        self.put(key, content)
        return True


def test_a_store_that_cannot_keep_two_apart_is_refused() -> None:
    address = Address.parse(f"s3://bucket/{uuid4().hex}")
    store = CarelessStore(fsspec.filesystem("memory"))
    repository = Repository(ObjectStorage(address, store))

    with pytest.raises(SetupError, match="two publishers would not be kept apart"):
        repository.publish(candidate())
    assert repository.models() == []


def test_a_lock_is_renewed_while_it_is_held(bucket_url: str) -> None:
    store = ObjectStore.at(Address.parse(bucket_url))
    directory = f"{Address.parse(bucket_url).root}.shelf/.lock"
    lock = ObjectLock(store, directory, "here", lease_seconds=4.0)
    with lock.hold():
        first = store.get(f"{directory}/000001.json")
        _until(lambda: store.get(f"{directory}/000001.json") != first)
        lock.check()
        assert lock.is_held()
    assert not lock.is_held()


def test_a_slow_holder_changes_nothing_once_another_has_taken_over(bucket_url: str) -> None:
    address = Address.parse(bucket_url)
    locks: list[ObjectLock] = []

    def short(store: ObjectStore, directory: str, where: str) -> ObjectLock:
        locks.append(ObjectLock(store, directory, where, lease_seconds=6.0))
        return locks[-1]

    slow = Repository(ObjectStorage(address, ObjectStore.at(address), make_lock=short))
    slow.publish(candidate())
    with slow.lock():
        with Repository(ObjectStorage(address, ObjectStore.at(address), make_lock=_later)).lock():
            pass
        _until(lambda: _is_lost(locks[0]))
        with pytest.raises(SetupError, match="may be another's by now: run this again"):
            slow.publish(candidate())
    assert slow.shelved("yolo") == []
    assert slow.publish(candidate()).version == 2


def _is_lost(lock: ObjectLock) -> bool:
    try:
        lock.check()
    except SetupError:
        return True
    return False


def test_a_store_that_does_not_answer_is_one_sentence(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nobody = free_ports(1)[0]
    with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{nobody}/models/a could not be read: "):
        Repository.open(f"s3://127.0.0.1:{nobody}/models/a").publish(candidate())
    with pytest.raises(SetupError, match=r"/nowhere/a could not be (read|changed): .*bucket"):
        Repository.open(f"s3://http://{s3}/nowhere/a").publish(candidate())


@pytest.mark.parametrize(
    ("url", "scheme", "root", "options"),
    [
        pytest.param("s3://bucket/a/b/", "s3", "bucket/a/b", {}, id="aws"),
        pytest.param(
            "s3://minio.local:9000/bucket/a", "s3", "bucket/a",
            {"endpoint_url": "http://minio.local:9000"}, id="a host",
        ),
        pytest.param(
            "s3://https://minio.local:9000//bucket/a", "s3", "bucket/a",
            {"endpoint_url": "https://minio.local:9000"}, id="a host with TLS",
        ),
        pytest.param("gs://bucket/a", "gs", "bucket/a", {}, id="google"),
        pytest.param("as://who/box/a", "as", "box/a", {"account_name": "who"}, id="azure"),
    ],
)  # fmt: skip
def test_urls_are_those_of_triton(
    url: str, scheme: str, root: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY", raising=False)
    address = Address.parse(url)
    assert (address.scheme, address.root, address.options) == (scheme, root, options)
    assert address.url == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://", "gs://bucket/", "as://account/container", "s3://bucket/with space"]
)
def test_a_url_that_will_not_do_is_refused_with_those_that_do(url: str) -> None:
    with pytest.raises(SetupError, match=r"will not do for a model repository: write s3://bucket/path"):
        Repository.open(url)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(SetupError, match=r"needs the package gcsfs: .*pip install '\.\[gs\]'"):
        Repository.open("gs://bucket/models")


def _until(holds: Callable[[], bool], timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
