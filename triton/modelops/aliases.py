"""Plain names for the directories of the embedded Triton: it starts its Python stubs through a shell.

Triton 2.51 writes the paths of a model and of its backend unquoted into that shell's command line
(python_backend, src/stub_launcher.cc), so with a space in one of them it waits for a stub that never comes.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from consumer.errors import SetupError

_PLAIN = re.compile(r"[A-Za-z0-9_./+,@%=-]+")


@dataclass(frozen=True)
class Aliases:
    """A temporary directory of links to directories whose own names may be anything."""

    directory: Path
    repository: str
    """As the server is told it."""
    backends: Path
    _meant: tuple[tuple[str, str], ...]

    @classmethod
    def make(cls, *, repository: Path | str, backends: Path, prefix: str) -> Self:
        """Link to both directories.

        Args:
            repository: a directory, or the URL of an object store, which needs no link.
            backends: a directory.
            prefix: of the temporary directory's name.

        Raises:
            SetupError: the temporary directory's own name is not plain, or it cannot be written to.
        """
        try:
            directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        except OSError as error:
            raise SetupError(f"Triton needs a temporary directory: {error}; set TMPDIR to one.") from error
        links = cls(
            directory,
            str(directory / "repository") if isinstance(repository, Path) else repository,
            directory / "backends",
            ((f"{directory}/repository", str(repository)), (f"{directory}/backends", str(backends))),
        )
        if not _PLAIN.fullmatch(str(directory)):
            links.remove()
            raise SetupError(
                f"Triton cannot work in the temporary directory {directory.parent}: set TMPDIR to one whose "
                "path has neither spaces nor letters beyond ASCII."
            )
        if isinstance(repository, Path):
            Path(links.repository).symlink_to(repository)
        links.backends.symlink_to(backends)
        return links

    def meant(self, text: str) -> str:
        """Put the directories' own names back into what Triton says."""
        for alias, own in self._meant:
            text = text.replace(alias, own)
        return text

    def remove(self) -> None:
        """Remove the links, not what they point to; idempotent."""
        shutil.rmtree(self.directory, ignore_errors=True)
