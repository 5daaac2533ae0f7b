"""A soak: recordings keep coming while faults happen; then the books are balanced, from the outside."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from consumer.errors import SetupError
from consumer.topics import Record
from tests.brokers.topics import committed_offsets
from tests.faults import books, observer, recordings, stalls
from tests.faults.books import Balance, RightResults
from tests.faults.campaign import TROUBLES, Campaign, Happened, Say
from tests.faults.consumers import Consumer
from tests.faults.feeder import Feeder, Sent, send_once
from tests.faults.observer import Observer, read_to_end
from tests.faults.report import Report, count_kinds
from tests.faults.schedule import plan
from tests.faults.surroundings import CALM, FAULTY, PARTITIONS, Surroundings, Topics, surroundings

READY_SECONDS = 60.0
DRAIN_RESERVE_SECONDS = 50.0
"""Of the time that was asked for: so long the last recordings may take."""

LONGEST_DRAIN_SECONDS = 300.0
"""What has no outcome by then has none."""

CALM_SECONDS = 12.0
"""Between the last fault and the last recording."""

LONGEST_RETURN_SECONDS = 90.0
"""Until everything is back, when all is done."""

_TURN_SECONDS = 0.05
_PROGRESS_SECONDS = 10.0
_MOST_WAITING_SECONDS = 40.0
"""Recordings stop coming when so much of them waits: a run must come to an end."""

_AROUND_SECONDS = 5.0
_SHOWN_FAULTS = 8


@dataclass(frozen=True)
class Options:
    """What is asked of a soak.

    Args:
        minutes: how long it takes, start and end included.
        seed: decides what happens when, and what is stored.
        only: kinds of faults; all of them where it is empty.
        per_second: recordings.
        gap_seconds: between two faults; 0 leaves it to the plan.
    """

    minutes: float = 5.0
    seed: int = 1
    only: tuple[str, ...] = ()
    per_second: float = 8.0
    gap_seconds: float = 0.0

    @property
    def command(self) -> str:
        """What repeats this soak."""
        only = f" --only {','.join(self.only)}" if self.only else ""
        gap = f" --gap {self.gap_seconds:g}" if self.gap_seconds else ""
        asked = f"--minutes {self.minutes:g} --seed {self.seed} --rate {self.per_second:g}"
        return f"scripts/soak {asked}{only}{gap}"


@dataclass
class _Peaks:
    main_bytes: int = 0
    consumer_bytes: int = 0

    def note(self, consumers: Iterable[Consumer]) -> None:
        for consumer in consumers:
            main, together = consumer.memory_bytes()
            self.main_bytes = max(self.main_bytes, main)
            self.consumer_bytes = max(self.consumer_bytes, together)


@dataclass
class _Run:
    """What is known of a run when it is over, before the books are balanced."""

    began_at: float
    fed_seconds: float = 0.0
    sent: Sequence[Sent] = ()
    watcher: Observer | None = None
    happened: Sequence[Happened] = ()
    campaign: Campaign | None = None
    problems: list[str] = field(default_factory=list)
    peaks: _Peaks = field(default_factory=_Peaks)


def soak(options: Options, directory: Path, say: Say) -> Report:
    """Run one, and return what came of it.

    Args:
        options: what is asked.
        directory: an empty one, for all data and logs.
        say: takes a line for people.

    Raises:
        SetupError: something is missing, or does not start.
        ValueError: without faults something is wrong already.
    """
    started_at = time.monotonic()
    with surroundings(directory) as world:
        say("without faults first: what is right")
        right = fault_free(world)
        for consumer in world.consumers:
            consumer.start()
        _wait(lambda: all(each.ready for each in world.consumers), world.consumers, "consumers ready")
        run = _Run(time.monotonic())
        say(f"ready after {run.began_at - started_at:.0f} s")
        try:
            _feed(options, world, run, max(20.0, started_at + options.minutes * 60 - run.began_at), say)
        except TROUBLES as error:
            # What has happened until now is worth its books, though they will not balance.
            run.problems.append(f"The run itself broke off: {type(error).__name__}: {error}.")
            say(run.problems[-1])
        for consumer in world.everybody():
            consumer.close()
        return _report(options, world, run, right)


def fault_free(world: Surroundings) -> RightResults:
    """Return what a consumer makes of one message of each recipe that ends as a result, without faults."""
    bootstrap = world.cluster.bootstrap
    chosen = [
        recipe for recipe in recordings.RECIPES.values() if any(not each.causes for each in recipe.ends)
    ]
    send_once(bootstrap, CALM.source, chosen)
    wanted = sum(len(recipe.ends) for recipe in chosen)
    with Observer(bootstrap, (CALM.target, CALM.letters), PARTITIONS) as watcher:
        world.calm.start()
        _wait(lambda: len(watcher.sources) >= wanted, [world.calm], "results without faults")
    world.calm.close()
    return books.right_results(_read(world, CALM.source), _read(world, CALM.target))


def _feed(options: Options, world: Surroundings, run: _Run, seconds: float, say: Say) -> None:
    """Let recordings come and faults happen, then wait until all is done."""
    bootstrap = world.cluster.bootstrap
    run.fed_seconds = max(15.0, seconds - DRAIN_RESERVE_SECONDS)
    most_waiting = options.per_second * _MOST_WAITING_SECONDS
    end = run.began_at + run.fed_seconds
    with Observer(bootstrap, (FAULTY.target, FAULTY.letters), PARTITIONS) as watcher:
        feeder = Feeder(
            bootstrap,
            FAULTY.source,
            PARTITIONS,
            recordings.sequence(options.seed),
            per_second=options.per_second,
            held_back=lambda: len(feeder.sent) - len(watcher.first_seen) > most_waiting,
            # What takes long must be done before the others are.
            seconds_left=lambda: end - time.monotonic(),
        )
        run.watcher, run.sent = watcher, feeder.sent

        def progress() -> str:
            waiting = len(feeder.sent) - len(watcher.first_seen)
            return (
                f"{len(feeder.sent)} messages, {waiting} waiting; {len(run.happened)} faults; "
                f"a consumer has at most {run.peaks.consumer_bytes / 2**20:.0f} MiB"
            )

        watch = _Watch(world, run, progress, say)
        with feeder:
            while len(watcher.first_seen) < 4 * PARTITIONS and time.monotonic() < end:
                watch.turn()
            left = end - CALM_SECONDS - time.monotonic()
            campaign = Campaign(plan(options.seed, left, options.only, options.gap_seconds), world, say)
            run.happened, run.campaign = campaign.happened, campaign
            while time.monotonic() < end or not campaign.done:
                campaign.turn()
                watch.turn()
        say(f"recordings stop coming: {progress()}")
        if not feeder.finished:
            run.problems.append("What sends recordings ended too early, see standard error.")
        run.problems += [f"Kafka did not take a message: {why}." for why in feeder.failures]
        wanted = recordings.expected_events([message.recipe for message in feeder.sent])
        drain_until = time.monotonic() + LONGEST_DRAIN_SECONDS
        while not (len(watcher.sources) >= wanted and _lag(world, FAULTY, feeder.sent) == 0):
            watch.turn()
            if time.monotonic() > drain_until:
                run.problems.append(f"Not all was done {LONGEST_DRAIN_SECONDS:g} s after the last recording.")
                break
        say(f"done: {progress()}")
        well_until = time.monotonic() + LONGEST_RETURN_SECONDS
        while lame := _not_well(world):
            watch.turn()
            if time.monotonic() > well_until:
                run.problems.append(f"Without any more faults {', '.join(lame)} did not come back.")
                break
    if not watcher.finished:
        run.problems.append("What watches the topics ended too early, see standard error.")


def _not_well(world: Surroundings) -> list[str]:
    """Return what is not as it was before all faults."""
    lame = [consumer.name for consumer in world.consumers if not consumer.ready]
    return lame if world.cluster.in_sync() else [*lame, "a broker"]


class _Watch:
    """What is done all the time: consumers are kept, memory is measured, progress is said."""

    def __init__(self, world: Surroundings, run: _Run, progress: Callable[[], str], say: Say) -> None:
        self._world, self._run, self._progress, self._say = world, run, progress, say
        self._said_at = self._measured_at = 0.0

    def turn(self) -> None:
        now = time.monotonic()
        try:
            for consumer in self._world.everybody():
                consumer.keep()
            if now - self._measured_at >= 1.0:
                self._measured_at = now
                self._run.peaks.note(self._world.everybody())
                self._world.keep()
        except TROUBLES as error:
            self._say(f"not kept, and tried again: {error}")
        if now - self._said_at >= _PROGRESS_SECONDS:
            self._said_at = now
            self._say(self._progress())
        time.sleep(_TURN_SECONDS)


def _report(options: Options, world: Surroundings, run: _Run, right: RightResults) -> Report:
    assert run.watcher is not None
    messages = _read(world, FAULTY.source)
    problems = list(run.problems)
    if run.campaign is not None:
        problems += run.campaign.problems
        problems += [f"Nothing ever met the fault {kind}." for kind in run.campaign.in_vain]
    if not messages:
        problems.append("No recording was sent.")
    if len(messages) != len(run.sent):
        problems.append(f"{len(run.sent)} messages were confirmed, and {len(messages)} are in the topic.")
    found = books.balance(messages, _read(world, FAULTY.target), _read(world, FAULTY.letters), right)
    if lag := _lag(world, FAULTY, run.sent):
        problems.append(f"{lag} messages are finished and not committed.")
    problems += [
        f"A transaction is still open in {topic}, partitions {behind}."
        for topic in (FAULTY.target, FAULTY.letters)
        if (behind := observer.open_transactions(world.cluster.bootstrap, topic, PARTITIONS))
    ]
    seen = run.watcher.first_seen
    # In the last partition recordings wait for those before them that are tried for long: that is no fault's.
    sent = [message for message in run.sent if message.partition < PARTITIONS - 1]
    stall = stalls.longest_stall(sent, seen)
    took = [each for each in run.happened if each.took]
    began = [(each.fault.kind, each.began_at) for each in took]
    over = [(each.fault.kind, each.over_at) for each in took if each.over_at is not None]
    around = _around(run.happened, stall.since, stall.since + stall.seconds)
    return Report(
        command=options.command,
        seconds=run.fed_seconds,
        messages=len(messages),
        faults=count_kinds([each.fault.kind for each in run.happened if each.took]),
        balance=found,
        problems=problems + _described(found, run),
        stall=stalls.Stall(stall.since - run.began_at, stall.seconds),
        stall_faults=sorted({each.fault.kind for each in around}),
        after_begin=stalls.waits_after(began, sent, seen, PARTITIONS - 1),
        after_end=stalls.waits_after(over, sent, seen, PARTITIONS - 1),
        peak_main_bytes=run.peaks.main_bytes,
        peak_consumer_bytes=run.peaks.consumer_bytes,
        cpus=os.cpu_count() or 0,
        ended=[line for consumer in world.everybody() for line in consumer.ended_by_itself]
        + world.ended_by_itself,
    )


def _described(found: Balance, run: _Run) -> list[str]:
    """Return a line for everything that is not as it must be, with the faults around its time."""
    sent = {(message.partition, message.offset): message for message in run.sent}
    lines = []
    assert run.watcher is not None
    for word, entry in found.entries:
        _topic, partition, offset, _index = entry.source.rsplit("/", 3)
        place = (int(partition), int(offset))
        message = sent.get(place)
        line = f"{word}: {entry.source} ({entry.recipe}): {entry.why}"
        if message is not None:
            seen_at = run.watcher.first_seen.get(place, message.at)
            around = "; ".join(
                f"{each} from {each.began_at - run.began_at:.1f} s"
                for each in _around(run.happened, message.at, seen_at)[-_SHOWN_FAULTS:]
            )
            line += (
                f"; sent at {message.at - run.began_at:.1f} s, first outcome at "
                f"{seen_at - run.began_at:.1f} s; faults around: {around or 'none'}"
            )
        lines.append(line)
    return lines


def _around(happened: Sequence[Happened], begin: float, end: float) -> list[Happened]:
    return [
        each
        for each in happened
        if each.began_at <= end + _AROUND_SECONDS
        and (each.back_at or each.over_at or end) >= begin - _AROUND_SECONDS
    ]


def _lag(world: Surroundings, topics: Topics, sent: Sequence[Sent]) -> int:
    """Return how many messages are not committed."""
    ends: dict[int, int] = {}
    for message in sent:
        ends[message.partition] = max(ends.get(message.partition, 0), message.offset + 1)
    committed = observer.patiently(
        lambda: committed_offsets(world.cluster.bootstrap, topics.group, topics.source)
    )
    return sum(max(0, end - committed.get(partition, 0)) for partition, end in ends.items())


def _read(world: Surroundings, topic: str) -> list[Record]:
    return read_to_end(world.cluster.bootstrap, topic, PARTITIONS)


def _wait(condition: Callable[[], bool], consumers: Sequence[Consumer], what: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline or not all(consumer.alive for consumer in consumers):
            words = "; ".join(consumer.last_words() for consumer in consumers)
            raise SetupError(f"Not in {READY_SECONDS:g} s: {what} ({words}).")
        time.sleep(_TURN_SECONDS)
