"""The journal: which change of a rollout is under way, for whoever comes after a dead command."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from consumer.errors import SetupError
from consumer.rollout import Rollout
from modelops.contents import journal_place
from modelops.repository import Repository


@dataclass(frozen=True)
class Entry:
    """One change, written down before it touches anything.

    command: as the user gave it, to know it again.
    before, after: the rollout; the same where only versions are loaded or unloaded.
    served: the versions that it takes from the shelf, which an undo puts back.
    """

    command: str
    before: Rollout
    after: Rollout
    served: tuple[int, ...] = ()


def read(repository: Repository, model: str) -> Entry | None:
    """Return the change that was begun and not ended; None where all were.

    Raises:
        SetupError: the journal cannot be read.
    """
    content = repository.journal(model)
    if not content.strip():
        return None
    try:
        fields = json.loads(content)
        return Entry(
            str(fields["command"]),
            Rollout.from_json(fields["before"]),
            Rollout.from_json(fields["after"]),
            tuple(int(version) for version in fields["served"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(
            f"The journal of {model!r}, {journal_place(model).path} on the shelf of {repository.location}, "
            f"cannot be read ({error}): remove it, then bring the pods in line with `vault-ml model load`."
        ) from error


def begin(repository: Repository, model: str, entry: Entry) -> None:
    """Write down what is about to be changed."""
    fields = {
        "command": entry.command,
        "before": entry.before.to_json(),
        "after": entry.after.to_json(),
        "served": list(entry.served),
    }
    repository.write_journal(model, json.dumps(fields).encode())


def end(repository: Repository, model: str) -> None:
    """Write down that nothing is under way."""
    repository.write_journal(model, b"")


def to_put_back(entry: Entry, rollout: Rollout, served: Iterable[int]) -> list[int]:
    """Return what an undone change took from the shelf and nobody uses: not in the rollout, still served."""
    used = rollout.in_use | set(rollout.withdrawn)
    return [version for version in entry.served if version not in used and version in served]
