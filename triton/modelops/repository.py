"""The model repository: versions appear in it whole or not at all, and their numbers only grow.

What lies where, and why: docs/adr/0008-versions-on-a-shelf.md.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from onnx import ModelProto

from consumer.contract import ModelVersion
from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from modelops import companion as companions
from modelops import config_pbtxt
from modelops.companion import Companion
from modelops.config_pbtxt import CONFIG_FILE, Served
from modelops.local_storage import LocalStorage
from modelops.storage import SERVED, SHELF, Place, Storage

MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"
PROVENANCE_FILE = "provenance.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_COMPANION_SUFFIX = companion_name("")


@dataclass(frozen=True)
class Candidate:
    """A model that is ready to be published."""

    served: Served
    model: ModelProto
    labels: tuple[str, ...]
    digest: str
    """Of the source model: `sha256:<hex>`."""
    provenance: bytes = b"{}"
    golden: bytes = b""


@dataclass(frozen=True)
class Published:
    """A version in the repository.

    directory: its path or URL. served: whether Triton sees it, or it waits on the shelf.
    """

    name: str
    version: int
    directory: str
    served: bool


class Repository:
    """Reads and changes a model repository; a change takes the lock, if `lock` is not held already."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._locks = 0

    @classmethod
    def open(cls, location: str | Path) -> Self:
        """Open the repository at a path or URL; nothing need be there yet.

        Raises:
            SetupError: a URL of a kind that Triton does not read.
        """
        return cls(LocalStorage(Path(location)))

    @property
    def location(self) -> str:
        """Path or URL, as Triton takes it."""
        return self._storage.location

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from changing anything; may be taken again inside itself.

        Raises:
            SetupError: another process holds it: which one and since when.
        """
        if self._locks:
            yield
            return
        with self._named("locked"), self._storage.lock():
            self._locks += 1
            try:
                yield
            finally:
                self._locks -= 1

    def models(self) -> list[str]:
        """Names of the models, without their companions."""
        with self._named("read"):
            return [
                name
                for name in self._storage.names(SERVED)
                if not name.endswith(_COMPANION_SUFFIX) and CONFIG_FILE in self._storage.names(SERVED / name)
            ]

    def has_companion(self, name: str) -> bool:
        """Whether a model has its companion beside it; one that was not published here may have none."""
        with self._named("read"):
            return CONFIG_FILE in self._storage.names(SERVED / companion_name(name))

    def served(self, name: str) -> list[int]:
        """Numbers of the versions that Triton sees, oldest first."""
        return self._versions(SERVED / name)

    def shelved(self, name: str) -> list[int]:
        """Numbers of the versions on the shelf, oldest first."""
        served = self.served(name)
        return [version for version in self._versions(SHELF / name) if version not in served]

    def config(self, name: str) -> Served:
        """What all versions of a model promise, as its config.pbtxt says it.

        Raises:
            SetupError: there is no such model, or its config.pbtxt breaks the contract.
        """
        file = SERVED / name / CONFIG_FILE
        return config_pbtxt.read(self._text(file), self._storage.where(file))

    def companion(self, name: str) -> Companion:
        """Labels and digests of a model's versions, and its rollout.

        Raises:
            SetupError: there is none, or it cannot be understood.
        """
        file = SERVED / companion_name(name) / CONFIG_FILE
        return companions.read(self._text(file), self._storage.where(file))

    def read(self, name: str, version: int, file: str) -> bytes:
        """Content of a file of a version, served or on the shelf.

        Raises:
            SetupError: there is no such version or file.
        """
        place = self._place(name, version) / file
        with self._named("read", place):
            return self._storage.read(place)

    def files(self, name: str, version: int) -> list[str]:
        """Names of the files of a version."""
        place = self._place(name, version)
        with self._named("read", place):
            return self._storage.names(place)

    def where(self, name: str, version: int) -> str:
        """Path or URL of a version's directory."""
        return self._storage.where(self._place(name, version))

    def leftovers(self) -> list[str]:
        """Where something lies that a dead publisher left; the next change of anything removes it."""
        with self._named("read"):
            return self._storage.leftovers()

    def publish(self, candidate: Candidate, *, first_only: bool = False) -> Published:
        """Write a model as the next version of its name: the first is served, later ones go to the shelf.

        A reader sees the version complete, labels included, or not at all, even if this process is killed.

        Args:
            candidate: what to publish.
            first_only: refuse where the name is there already.

        Raises:
            SetupError: the name will not do, the repository cannot be written, another process is at work in
                it, or an older version of the name promises something else than this one.
        """
        name = candidate.served.name
        if not _NAME.fullmatch(name) or name.endswith(_COMPANION_SUFFIX):
            raise SetupError(
                f"The model name {name!r} will not do: use letters, digits, '_', '-' and '.' only, "
                f"and not {_COMPANION_SUFFIX!r} at its end."
            )
        with self.lock(), self._named("published", SERVED / name):
            served = self.served(name)
            if served and first_only:
                raise SetupError(f"{self._storage.where(SERVED / name)} is there already.")
            known = self._known(name) if served or self.has_companion(name) else None
            version = 1 + max(known.highest if known else 0, *served, *self.shelved(name), 0)
            if not served:
                return self._publish_first(candidate, version, known)
            assert known is not None  # noqa: S101 - as said by the line that read it
            _check_same_contract(self.config(name), candidate.served)
            # Labels first: labels without a version harm nobody, a version without labels stops consumers.
            self._write_companion(name, known.with_version(_version(candidate, version)))
            directory = SHELF / name / str(version)
            self._storage.write_directory(directory, _version_files(candidate))
            return Published(name, version, self._storage.where(directory), served=False)

    def write_companion(self, name: str, companion: Companion) -> None:
        """Replace what a model's companion says, in one step.

        Raises:
            SetupError: the generation does not grow with the rollout, which consumers would not notice, or
                another process is at work.
        """
        with self.lock(), self._named("changed", SERVED / companion_name(name)):
            there = self.companion(name).rollout
            if companion.rollout != there and companion.rollout.generation <= there.generation:
                raise SetupError(
                    f"The rollout of {name!r} is at generation {there.generation} by now: "
                    "look at it again, then repeat."
                )
            self._write_companion(name, companion)

    def serve(self, name: str, version: int) -> None:
        """Move a version from the shelf to what Triton sees; it is loaded by the next load of the model.

        Raises:
            SetupError: it is not on the shelf, or another process is at work.
        """
        self._move(name, version, SHELF, SERVED)

    def shelve(self, name: str, version: int) -> None:
        """Move a version that Triton sees to the shelf; it is unloaded by the next load of the model.

        Raises:
            SetupError: it is not served, the rollout sends recordings to it, or another process is at work.
        """
        with self.lock():
            if version in self.companion(name).rollout.in_use:
                raise SetupError(f"Version {version} of {name!r} is in use by the rollout: it stays served.")
            self._move(name, version, SERVED, SHELF)

    def remove(self, name: str, version: int) -> None:
        """Delete a version on the shelf; its number is not used again.

        Raises:
            SetupError: it is not on the shelf, or another process is at work.
        """
        with self.lock(), self._named("removed", SHELF / name / str(version)):
            if version not in self.shelved(name):
                raise SetupError(f"Version {version} of {name!r} is not on the shelf; nothing was removed.")
            self._storage.remove(SHELF / name / str(version))
            self._write_companion(name, self._known(name))

    def add_file(self, name: str, version: int, file: str, content: bytes) -> None:
        """Write a file into a version, or replace it, in one step: a plan, or what is known about one.

        Raises:
            SetupError: there is no such version, or another process is at work.
        """
        with self.lock():
            place = self._place(name, version) / file
            with self._named("written", place):
                self._storage.write(place, content)

    def journal(self, name: str) -> bytes:
        """What a change of a model's rollout wrote down before it began; empty where none is under way."""
        place = _journal(name)
        with self._named("read", place):
            try:
                return self._storage.read(place)
            except FileNotFoundError:
                return b""

    def write_journal(self, name: str, content: bytes) -> None:
        """Write down what a change of a model's rollout is about to do; empty once it has ended.

        Raises:
            SetupError: another process is at work.
        """
        with self.lock(), self._named("written", _journal(name)):
            self._storage.write(_journal(name), content)

    def _publish_first(self, candidate: Candidate, version: int, known: Companion | None) -> Published:
        name, model = candidate.served.name, SERVED / candidate.served.name
        there = self._storage.names(model)
        if there and CONFIG_FILE not in there:
            raise SetupError(
                f"{self._storage.where(model)} is there, but without a {CONFIG_FILE}: move it away."
            )
        if there:
            _check_same_contract(self.config(name), candidate.served)
        rollout = Rollout(generation=known.rollout.generation + 1 if known else 1, live=version)
        companion = known or Companion(rollout)
        companion = replace(companion, rollout=rollout).with_version(_version(candidate, version))
        # Before the model, which must not be seen without labels.
        self._write_companion(name, companion)
        files = _version_files(candidate)
        if there:
            self._storage.write_directory(model / str(version), files)
        else:
            whole = {f"{version}/{path}": content for path, content in files.items()}
            texts = config_pbtxt.config_files(candidate.served)
            self._storage.write_directory(
                model, whole | {path: text.encode() for path, text in texts.items()}
            )
        return Published(name, version, self._storage.where(model / str(version)), served=True)

    def _known(self, name: str) -> Companion:
        """Return the companion, without versions that are gone or never came."""
        return self.companion(name).only(frozenset([*self.served(name), *self.shelved(name)]))

    def _write_companion(self, name: str, companion: Companion) -> None:
        directory = SERVED / companion_name(name)
        text = companions.render(name, companion).encode()
        if self._storage.names(directory):
            self._storage.write(directory / CONFIG_FILE, text)
        else:
            files = {f"1/{MODEL_FILE}": companions.model_bytes(), CONFIG_FILE: text}
            self._storage.write_directory(directory, files)

    def _move(self, name: str, version: int, source: Place, target: Place) -> None:
        with self.lock(), self._named("moved", source / name / str(version)):
            if version not in (self.shelved(name) if source.on_shelf else self.served(name)):
                lies = "on the shelf" if source.on_shelf else "served"
                raise SetupError(f"Version {version} of {name!r} is not {lies}; nothing was moved.")
            self._storage.move(source / name / str(version), target / name / str(version))

    def _versions(self, model: Place) -> list[int]:
        with self._named("read", model):
            numbers = [name for name in self._storage.names(model) if name.isdecimal() and name[0] != "0"]
            return sorted(int(number) for number in numbers if self._storage.is_whole(model / number))

    def _place(self, name: str, version: int) -> Place:
        for area in (SERVED, SHELF):
            if version in self._versions(area / name):
                return area / name / str(version)
        raise SetupError(
            f"There is no version {version} of {name!r} in {self.location}; "
            f"there are {[*self.served(name), *self.shelved(name)]}."
        )

    def _text(self, file: Place) -> str:
        with self._named("read", file):
            try:
                return self._storage.read(file).decode()
            except (FileNotFoundError, UnicodeDecodeError) as error:
                raise SetupError(
                    f"{self._storage.where(file)} is missing or no text: publish a model with "
                    "`vault-ml model export`, or say where it is with --repository."
                ) from error

    @contextlib.contextmanager
    def _named(self, done: str, place: Place = SERVED) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SetupError(f"{self._storage.where(place)} could not be {done}: {error}.") from error


def _journal(name: str) -> Place:
    return SHELF / f".journal-{name}.json"  # no model's name begins with a dot


def _version(candidate: Candidate, version: int) -> ModelVersion:
    return ModelVersion(str(version), candidate.labels, candidate.digest)


def _version_files(candidate: Candidate) -> dict[str, bytes]:
    """Files of a version; the provenance comes last, so that a version without it is none (object stores)."""
    return {
        MODEL_FILE: candidate.model.SerializeToString(),
        GOLDEN_FILE: candidate.golden,
        PROVENANCE_FILE: candidate.provenance,
    }


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
