"""`vault-ml dead-letter list|show|replay|export`: what failed, why, and once more."""

import heapq
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.errors import SettingsError, SetupError
from consumer.letter_options import (
    LARGEST_LIMIT,
    CameraOption,
    ConfigOption,
    FromOption,
    JsonOption,
    LettersArgument,
    ReasonOption,
    ToOption,
)
from consumer.resend_cli import replay, say_if_it_takes_long

if TYPE_CHECKING:
    from consumer.letter_desk import LetterDesk
    from consumer.letters import DeadLetter
    from consumer.replay_mark import ReplayMark

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_letters(
    reason: ReasonOption = None,
    camera: CameraOption = None,
    since: FromOption = None,
    until: ToOption = None,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST_LIMIT, help="At most so many, the newest.")] = 100,
    json_lines: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List dead letters, the newest first; the summary counts all that match."""
    from consumer.letter_desk import choice_of, open_desk
    from consumer.letter_text import as_json, counted

    choice = choice_of(reason, camera, since, until)
    with open_desk(config) as desk:
        say_if_it_takes_long(desk)
        seen: Counter[str] = Counter()
        # Events are not shown: without them thousands of letters fit into memory.
        slim = (replace(letter, payload=b"") for letter in counted(desk.read(choice), seen))
        found = heapq.nlargest(limit, slim, key=attrgetter("age"))
        if json_lines:
            for letter in found:
                print(json.dumps(as_json(letter, desk.marks)))
        else:
            _print_table(found, desk.marks)
        _summarise(seen, len(found), desk.settings.queue_dead_letter)
        if reason and not seen:
            _say_reasons(desk)


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="Its position (0/42), or its id.")],
    json_lines: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show one dead letter: why it failed, and the event as it came, credentials masked."""
    from consumer.letter_desk import open_desk
    from consumer.letter_text import as_json, pretty, printable

    with open_desk(config, [letter]) as desk:
        (found,) = desk.named()
        if json_lines:
            print(json.dumps(as_json(found, desk.marks, payload=True)))
            return
        described = as_json(found, desk.marks)
        width = max(map(len, described))
        for name, value in described.items():
            print(f"{name:<{width}}  {printable(str(value))}")
        print()
        print(pretty(found.payload))


app.command()(replay)


@app.command()
def export(
    letters: LettersArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for JSON lines (*.jsonl), or a directory for files of each; else standard output. "
            "What is there is replaced.",
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
    from consumer.letter_text import check_output, write_letters

    choice = choice_of(reason, camera, since, until)
    check_output(output)
    if letters and any((reason, camera, since, until)):
        raise SettingsError(
            ["Name letters, or choose them by --reason, --camera, --from and --to: not both."]
        )
    with open_desk(config, letters or ()) as desk:
        if not letters:
            say_if_it_takes_long(desk)
        found: Iterable[DeadLetter] = desk.named() if letters else desk.read(choice)
        try:
            count = write_letters(found, desk.marks, output)
        except KeyboardInterrupt:
            print("Interrupted: what is written is a part of the letters.", file=sys.stderr)
            raise
        except BrokenPipeError:
            raise  # whoever reads standard output has seen enough (`| head`): typer ends without a word
        except OSError as error:
            raise SetupError(
                f"Letters cannot be written to {output or 'standard output'}: {error.strerror}."
            ) from error
        where = f" to {output}" if output else ""
        print(f"{count} dead letters written{where}.", file=sys.stderr)


def _print_table(letters: "Sequence[DeadLetter]", marks: "Mapping[str, ReplayMark]") -> None:
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


def _say_reasons(desk: "LetterDesk") -> None:
    """Say which reasons there are, where none of those that were asked for is: a typing error, say."""
    from consumer.letter_text import counted, printable
    from consumer.letters import Choice

    there: Counter[str] = Counter()
    for _ in counted(desk.read(Choice()), there):
        pass
    if there:
        print(f"Reasons of letters there: {printable(', '.join(sorted(there)))}.", file=sys.stderr)


def _summarise(seen: Counter[str], shown: int, topic: str) -> None:
    from consumer.letter_text import printable

    if not seen:
        print(f"No such dead letter in {topic}.", file=sys.stderr)
        return
    by_reason = ", ".join(f"{printable(reason)} {count}" for reason, count in seen.most_common())
    more = f" ({shown} shown)" if shown < seen.total() else ""
    print(f"{seen.total()} dead letters in {topic}{more}: {by_reason}.", file=sys.stderr)
