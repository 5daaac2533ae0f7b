"""Class names of a source model: from the user's file, the catalogue or the model's own metadata."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path

from consumer.errors import SetupError
from modelops.catalogue import known
from modelops.heads_darknet import DARKNET_METADATA


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
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"The labels in {file} cannot be read: {error}.") from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise SetupError(f"{file} holds no labels: write one class name a line, in class order.")
    return labels


def _from_names(path: Path, text: str) -> tuple[str, ...]:
    """Read Ultralytics' `names`, the text of a Python dict {0: 'person', ...}; parsed, never evaluated."""
    try:
        names = ast.literal_eval(text)
        items = names.items() if isinstance(names, dict) else enumerate(names)
        by_index = {int(index): str(name) for index, name in items}
        return tuple(by_index[index] for index in range(len(by_index)))
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise SetupError(
            f"The class names in the metadata of {path.name} cannot be read: give --labels FILE."
        ) from error
