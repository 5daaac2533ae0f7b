"""The command `vault-ml dead-letter replay`."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    from consumer.letter_desk import LetterDesk
    from consumer.letter_source import SourceEvents
    from consumer.letters import Choice, DeadLetter
    from consumer.resend_plan import Plan

_SHOWN_PLAN = 20
_MANY = 20_000


def replay(
    letters: LettersArgument = None,
    reason: ReasonOption = None,
    camera: CameraOption = None,
    since: FromOption = None,
    until: ToOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not sent again yet.")] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Also what failed again; and named letters that were sent already."),
    ] = False,
    topic_to: Annotated[
        str | None, typer.Option(help="Send to this topic, not to QUEUE_NAME.", show_default=False)
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
    from consumer.parts import kafka_connection
    from consumer.resend_plan import plan_of

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
    with open_desk(config, letters or ()) as desk, desk.source_events() as source:
        others = _Others()
        if letters:
            found = desk.named()
        else:
            say_if_it_takes_long(desk)
            found = _take(chosen, limit, desk, source, topic_to, others, again=again)
        plan = plan_of(
            map(source.made_whole, found),
            desk.marks,
            others=others.of_one,
            source=desk.settings.queue_name,
            topic=topic_to,
            again=again,
            now=datetime.now(UTC),
        )
        connection = kafka_connection(desk.settings)
        resend.check(plan.sendings, connection, resend.topics_written(desk.settings))
        for letter, why in plan.left_out:
            others.note(letter, why)
        _say_plan(plan)
        _say_of_others(others, again=again, full=len(found) == limit)
        question = f"Send {_events(len(plan.sendings))} again?"
        all_sent = True
        if plan.sendings and not dry_run and (yes or typer.confirm(question)):
            all_sent = _send(plan, desk.settings)
        if (letters and plan.left_out) or not all_sent:
            raise typer.Exit(1)


def say_if_it_takes_long(desk: "LetterDesk") -> None:
    """Say what is read where somebody waits for it: about 10,000 messages a second."""
    if desk.messages > _MANY:
        topic = desk.settings.queue_dead_letter
        print(f"Reading {topic}, which holds about {desk.messages} messages.", file=sys.stderr)


@dataclass
class _Others:
    """Letters that were chosen and are not sent: counted, some of them with why."""

    waiting: int = 0
    """Those that could be sent, and wait for the next run."""
    of_one: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Other letters of a recording that is sent, by the position of the one that is."""
    sent: int = 0
    failed_again: int = 0
    never: int = 0
    examples: "list[tuple[DeadLetter, str]]" = field(default_factory=list)
    """The first that cannot be sent, and why."""

    def note(self, letter: "DeadLetter", why: str) -> None:
        """Take note of one that cannot be sent."""
        self.never += 1
        if len(self.examples) < _SHOWN_PLAN:
            self.examples.append((letter, why))


def _take(
    chosen: "Choice",
    limit: int,
    desk: "LetterDesk",
    source: "SourceEvents",
    topic_to: str | None,
    others: _Others,
    *,
    again: bool,
) -> "list[DeadLetter]":
    """Return the letters of the oldest recordings that can be sent, and count the others."""
    from consumer import due_letters
    from consumer.resend_plan import why_never

    tallies = [others]

    def read() -> "Iterator[DeadLetter]":
        tally = tallies.pop() if tallies else _Others()  # read once more, they are counted already
        for letter in _due(desk.read(chosen), desk, source, topic_to, tally, again=again):
            tally.waiting += 1
            yield letter

    def refuse(letter: "DeadLetter") -> str | None:
        return why_never(letter, source=desk.settings.queue_name, topic=topic_to)

    found = []
    for each in due_letters.take(read, source.made_whole, refuse, limit):
        due, why = each if isinstance(each, tuple) else (each, "")
        others.waiting -= due.letters
        if why:
            others.note(due.letter, why)
        else:
            found.append(due.letter)
            others.of_one[due.letter.position] = due.others
    return found


def _due(
    letters: "Iterable[DeadLetter]",
    desk: "LetterDesk",
    source: "SourceEvents",
    topic_to: str | None,
    others: _Others,
    *,
    again: bool,
) -> "Iterator[DeadLetter]":
    """Leave out what is not to be sent, now or ever, as far as that is known without the source topic.

    A letter that was sent is left out with `again` too: if its event failed again, that has a newer letter.
    """
    from consumer.letters import mark_of
    from consumer.resend_plan import why_never

    for letter in letters:
        if mark_of(letter, desk.marks) is not None:
            others.sent += 1
        elif letter.replays and not again:
            others.failed_again += 1
        elif not letter.whole and source.may_hold(letter):
            yield letter
        elif why := why_never(source.made_whole(letter), source=desk.settings.queue_name, topic=topic_to):
            others.note(letter, why)
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
    if not plan.sendings:
        print("Nothing is to be sent.", file=sys.stderr)


def _say_of_others(others: _Others, *, again: bool, full: bool) -> None:
    from consumer.letter_text import printable

    for letter, why in sorted(others.examples, key=lambda example: example[0].age):
        print(printable(f"Not sent: {letter.position} {letter.key}: {why}."), file=sys.stderr)
    if more := others.never - len(others.examples):
        print(f"… and {more} more that cannot be sent", file=sys.stderr)
    if others.sent:
        how = "name one to repeat it" if again else "name one, with --again, to repeat it"
        print(f"{others.sent} that were sent again already are left out ({how}).", file=sys.stderr)
    if others.failed_again:
        print(
            f"{others.failed_again} that failed again after they had been are left out (--again).",
            file=sys.stderr,
        )
    if others.waiting > 0:
        why = "--limit" if full else "so much fits into memory"
        print(f"{others.waiting} younger ones wait for the next time ({why}).", file=sys.stderr)


def _send(plan: "Plan", settings: "TopicSettings") -> bool:
    """Send what is planned; returns whether its topic took all of it."""
    from consumer import resend
    from consumer.letter_text import printable
    from consumer.parts import kafka_connection

    exactly_once = settings.kafka_delivery == "exactly-once"
    transactional_id = f"{settings.kafka_transaction_prefix}-dead-letter-replay" if exactly_once else None
    all_sent = True
    for sent in resend.send(
        plan.sendings, kafka_connection(settings), settings.queue_dead_letter, transactional_id
    ):
        for each in sent.too_large:
            all_sent = False
            why = (
                f"its event of {len(each.event)} bytes is too large for {each.topic!r}: raise the topic's "
                "max.message.bytes"
            )
            print(printable(f"Not sent: {each.letter.position} {each.letter.key}: {why}."), file=sys.stderr)
        others = (
            f" {sent.by_others} of them somebody else has sent in the meantime." if sent.by_others else ""
        )
        print(f"Sent {sent.done} of {_events(len(plan.sendings))} again.{others}", file=sys.stderr)
    return all_sent


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
