"""The model repository: versions appear in it whole or not at all."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from consumer.errors import SetupError
from modelops.config_pbtxt import Served, config_files, read, version_parameters

MODEL_FILE = "model.onnx"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Candidate:
    """A model that is ready to be published."""

    served: Served
    model: ModelProto
    labels: tuple[str, ...]
    digest: str
    """Of the source model: `sha256:<hex>`."""


@dataclass(frozen=True)
class Published:
    """A version in the repository."""

    name: str
    version: int
    directory: Path


def publish(repository: Path, candidate: Candidate, *, first_only: bool = False) -> Published:
    """Write a model as the next version of its name (the first is 1).

    A reader sees the version complete or not at all, even if this process is killed: everything is written
    beside its place, synced, and renamed.

    Args:
        repository: its directory; made if missing.
        candidate: what to publish.
        first_only: refuse where the name is there already.

    Raises:
        SetupError: the name will not do, the repository cannot be written, another process published the same
            version, or an older version of the name promises something else than this one.
    """
    served = candidate.served
    if not _NAME.fullmatch(served.name):
        raise SetupError(
            f"The model name {served.name!r} will not do: use letters, digits, '_', '-' and '.' only."
        )
    model_directory = repository / served.name
    try:
        repository.mkdir(parents=True, exist_ok=True)
        if first_only or not (model_directory / "config.pbtxt").is_file():
            return _publish_first(model_directory, candidate)
        return _publish_next(model_directory, candidate)
    except OSError as error:
        raise SetupError(f"{model_directory} could not be published: {error}.") from error


def versions(model_directory: Path) -> list[int]:
    """Numbers of the versions that are there, oldest first."""
    return sorted(int(path.name) for path in model_directory.glob("[0-9]*") if path.name.isdigit())


def _publish_first(model_directory: Path, candidate: Candidate) -> Published:
    with _temporary_directory(model_directory.parent, f".{model_directory.name}.") as temporary:
        for path, text in config_files(candidate.served).items():
            file = temporary / path
            file.parent.mkdir(exist_ok=True)
            _write(file, (text + version_parameters(1, candidate.labels, candidate.digest)).encode())
        (temporary / "1").mkdir()
        _write(temporary / "1" / MODEL_FILE, candidate.model.SerializeToString())
        for directory in (temporary / "configs", temporary / "1", temporary):
            _sync(directory)
        _rename(temporary, model_directory)
    return Published(candidate.served.name, 1, model_directory / "1")


def _publish_next(model_directory: Path, candidate: Candidate) -> Published:
    configs = [model_directory / "config.pbtxt", *sorted(model_directory.glob("configs/*.pbtxt"))]
    _check_same_contract(read(configs[0].read_text(), str(configs[0])), candidate.served)
    version = max(versions(model_directory), default=0) + 1
    with _temporary_directory(model_directory, f".{version}.") as temporary:
        _write(temporary / MODEL_FILE, candidate.model.SerializeToString())
        _sync(temporary)
        # Labels first: a version without labels would stop consumers, labels without a version harm nobody.
        for config in configs:
            text = config.read_text() + version_parameters(version, candidate.labels, candidate.digest)
            replacement = config.with_name(f".{config.name}.{os.getpid()}")
            _write(replacement, text.encode())
            replacement.rename(config)
            _sync(config.parent)
        _rename(temporary, model_directory / str(version))
    return Published(candidate.served.name, version, model_directory / str(version))


def _check_same_contract(there: Served, new: Served) -> None:
    fields = ("height", "width", "max_detections", "resize", "nms_in_graph")
    differences = [
        f"{field} {getattr(there, field)} there, {getattr(new, field)} here"
        for field in fields
        if getattr(there, field) != getattr(new, field)
    ]
    if differences:
        raise SetupError(
            f"A new version of {new.name!r} must keep what the older ones promise "
            f"({'; '.join(differences)}): export it alike, or under another --name."
        )


@contextlib.contextmanager
def _temporary_directory(parent: Path, prefix: str) -> Iterator[Path]:
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    try:
        temporary.chmod(0o755)  # the server runs as another user
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def _rename(temporary: Path, target: Path) -> None:
    if target.exists():
        raise SetupError(f"{target} appeared meanwhile: another export was faster, run this one again.")
    temporary.rename(target)
    _sync(target.parent)
