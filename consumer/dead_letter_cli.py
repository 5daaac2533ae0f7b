"""`vault-ml dead-letter list|show|replay|export`: what failed, why, and once more."""

import heapq
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.errors import SettingsError, SetupError

if TYPE_CHECKING:
    from consumer.kafka_fields import TopicSettings
    from consumer.letters import Letter
    from consumer.replay_mark import ReplayMark
    from consumer.resend import Plan

app = typer.Typer(no_args_is_help=True)

_SHOWN_PLAN = 20
_LARGEST_LIMIT = 10_000
"""Letters at a time are kept in memory."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="A YAML file with settings; the environment wins.", show_default=False),
]
ReasonOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reason", help="Only of this reason, such as undecodable; repeatable.", show_default=False
    ),
]
CameraOption = Annotated[
    list[str] | None,
    typer.Option("--camera", help="Only of this camera, as events name it; repeatable.", show_default=False),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="Failed since: 2h, yesterday, 2026-05-01T12:00 (UTC).",
        show_default=False,
    ),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="Failed before that.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object for each letter.")]
LettersArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER", help="Positions (0/42) or ids of letters.", show_default=False),
]


@app.command("list")
def list_letters(
    reason: ReasonOption = None,
    camera: CameraOption = None,
    since: FromOption = None,
    until: ToOption = None,
    limit: Annotated[int, typer.Option(min=1, max=_LARGEST_LIMIT, help="At most so many, the newest.")] = 100,
    json_lines: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List dead letters, the newest first; the summary counts all that match."""
    from consumer.letter_desk import choice_of, open_desk
    from consumer.letter_text import as_json

    choice = choice_of(reason, camera, since, until)
    with open_desk(config) as desk:
        seen: Counter[str] = Counter()
        found = heapq.nlargest(limit, _counted(desk.read(choice), seen), key=_age)
        if json_lines:
            for letter in found:
                print(json.dumps(as_json(letter, desk.marks)))
        else:
            _print_table(found, desk.marks)
        _summarise(seen, len(found), desk.settings.queue_dead_letter)


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="Its position (0/42), or its id.")],
    json_lines: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show one dead letter: why it failed, and the event as it came, credentials masked."""
    from consumer.letter_desk import open_desk
    from consumer.letter_text import as_json, pretty, printable

    with open_desk(config) as desk:
        (found,) = desk.named([letter])
        if json_lines:
            print(json.dumps(as_json(found, desk.marks, payload=True)))
            return
        described = as_json(found, desk.marks)
        width = max(map(len, described))
        for name, value in described.items():
            print(f"{name:<{width}}  {printable(str(value))}")
        print()
        print(pretty(found.payload))


@app.command()
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
        int, typer.Option(min=1, max=_LARGEST_LIMIT, help="At most so many, the oldest.")
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
            found = heapq.nsmallest(limit, _counted(due, waiting), key=_age)
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


@app.command()
def export(
    letters: LettersArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for JSON lines (*.jsonl), or a directory for files of each; else standard output.",
            show_default=False,
        ),
    ] = None,
    reason: ReasonOption = None,
    camera: CameraOption = None,
    since: FromOption = None,
    until: ToOption = None,
    config: ConfigOption = None,
) -> None:
    """Write dead letters and their events to files, credentials masked, for somebody who looks into them."""
    from consumer.letter_desk import choice_of, open_desk
    from consumer.letter_text import write_letters

    choice = choice_of(reason, camera, since, until)
    if letters and any((reason, camera, since, until)):
        raise SettingsError(
            ["Name letters, or choose them by --reason, --camera, --from and --to: not both."]
        )
    with open_desk(config) as desk:
        found: Iterable[Letter] = desk.named(letters) if letters else desk.read(choice)
        try:
            count = write_letters(found, desk.marks, output)
        except OSError as error:
            raise SetupError(
                f"Letters cannot be written to {output or 'standard output'}: {error.strerror}."
            ) from error
        where = f" to {output}" if output else ""
        print(f"{count} dead letters written{where}.", file=sys.stderr)


def _counted(letters: "Iterable[Letter]", seen: Counter[str]) -> "Iterator[Letter]":
    from consumer.letter_text import reason_in_words

    for letter in letters:
        seen[reason_in_words(letter)] += 1
        yield letter


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


def _age(letter: "Letter") -> tuple[datetime, str]:
    return letter.at, letter.position


def _print_table(letters: "Sequence[Letter]", marks: "Mapping[str, ReplayMark]") -> None:
    from consumer.letter_text import printable, reason_in_words, state
    from consumer.moments import in_words

    heads = ("letter", "id", "failed at (UTC)", "reason", "tries", "camera", "recording", "replay")
    rows = [
        (
            letter.position,
            letter.id[:12],
            in_words(letter.at)[:19],
            reason_in_words(letter),
            str(letter.attempts),
            letter.camera,
            letter.key,
            state(letter, marks),
        )
        for letter in letters
    ]
    if not sys.stdout.isatty():
        for row in (heads, *rows):
            print("\t".join(map(printable, row)))
        return
    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    Console(highlight=False).print(table)


def _summarise(seen: Counter[str], shown: int, topic: str) -> None:
    from consumer.letter_text import printable

    if not seen:
        print(f"No such dead letter in {topic}.", file=sys.stderr)
        return
    by_reason = ", ".join(f"{printable(reason)} {count}" for reason, count in seen.most_common())
    more = f" ({shown} shown)" if shown < seen.total() else ""
    print(f"{seen.total()} dead letters in {topic}{more}: {by_reason}.", file=sys.stderr)


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
