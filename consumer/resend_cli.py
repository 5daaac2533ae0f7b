"""The command `vault-ml dead-letter replay`."""

import heapq
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.errors import SettingsError
from consumer.letter_options import (
    LARGEST_LIMIT,
    CameraOption,
    ConfigOption,
    FromOption,
    LettersArgument,
    ReasonOption,
    ToOption,
)

if TYPE_CHECKING:
    from consumer.kafka_fields import TopicSettings
    from consumer.letters import Letter
    from consumer.replay_mark import ReplayMark
    from consumer.resend import Plan

_SHOWN_PLAN = 20


def replay(
    letters: LettersArgument = None,
    reason: ReasonOption = None,
    camera: CameraOption = None,
    since: FromOption = None,
    until: ToOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not sent again yet.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was sent again before, and has failed again or not.")
    ] = False,
    topic_to: Annotated[
        str | None, typer.Option(help="Send to this topic, not to the one it came from.", show_default=False)
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=LARGEST_LIMIT, help="At most so many, the oldest.")
    ] = 1_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Send the events of dead letters again: the consumers look at them as if they were new.

    Name letters, or choose them by reason, camera and time, or take --all. What is to be sent is shown, and
    nothing is sent before you agree. A letter is sent once, unless --again says otherwise.
    """
    from consumer import resend
    from consumer.letter_desk import choice_of, open_desk
    from consumer.letter_text import counted

    chosen = choice_of(reason, camera, since, until)
    filtered = any((reason, camera, since, until))
    if bool(letters) + filtered + everything != 1:
        raise SettingsError(
            ["Say which letters: name them, or choose by --reason, --camera, --from and --to, or --all."]
        )
    if not yes and not dry_run and not sys.stdin.isatty():
        raise SettingsError(
            ["Nobody is there to be asked: add --yes to send, or --dry-run to see what would be."]
        )
    with open_desk(config) as desk:
        done: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        if letters:
            found = desk.named(letters)
        else:
            due = desk.read(chosen) if again else _not_done(desk.read(chosen), desk.marks, done)
            found = heapq.nsmallest(limit, counted(due, waiting), key=attrgetter("age"))
        plan = resend.plan(
            desk.made_whole(found), desk.marks, topic=topic_to, again=again, now=datetime.now(UTC)
        )
        _say_plan(plan)
        _say_of_others(done, max(0, waiting.total() - len(found)))
        question = f"Send {_events(len(plan.sendings))} again?"
        if plan.sendings and not dry_run and (yes or typer.confirm(question)):
            _send(plan, desk.settings)
        if letters and plan.left_out:
            raise typer.Exit(1)


def _not_done(
    letters: "Iterable[Letter]", marks: "Mapping[str, ReplayMark]", done: Counter[str]
) -> "Iterator[Letter]":
    """Leave out what was sent again before, and count it: it must not fill up the limit."""
    for letter in letters:
        if letter.position in marks:
            done["were sent again already"] += 1
        elif letter.replays:
            done["failed again after they had been"] += 1
        else:
            yield letter


def _say_plan(plan: "Plan") -> None:
    from consumer.letter_text import printable, reason_in_words

    for sending in plan.sendings[:_SHOWN_PLAN]:
        letter, count = sending.letter, sending.mark.count
        times = f", replay {count}" if count > 1 else ""
        name = letter.key or "no recording event"
        print(
            printable(f"{letter.position} {name} ({reason_in_words(letter)}) to {sending.topic}{times}"),
            file=sys.stderr,
        )
    if len(plan.sendings) > _SHOWN_PLAN:
        print(f"… and {len(plan.sendings) - _SHOWN_PLAN} more", file=sys.stderr)
    for letter, why in plan.left_out[:_SHOWN_PLAN]:
        print(printable(f"Not sent: {letter.position} {letter.key}: {why}."), file=sys.stderr)
    if len(plan.left_out) > _SHOWN_PLAN:
        print(f"… and {len(plan.left_out) - _SHOWN_PLAN} more that are not sent", file=sys.stderr)
    if not plan.sendings:
        print("Nothing is to be sent.", file=sys.stderr)


def _say_of_others(done: Counter[str], more: int) -> None:
    for what, count in done.items():
        print(f"{count} that {what} are left out (--again).", file=sys.stderr)
    if more:
        print(f"{more} younger ones wait for the next time (--limit).", file=sys.stderr)


def _send(plan: "Plan", settings: "TopicSettings") -> None:
    from consumer import resend
    from consumer.parts import kafka_connection

    exactly_once = settings.kafka_delivery == "exactly-once"
    transactional_id = f"{settings.kafka_transaction_prefix}-dead-letter-replay" if exactly_once else None
    for done in resend.send(
        plan.sendings, kafka_connection(settings), settings.queue_dead_letter, transactional_id
    ):
        print(f"Sent {done} of {_events(len(plan.sendings))} again.", file=sys.stderr)


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
