"""Dead letters as text: for a person at a terminal, and as JSON for whoever gets them.

Much of a letter was written by strangers, so nothing of it reaches a terminal as it is.
"""

import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from consumer.errors import SettingsError
from consumer.letter_event import parse_json
from consumer.letters import DeadLetter, mark_of
from consumer.moments import in_words
from consumer.replay_mark import ReplayMark

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]+"
)
"""Control characters, what ends lines or turns their direction, halves of characters, tags that nobody sees.

They come from whoever named a camera.
"""

_LINES = (".jsonl", ".ndjson")


def reason_in_words(letter: DeadLetter) -> str:
    """Return why it failed; with what it might have healed from."""
    return f"retry_exhausted ({letter.reason})" if letter.exhausted else letter.reason


def counted(letters: Iterable[DeadLetter], seen: Counter[str]) -> Iterator[DeadLetter]:
    """Yield the letters and count them by reason on the way."""
    for letter in letters:
        seen[reason_in_words(letter)] += 1
        yield letter


def state(letter: DeadLetter, marks: Mapping[str, ReplayMark]) -> str:
    """Return what replays have to say of it, and whether one needs more than the letter; else nothing."""
    failed = f"failed after replay {letter.replays}" if letter.replays else ""
    mark = mark_of(letter, marks)
    told = (failed if mark is None else f"sent again {mark.at[:19]}", "" if letter.whole else "not whole")
    return ", ".join(filter(None, told))


def as_json(letter: DeadLetter, marks: Mapping[str, ReplayMark], *, payload: bool = False) -> dict[str, Any]:
    """Return a letter with names for JSON; `payload` adds its event, in base64 where that is no JSON."""
    mark = mark_of(letter, marks)
    described: dict[str, Any] = {
        "letter": letter.position,
        "id": letter.id,
        "failed_at": in_words(letter.at),
        "reason": letter.reason,
        "envelope_reason": letter.envelope_reason,
        "sentence": letter.sentence,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "sent_again_at": None if mark is None else mark.at,
        "key": letter.key,
        "provider": letter.provider,
        "camera": letter.camera,
        "recorded": letter.recorded,
        "source": letter.source,
        "destination": letter.destination,
        "service": letter.service,
        "event_is": letter.left_out or "whole",
    }
    if not payload:
        return described
    if is_json(letter.payload):
        return described | {"event": parse_json(letter.payload)}
    return described | {"event_base64": base64.b64encode(letter.payload).decode()}


def is_json(payload: bytes) -> bool:
    """Tell whether an event can be shown as JSON."""
    try:
        parse_json(payload)
    except ValueError:
        return False
    return True


def pretty(payload: bytes) -> str:
    """Return an event for reading: JSON indented, else its text with what cannot be printed escaped."""
    if is_json(payload):
        return json.dumps(parse_json(payload), indent=2)
    lines = payload.decode("utf-8", "backslashreplace").splitlines()
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """Return a text that does nothing to a terminal but stand there."""
    return _UNPRINTABLE.sub("?", text)


def check_output(output: Path | None) -> None:
    """Refuse a name that looks like a file of a kind that is not written: it would become a directory.

    Raises:
        SettingsError: it ends like a file, and is no directory yet.
    """
    if output is not None and output.suffix not in ("", *_LINES) and not output.is_dir():
        raise SettingsError(
            [
                f"--output {output} is neither a file for lines (*.jsonl, *.ndjson) nor a directory that is "
                "there: give one of them, or a name without an ending for a new directory."
            ]
        )


def write_letters(letters: Iterable[DeadLetter], marks: Mapping[str, ReplayMark], output: Path | None) -> int:
    """Write letters as JSON lines, or two files for each into a directory; returns how many there were.

    A file of lines is there once it is whole; until then, and after an end in the middle, it is `*.part`.

    Raises:
        OSError: it cannot be written.
    """
    if output is None:
        return _write_lines(letters, marks, sys.stdout)
    if output.suffix in _LINES:
        part = output.with_name(f"{output.name}.part")
        with part.open("w", encoding="utf-8") as file:
            count = _write_lines(letters, marks, file)
        part.replace(output)
        return count
    output.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, letter in enumerate(letters, 1):  # noqa: B007  # the last number is how many there were
        stem = letter.position.replace("/", "-")
        described = json.dumps(as_json(letter, marks), indent=2)
        (output / f"{stem}.letter.json").write_text(described + "\n", encoding="utf-8")
        ending = "json" if is_json(letter.payload) else "bin"
        (output / f"{stem}.event.{ending}").write_bytes(letter.payload)
    return count


def _write_lines(letters: Iterable[DeadLetter], marks: Mapping[str, ReplayMark], file: TextIO) -> int:
    count = 0
    for letter in letters:
        file.write(json.dumps(as_json(letter, marks, payload=True)) + "\n")
        count += 1
    file.flush()
    return count
