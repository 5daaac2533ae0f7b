"""The model repository: versions appear in it whole or not at all, and their numbers only grow.

What lies where, and why: docs/adr/0008-versions-on-a-shelf.md.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from modelops import companion as companions
from modelops import config_pbtxt
from modelops.candidate import GOLDEN_FILE, MODEL_FILE, PROVENANCE_FILE, Candidate, Published
from modelops.companion import Companion
from modelops.config_pbtxt import CONFIG_FILE
from modelops.contents import COMPANION_SUFFIX, Contents, journal_place
from modelops.local_storage import LocalStorage
from modelops.storage import SERVED, SHELF, Place, Storage, is_url

__all__ = ["GOLDEN_FILE", "MODEL_FILE", "PROVENANCE_FILE", "Candidate", "Published", "Repository"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""At most 100 letters: it names directories and files, with something before and behind it."""
_OTHER_URL = re.compile(r"(?!(s3|gs|as)://)[A-Za-z][A-Za-z0-9+.-]*:/")
"""As a path it would be a directory of that name here, and whoever meant another place would not notice."""


class Repository(Contents):
    """Changes a model repository; a change takes the lock, if `lock` is not held already.

    Raises of every change: SetupError, another process is at work in it, or it cannot be written.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._locks = 0

    @classmethod
    def open(cls, location: str | Path) -> Self:
        """Open the repository at a path or URL; nothing need be there yet.

        Raises:
            SetupError: a URL that Triton would not read, nothing, or the package for its object store is
                missing.
        """
        if not str(location) or (isinstance(location, str) and _OTHER_URL.match(location)):
            raise SetupError(
                f"The repository {str(location)!r} will not do: give a directory, or a URL that Triton "
                "reads, which begins with s3://, gs:// or as://."
            )
        if is_url(location):
            # Only who has an object store has the package for it, and it takes a second to import.
            from modelops.object_storage import ObjectStorage  # noqa: PLC0415

            return cls(ObjectStorage.at(str(location)))
        return cls(LocalStorage(Path(location)))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from changing anything; may be taken again inside itself.

        Raises:
            SetupError: another process holds it: which one and since when.
        """
        if self._locks:
            yield
            return
        with self._named("changed"), self._storage.lock():
            self._locks += 1
            try:
                yield
            finally:
                self._locks -= 1

    def check(self, candidate: Candidate) -> None:
        """Say what `publish` would refuse, before minutes of work go into the rest of a candidate.

        Raises:
            SetupError: the name will not do, or an older version of it promises something else than this one.
        """
        name = candidate.served.name
        if not _NAME.fullmatch(name) or name.endswith(COMPANION_SUFFIX):
            raise SetupError(
                f"The model name {name!r} will not do: use at most 100 letters, digits, '_', '-' and '.', "
                f"and not {COMPANION_SUFFIX!r} at its end."
            )
        if name in self.models():
            candidate.check_keeps(self.config(name))

    def publish(self, candidate: Candidate, *, first_only: bool = False) -> Published:
        """Write a model as the next version of its name: the first is served, later ones go to the shelf.

        A reader sees the version complete, labels included, or not at all, even if this process is killed.

        Args:
            candidate: what to publish.
            first_only: refuse where the name is there already.

        Raises:
            SetupError: the name will not do, or an older version of it promises something else than this one.
        """
        self.check(candidate)
        name = candidate.served.name
        with self.lock(), self._named("published", SERVED / name):
            served = self.served(name)
            if not served:
                return self._publish_first(candidate)
            if first_only:
                raise SetupError(f"{self._storage.where(SERVED / name)} is there already.")
            candidate.check_keeps(self.config(name))
            known = self._known(name)
            version = 1 + max(known.highest, *served, *self.shelved(name))
            # Labels first: labels without a version harm nobody, a version without labels stops consumers.
            self._write_companion(name, known.with_version(candidate.as_version(version)))
            directory = SHELF / name / str(version)
            self._storage.write_directory(directory, candidate.files())
            return Published(name, version, self._storage.where(directory), served=False)

    def write_companion(self, name: str, companion: Companion) -> None:
        """Replace what a model's companion says, in one step.

        Raises:
            SetupError: the generation does not grow with the rollout, so consumers would not notice.
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
        """Move a version from the shelf to what Triton sees; the next load of the model loads it.

        Raises:
            SetupError: it is not on the shelf.
        """
        self._move(name, version, SHELF, SERVED)

    def shelve(self, name: str, version: int) -> None:
        """Move a version that Triton sees to the shelf; the next load of the model unloads it.

        Raises:
            SetupError: it is not served, or the rollout needs it.
        """
        with self.lock():
            if version in self.companion(name).rollout.in_use:
                raise SetupError(f"Version {version} of {name!r} is in use by the rollout: it stays served.")
            self._move(name, version, SERVED, SHELF)

    def remove(self, name: str, version: int) -> None:
        """Delete a version on the shelf; its number is not used again.

        Raises:
            SetupError: it is not on the shelf.
        """
        with self.lock(), self._named("removed", SHELF / name / str(version)):
            if version not in self.shelved(name):
                raise SetupError(f"Version {version} of {name!r} is not on the shelf; nothing was removed.")
            self._storage.remove(SHELF / name / str(version))
            self._write_companion(name, self._known(name))

    def add_file(self, name: str, version: int, file: str, content: bytes) -> None:
        """Write a file into a version, or replace it, in one step: a plan, or what is known about one.

        Raises:
            SetupError: there is no such version.
        """
        with self.lock():
            place = self._place(name, version) / file
            with self._named("written", place):
                self._storage.write(place, content)

    def write_journal(self, name: str, content: bytes) -> None:
        """Write down what a change of a model's rollout is about to do; empty once it has ended."""
        with self.lock(), self._named("written", journal_place(name)):
            self._storage.write(journal_place(name), content)

    def _publish_first(self, candidate: Candidate) -> Published:
        name, model = candidate.served.name, SERVED / candidate.served.name
        there = self._storage.names(model)
        if there and CONFIG_FILE not in there:
            raise SetupError(
                f"{self._storage.where(model)} is there, but without a {CONFIG_FILE}: move it away."
            )
        if there:
            candidate.check_keeps(self.config(name))
        # A companion without its model: of a first version that died half way, or of a model moved away.
        known = self._known(name) if self.has_companion(name) else Companion(Rollout(generation=0, live=0))
        version = 1 + max(known.highest, *self.shelved(name), 0)
        rollout = Rollout(generation=known.rollout.generation + 1, live=version)
        kept = replace(known, rollout=rollout).only(frozenset(self.shelved(name)))
        companion = kept.with_version(candidate.as_version(version))
        # Before the model, which must not be seen without labels.
        self._write_companion(name, companion)
        if there:
            self._storage.write_directory(model / str(version), candidate.files())
        else:
            files = {f"{version}/{path}": content for path, content in candidate.files().items()}
            configs = config_pbtxt.config_files(candidate.served)
            self._storage.write_directory(
                model, files | {path: text.encode() for path, text in configs.items()}
            )
        return Published(name, version, self._storage.where(model / str(version)), served=True)

    def _known(self, name: str) -> Companion:
        """Return the companion, without versions that are gone or never came."""
        companion = self.companion(name)
        named = companion.rollout.in_use | set(companion.rollout.withdrawn)
        return companion.only(named | {*self.served(name), *self.shelved(name)})

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
