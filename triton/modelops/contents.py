"""What is in a model repository: read without the lock, whole at any moment."""

import contextlib
from collections.abc import Iterator

from consumer.errors import SetupError
from consumer.rollout import companion_name
from modelops import companion as companions
from modelops import config_pbtxt
from modelops.companion import Companion
from modelops.config_pbtxt import CONFIG_FILE, Served
from modelops.storage import SERVED, SHELF, Place, Storage

COMPANION_SUFFIX = companion_name("")


class Contents:
    """Reads a model repository."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def location(self) -> str:
        """Path or URL, as Triton takes it."""
        return self._storage.location

    def models(self) -> list[str]:
        """Names of the models, without their companions."""
        with self._named("read"):
            return [
                name
                for name in self._storage.names(SERVED)
                if not name.endswith(COMPANION_SUFFIX) and CONFIG_FILE in self._storage.names(SERVED / name)
            ]

    def lone_companions(self) -> list[str]:
        """Names of companions whose model is not there."""
        with self._named("read"):
            names = self._storage.names(SERVED)
        there = {companion_name(name) for name in self.models()}
        return [name for name in names if name.endswith(COMPANION_SUFFIX) and name not in there]

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

    def config_texts(self, name: str) -> dict[str, str]:
        """Texts of a model's config.pbtxt and of its variants, by their path or URL."""
        model = SERVED / name
        with self._named("read", model):
            variants = [each for each in self._storage.names(model / "configs") if each.endswith(".pbtxt")]
        files = [model / CONFIG_FILE, *(model / "configs" / variant for variant in variants)]
        return {self._storage.where(file): self._text(file) for file in files}

    def companion(self, name: str) -> Companion:
        """Labels and digests of a model's versions, and its rollout.

        Raises:
            SetupError: there is none, or it cannot be understood.
        """
        file = SERVED / companion_name(name) / CONFIG_FILE
        try:
            text = self._text(file)
        except SetupError as error:
            if name in self.models() and not self.has_companion(name):
                raise SetupError(
                    f"{self._storage.where(file)} is missing, which says the labels of all versions of "
                    f"{name!r}: bring it back, or move {self._storage.where(SERVED / name)} away and export "
                    "again."
                ) from error
            raise
        return companions.read(text, self._storage.where(file))

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

    def torn(self, name: str) -> list[str]:
        """Where a version of a model lies that is not whole, or lies in both places."""
        served, shelved = self._versions(SERVED / name), self._versions(SHELF / name)
        with self._named("read", SERVED / name):
            return [
                self._storage.where(area / name / number)
                for area, whole in ((SERVED, served), (SHELF, shelved))
                for number in _numbers(self._storage.names(area / name))
                if int(number) not in whole or (area.on_shelf and int(number) in served)
            ]

    def leftovers(self) -> list[str]:
        """Where something lies that a dead publisher left; the next change of anything removes it."""
        with self._named("read"):
            return self._storage.leftovers()

    def journal(self, name: str) -> bytes:
        """What a change of a model's rollout wrote down before it began; empty where none is under way."""
        place = journal_place(name)
        with self._named("read", place):
            try:
                return self._storage.read(place)
            except FileNotFoundError:
                return b""

    def _versions(self, model: Place) -> list[int]:
        with self._named("read", model):
            numbers = _numbers(self._storage.names(model))
            return sorted(int(number) for number in numbers if self._storage.is_whole(model / number))

    def _place(self, name: str, version: int) -> Place:
        for area in (SERVED, SHELF):
            if version in self._versions(area / name):
                return area / name / str(version)
        there = ", ".join(map(str, [*self.served(name), *self.shelved(name)])) or "none"
        raise SetupError(f"There is no version {version} of {name!r} in {self.location}; there are {there}.")

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
            where = self._storage.where(place)
            reason = error.strerror or str(error).rstrip(".")
            if error.filename not in {None, where}:
                reason = f"{reason} ({error.filename})"
            raise SetupError(f"{where} could not be {done}: {reason}.") from error


def journal_place(name: str) -> Place:
    """Where the journal of a model's rollout lies; no model's name begins with a dot."""
    return SHELF / f".journal-{name}.json"


def _numbers(names: list[str]) -> list[str]:
    """Return the names that Triton takes for versions."""
    return [name for name in names if name.isdecimal() and name[0] != "0"]
