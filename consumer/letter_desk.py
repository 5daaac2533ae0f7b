"""The desk: what every command about dead letters needs, opened as the settings say.

Kafka's variables are enough; nothing of Vault or Triton is asked for.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from consumer import logs, settings
from consumer.errors import SetupError
from consumer.kafka_fields import TopicSettings
from consumer.letter_source import SourceEvents
from consumer.letters import (
    Choice,
    DeadLetter,
    newest_of_each,
    parse_name,
    place_of,
    read_letters,
    read_marks,
)
from consumer.moments import parse_span
from consumer.parts import kafka_connection
from consumer.past import Past, Stretch
from consumer.replay_mark import ReplayMark
from consumer.resend import notes_topic


@dataclass(frozen=True)
class LetterDesk:
    """The settings, the topic of letters, which of those were sent again, by position, and who is named.

    messages: how many the topic holds, about.
    """

    settings: TopicSettings
    past: Past
    marks: Mapping[str, ReplayMark]
    messages: int
    names: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def read(self, choice: Choice) -> Iterator[DeadLetter]:
        """Yield the letters that are meant.

        Raises:
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        return read_letters(self.past, choice, self.secrets)

    def named(self) -> list[DeadLetter]:
        """Return the letters that people name.

        Raises:
            SetupError: a name is nobody's, or that of several.
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        found, problems = newest_of_each(self._where_named(), self.names)
        if problems:
            raise SetupError(" ".join(problems))
        return found

    @contextlib.contextmanager
    def source_events(self) -> Iterator[SourceEvents]:
        """Open the source topic, for letters that do not hold their event whole."""
        with Past(kafka_connection(self.settings), self.settings.queue_name) as source:
            yield SourceEvents(source, self.secrets)

    def _where_named(self) -> Iterator[DeadLetter]:
        """Yield the letters at the positions that are named, without the others; or else all."""
        places = [place_of(name) for name in self.names]
        if None in places:
            return self.read(Choice())
        kept = {each.partition: each for each in self.past.stretches()}
        wanted = [Stretch.of_one(*place) for place in places if place is not None]
        there = [
            each
            for each in wanted
            if each.partition in kept and kept[each.partition].begin <= each.begin < kept[each.partition].end
        ]
        # One at a time: there may be several of one partition.
        return (
            letter for each in there for letter in read_letters(self.past, Choice(), self.secrets, [each])
        )


@contextlib.contextmanager
def open_desk(config: Path | None, names: Sequence[str] = ()) -> Iterator[LetterDesk]:
    """Open the topic of letters that the environment, or a YAML file, names.

    Args:
        config: the file.
        names: of letters, as people write them; they are looked at before any broker is asked.

    Raises:
        SettingsError: the variables will not do, or a name is none.
        SetupError: there is no such topic, or it is not for us.
        BrokerAway: no broker answers.
    """
    loaded = settings.load_topics(os.environ, config)
    secrets = settings.secret_values(loaded)
    logs.configure("warning", "auto", secrets)
    connection, topic = kafka_connection(loaded), loaded.queue_dead_letter
    parsed = tuple(parse_name(name, topic) for name in names)
    with Past(connection, topic) as letters, Past(connection, notes_topic(topic)) as notes:
        held = letters.stretches()
        if not held:
            raise SetupError(
                f"Topic {topic!r} does not exist: set QUEUE_NAME or QUEUE_DEAD_LETTER as consumers have it."
            )
        messages = sum(each.end - each.begin for each in held)
        yield LetterDesk(loaded, letters, read_marks(notes), messages, parsed, secrets)


def choice_of(
    reasons: Sequence[str] | None, cameras: Sequence[str] | None, since: str | None, until: str | None
) -> Choice:
    """Return which letters the options mean.

    Raises:
        SettingsError: a time is none.
    """
    begin, end = parse_span(since, until, datetime.now(UTC))
    return Choice(tuple(reasons or ()), tuple(cameras or ()), begin, end)
