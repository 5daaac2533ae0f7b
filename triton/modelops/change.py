"""Carries out a change of a rollout: disk first, then every pod, or it is as if nothing had been asked.

    shelf -> served, load, READY, self-test     nobody is sent there yet; undone by the shelf
    the companion on disk                       from here on the change holds, also for a pod that restarts
    the companion on every pod, read back       undone by a newer state like the one before

The journal is written first. A command that dies is ended by the next one: it is finished where its companion
was written and undone where it was not, unless the same command is given again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from consumer.contract import Parameter
from consumer.errors import SetupError
from consumer.rollout import Rollout, companion_name
from modelops import journal, rollouts
from modelops.fleet import Answer, Fleet, Pod
from modelops.golden import GoldenAnswer
from modelops.journal import Entry
from modelops.pod_reports import Report, failures, not_undone, reports, undone_reports
from modelops.repository import GOLDEN_FILE, Repository
from modelops.rollouts import Turn
from modelops.selftest import read_golden, self_test

LOAD_SECONDS = 300.0
"""A version with many plans on a slow disk takes minutes."""
SEEN_SECONDS = 60.0
"""How long a network file system may show a pod what was there before."""
_ANSWER_SECONDS = 60.0
"""For a self-test: the first answer of a version may build CUDA graphs."""


@dataclass(frozen=True)
class Site:
    """Where a model is changed: a repository, and every pod that reads it."""

    repository: Repository
    fleet: Fleet
    model: str
    load_seconds: float = LOAD_SECONDS
    seen_seconds: float = SEEN_SECONDS
    say: Callable[[str], None] = field(default=lambda _: None)
    """Told each step as it begins."""


def carry_out(
    site: Site, command: str, decide: Callable[[Rollout], Turn], *, goes_back: bool = False
) -> Report:
    """Do what a command asks for, on disk and on every pod, or undo it.

    Args:
        site: where.
        command: with all that distinguishes it, to know it again after it was interrupted.
        decide: makes of the rollout before what shall be; its SetupError leaves everything as it is.
        goes_back: a rollback, which has done its work where it undoes what a dead command began.

    Raises:
        SetupError: the repository cannot be read or locked, or `decide` said so.
    """
    with site.repository.lock():
        checked = site.fleet.each(Pod.check)
        if any(answer.failure for answer in checked):
            return Report(
                False,
                f"Nothing was changed, because not every pod can be: {failures(checked)}",
                tuple(reports(checked, "ready")),
            )
        ended = _end_interrupted(site, command)
        try:
            report = ended.undone if goes_back else None
            report = report or ended.report or _change(site, command, decide, ended.taken)
        except SetupError as error:
            if not ended.remarks:
                raise
            raise SetupError(" ".join((*ended.remarks, str(error)))) from error
        return replace(report, remarks=(*ended.remarks, *report.remarks))


def _change(site: Site, command: str, decide: Callable[[Rollout], Turn], taken: Sequence[int]) -> Report:
    repository, model = site.repository, site.model
    now = datetime.now(UTC)
    before = repository.companion(model).rollout
    turn = decide(before)
    served = repository.served(model)
    wanted = turn.rollout.in_use | turn.loaded
    gone = sorted({*rollouts.expired(before, now), *turn.unloaded} - wanted)
    after = rollouts.numbered(before, rollouts.without(turn.rollout, gone))
    heard = max(answer.value or 0 for answer in site.fleet.each(lambda pod: pod.generation(model)))
    if heard > before.generation:
        # Somebody brought back an older copy of the companion: consumers would go on with the newer state.
        after = replace(after, generation=heard + 1)
    goldens = {version: _golden(site, version) for version in sorted(turn.tested)}
    lacking = sorted(wanted - set(served))
    entry = Entry(command, before, after, tuple(sorted({*lacking, *taken})))
    journal.begin(repository, model, entry)
    remarks = []
    for version in gone:
        if version in served:
            repository.shelve(model, version)
            if version not in turn.unloaded:
                remarks.append(f"Version {version} was withdrawn long enough ago: it is on the shelf now.")

    def undone(tried: Sequence[Answer[str]], reason: str) -> Report:
        report = _undo_versions(site, entry, tried, reason)
        shelved = [f"Version {version} stays on the shelf." for version in gone if version in turn.unloaded]
        return replace(report, remarks=(*remarks, *shelved))

    try:
        for version in lacking:
            repository.serve(model, version)
    except SetupError as error:
        return undone([], str(error))
    tested = _bring_versions(site, wanted, gone, goldens)
    if any(answer.failure for answer in tested):
        return undone(tested, failures(tested))
    report = _commit(site, entry, turn.sentence)
    details = {answer.pod.name: answer.value or "" for answer in tested}
    pods = tuple(
        replace(pod, detail=", ".join(filter(None, (details[pod.pod], pod.detail)))) if pod.done else pod
        for pod in report.pods
    )
    return replace(report, pods=pods, remarks=tuple(remarks))


def _commit(site: Site, entry: Entry, sentence: str) -> Report:
    """Write the companion and bring it to every pod; on failure, a state like the one before."""
    if entry.after != entry.before:
        site.say(f"Writing generation {entry.after.generation} of the rollout.")
        try:
            _write_rollout(site, entry.after)
        except SetupError as error:
            return _undo_versions(site, entry, [], str(error))
    site.say(f"Loading {companion_name(site.model)} on {_pods(site)}.")
    told = _bring_rollout(site, entry.after)
    if not any(answer.failure for answer in told):
        journal.end(site.repository, site.model)
        return Report(True, sentence, tuple(reports(told, f"generation {entry.after.generation}")))
    if entry.after == entry.before:
        return Report(False, f"Not done: {failures(told)}", tuple(reports(told, "done")))
    return _undo_rollout(site, entry, told)


def _undo_rollout(site: Site, entry: Entry, told: Sequence[Answer[None]]) -> Report:
    site.say("Undoing it on every pod.")
    restored = rollouts.back_to(entry.before, entry.after, datetime.now(UTC))
    _write_rollout(site, restored)
    undone = _bring_rollout(site, restored)
    if not any(answer.failure for answer in undone):
        journal.end(site.repository, site.model)
    return Report(
        False,
        f"It was undone, because not every pod took it: {failures(told)}{not_undone(undone)}",
        tuple(undone_reports(told, undone, f"undone, generation {restored.generation}")),
    )


def _undo_versions(site: Site, entry: Entry, tried: Sequence[Answer[str]], reason: str) -> Report:
    """Put back on the shelf what came from there, on disk first."""
    site.say("Undoing it on every pod.")
    rollout = site.repository.companion(site.model).rollout
    back = journal.to_put_back(entry, rollout, site.repository.served(site.model))
    for version in back:
        site.repository.shelve(site.model, version)
    undone = _bring_versions(site, rollout.in_use, back, {})
    journal.end(site.repository, site.model)
    return Report(
        False,
        f"Not done, and recordings go where they went before: {reason}{not_undone(undone)}",
        tuple(undone_reports(tried or undone, undone, "as before")),
    )


@dataclass(frozen=True)
class _Ended:
    """What became of a command that died before this one.

    report: of this one, where it is the same and all that was left has been done.
    taken: the versions that the dead one took from the shelf, which are this one's now.
    undone: that the dead one's change of the rollout was undone, where it was.
    """

    remarks: tuple[str, ...] = ()
    taken: tuple[int, ...] = ()
    report: Report | None = None
    undone: Report | None = None


def _end_interrupted(site: Site, command: str) -> _Ended:
    entry = journal.read(site.repository, site.model)
    if entry is None:
        return _Ended()
    same, was = entry.command == command, f"`{entry.command}` had been interrupted"
    rollout = site.repository.companion(site.model).rollout
    if entry.after == entry.before or rollout != entry.after:
        if same:
            return _Ended(taken=entry.served)
        site.say(f"{was}: undoing it.")
        versions = _undo_versions(site, entry, [], was)
        told = _bring_rollout(site, rollout)
        failed = failures(told) or " ".join(pod.detail for pod in versions.pods if "not undone" in pod.detail)
        remark = f"{was}, and is undone now{', except: ' + failed if failed else '.'}"
        back = (
            f"Nothing else was rolled back, {rollouts.summary(rollout)} Give the command again to go further."
        )
        report = Report(not failed, back, tuple(reports(told, f"generation {rollout.generation}")))
        return _Ended((remark,), undone=None if entry.after == entry.before else report)
    site.say(f"{was}: finishing it.")
    sentence = f"{was}, and is finished now: {rollouts.summary(rollout)}"
    if same:
        return _Ended(report=_commit(site, entry, sentence))
    told = _bring_rollout(site, rollout)
    if failed := failures(told):
        return _Ended((f"{was}, and not every pod has its state: {failed}",))
    journal.end(site.repository, site.model)
    return _Ended((sentence,))


def _bring_versions(
    site: Site, wanted: Collection[int], gone: Collection[int], goldens: dict[int, GoldenAnswer]
) -> list[Answer[str]]:
    """Load the model on every pod and wait for its versions; then test those that are to be tested."""
    site.say(
        f"Loading {site.model} on {_pods(site)}: "
        f"version{'s' if len(wanted) > 1 else ''} {', '.join(map(str, sorted(wanted)))}."
    )

    def bring(pod: Pod) -> str:
        pod.load_versions(
            site.model, wanted, gone, load_seconds=site.load_seconds, seen_seconds=site.seen_seconds
        )
        return ""

    loaded = site.fleet.each(bring)
    if not goldens or any(answer.failure for answer in loaded):
        return loaded
    site.say(f"Testing version {', '.join(map(str, goldens))} on every pod.")

    def test(pod: Pod) -> str:
        results = [
            (version, self_test(pod, site.model, version, golden, _ANSWER_SECONDS))
            for version, golden in goldens.items()
        ]
        return ", ".join(
            f"version {version} tested ({result.matched} of {result.boxes} boxes)"
            for version, result in results
        )

    return site.fleet.each(test)


def _bring_rollout(site: Site, rollout: Rollout) -> list[Answer[None]]:
    """Load the companion on every pod, and read back what it says then."""

    companion, expected = companion_name(site.model), {Parameter.ROLLOUT: rollout.to_json()}

    def bring(pod: Pod) -> None:
        pod.load_parameters(
            companion, expected, load_seconds=site.load_seconds, seen_seconds=site.seen_seconds
        )

    return site.fleet.each(bring)


def _write_rollout(site: Site, rollout: Rollout) -> None:
    companion = site.repository.companion(site.model)
    site.repository.write_companion(site.model, replace(companion, rollout=rollout))


def _golden(site: Site, version: int) -> GoldenAnswer:
    content = site.repository.read(site.model, version, GOLDEN_FILE)
    return read_golden(content, f"{site.repository.where(site.model, version)}/{GOLDEN_FILE}")


def _pods(site: Site) -> str:
    count = len(site.fleet.pods)
    return "the one pod" if count == 1 else f"{count} pods"
