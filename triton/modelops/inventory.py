"""Inventory: which versions of which models there are, what they do, and which pods have them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from consumer.contract import Parameter
from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from modelops import journal
from modelops.candidate import PROVENANCE_FILE
from modelops.fleet import Fleet, Pod, VersionState
from modelops.provenance import Provenance
from modelops.repository import Repository
from modelops.rollouts import state_of


@dataclass(frozen=True)
class VersionRow:
    """One version.

    state: live, previous, canary 20 %, shadow, withdrawn, loaded or shelf.
    provenance: as provenance.json says; None where there is none, or none that can be read.
    loaded_on: names of the pods on which it is READY.
    """

    model: str
    version: int
    state: str
    labels: tuple[str, ...]
    digest: str
    provenance: Provenance | None
    loaded_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """All versions, oldest first, and what is amiss.

    pods: that were asked; those among them that did not answer are in `remarks`.
    complete: whether every pod answered, and every companion could be read.
    """

    versions: tuple[VersionRow, ...]
    pods: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    complete: bool = True


def take(repository: Repository, fleet: Fleet | None, models: Sequence[str] | None = None) -> Inventory:
    """Take stock of a repository, and of the pods where there are any to ask.

    A model whose companion is damaged does not hide the others, unless it is asked for by name.

    Raises:
        SetupError: the repository cannot be read.
    """
    rows: list[VersionRow] = []
    remarks: list[str] = []
    complete = True
    names = repository.models() if models is None else models
    if not names:
        remarks.append(f"There is no model in {repository.location}: is this the repository (--repository)?")
    for model in names:
        if not repository.has_companion(model):
            remarks.append(f"{model} has no {companion_name(model)}: it was not published by vault-ml.")
            continue
        try:
            companion = repository.companion(model)
        except SetupError as error:
            if models is not None:
                raise
            complete = False
            remarks.append(str(error))
            continue
        loaded, silent, behind = _loaded(fleet, model, companion.rollout)
        complete = complete and not silent
        remarks += [each for each in (*silent, *behind) if each not in remarks]
        remarks += _interrupted(repository, model)
        served = repository.served(model)
        for version in sorted([*served, *repository.shelved(model)]):
            known = companion.versions.get(version)
            rows.append(
                VersionRow(
                    model=model,
                    version=version,
                    state=state_of(companion.rollout, version, served=version in served),
                    labels=known.labels if known else (),
                    digest=known.digest if known else "",
                    provenance=_provenance(repository, model, version),
                    loaded_on=tuple(
                        pod for pod, states in loaded.items() if version in states and states[version].ready
                    ),
                )
            )
    pods = tuple(pod.name for pod in fleet.pods) if fleet else ()
    return Inventory(tuple(rows), pods, tuple(remarks), complete)


def _interrupted(repository: Repository, model: str) -> list[str]:
    """Say which change was begun and not ended; nothing where all were."""
    try:
        entry = journal.read(repository, model)
    except SetupError as error:
        return [str(error)]
    if entry is None:
        return []
    return [f"`{entry.command}` of {model} was interrupted: run it again, or any other change of {model}."]


def _provenance(repository: Repository, model: str, version: int) -> Provenance | None:
    """Read what is known of a version; one of somebody else's making need not say."""
    if PROVENANCE_FILE not in repository.files(model, version):
        return None
    try:
        return Provenance.from_json(repository.read(model, version, PROVENANCE_FILE))
    except ValueError:
        return None


def _loaded(
    fleet: Fleet | None, model: str, rollout: Rollout
) -> tuple[dict[str, Mapping[int, VersionState]], list[str], list[str]]:
    """Ask every pod for its versions and its rollout; says which did not answer, and which lag behind."""
    if fleet is None:
        return {}, [], []

    def ask(pod: Pod) -> tuple[Mapping[int, VersionState], str]:
        versions = pod.versions(model)
        try:
            return versions, pod.parameters(companion_name(model)).get(Parameter.ROLLOUT, "")
        except SetupError:
            return versions, ""  # it has not loaded the companion

    answers = fleet.each(ask)
    silent = [f"{answer.pod.name}: {answer.failure}" for answer in answers if answer.failure]
    behind = [
        f"{answer.pod.name} {lack}: run `vault-ml model load {model}`."
        for answer in answers
        if answer.value is not None
        for lack in _lacks(rollout, *answer.value)
    ]
    loaded = {answer.pod.name: answer.value[0] for answer in answers if answer.value is not None}
    return loaded, silent, behind


def _lacks(rollout: Rollout, versions: Mapping[int, VersionState], said: str) -> Iterator[str]:
    lacking = [each for each in sorted(rollout.in_use) if each not in versions or not versions[each].ready]
    if lacking:
        yield f"lacks version {', '.join(map(str, lacking))}, which is in use"
    if said != rollout.to_json():
        yield "has another rollout than the one on disk"
