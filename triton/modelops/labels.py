"""Class names of a source model: from the user's file, the catalogue or the model's own metadata."""

import ast
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from consumer.errors import SetupError
from modelops.catalogue import known
from modelops.heads_darknet import DARKNET_METADATA

_LONGEST_LABEL = 200
"""What consumers read of all versions at once must fit into one answer of Triton's."""
_SHOWN = 40


def read_labels(
    path: Path, digest: str, metadata: Mapping[str, str], file: Path | None
) -> tuple[str, ...] | None:
    """Give the names in class order, or None where nobody says them.

    Args:
        path: the source, for sentences.
        digest: SHA-256 of the source.
        metadata: of the source.
        file: one name a line, from the user.

    Raises:
        SetupError: the user's file or the metadata cannot be read.
    """
    if file is not None:
        return _from_file(file)
    entry = known(digest)
    if entry is not None:
        return entry.labels
    in_darknet = _from_darknet(path, metadata.get(DARKNET_METADATA, "{}"))
    if in_darknet:
        return in_darknet
    if "names" in metadata:
        return _from_names(path, metadata["names"])
    return None


def _from_darknet(path: Path, text: str) -> tuple[str, ...]:
    try:
        labels = json.loads(text).get("labels") or []
        return tuple(str(label) for label in labels)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SetupError(
            f"The metadata {DARKNET_METADATA} in {path.name} is damaged: convert its .weights again."
        ) from error


def _from_file(file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
    except OSError as error:
        raise SetupError(
            f"The labels in {file} cannot be read ({error.strerror}): give a file with one class name a line."
        ) from error
    except UnicodeDecodeError as error:
        raise SetupError(f"The labels in {file} cannot be read: save it as UTF-8 text.") from error
    labels = tuple(line for line in map(str.strip, text.splitlines()) if line)
    if not labels:
        raise SetupError(f"{file} holds no labels: write one class name a line, in class order.")
    return _checked(labels, str(file))


def _checked(labels: tuple[str, ...], where: str) -> tuple[str, ...]:
    for label in labels:
        if len(label) > _LONGEST_LABEL or any(unicodedata.category(letter) == "Cc" for letter in label):
            raise SetupError(
                f"{where} holds {label[:_SHOWN]!r}, which is no class name: give --labels FILE with one name "
                f"a line as UTF-8 text, at most {_LONGEST_LABEL} letters and no control characters."
            )
    return labels


def _from_names(path: Path, text: str) -> tuple[str, ...]:
    """Read Ultralytics' `names`, the text of a Python dict {0: 'person', ...}; parsed, never evaluated."""
    try:
        names = ast.literal_eval(text)
        items = names.items() if isinstance(names, dict) else enumerate(names)
        by_index = {int(index): str(name) for index, name in items}
        labels = tuple(by_index[index] for index in range(len(by_index)))
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise SetupError(
            f"The class names in the metadata of {path.name} cannot be read: give --labels FILE."
        ) from error
    return _checked(labels, f"The metadata of {path.name}")
