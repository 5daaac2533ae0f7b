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
from consumer.letter_source import made_whole
from consumer.letters import Choice, Letter, newest_of_each, parse_name, read_letters, read_marks
from consumer.moments import parse_span
from consumer.parts import kafka_connection
from consumer.past import Past
from consumer.replay_mark import ReplayMark
from consumer.resend import notes_topic


@dataclass(frozen=True)
class LetterDesk:
    """The settings, the topic of letters, and which of those were sent again, by position."""

    settings: TopicSettings
    past: Past
    marks: Mapping[str, ReplayMark]
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def read(self, choice: Choice) -> Iterator[Letter]:
        """Yield the letters that are meant.

        Raises:
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        return read_letters(self.past, choice, self.secrets)

    def named(self, names: Sequence[str]) -> list[Letter]:
        """Return the letters that people name.

        Raises:
            SettingsError: a name is none.
            SetupError: a name is nobody's, or that of several.
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        parsed = [parse_name(name) for name in names]
        found, problems = newest_of_each(self.read(Choice()), parsed)
        if problems:
            raise SetupError(" ".join(problems))
        return found

    def made_whole(self, letters: Sequence[Letter]) -> list[Letter]:
        """Return the letters, those that are not whole with the event of the source topic where it is there.

        Raises:
            StreamSetupError, BrokerAway: see `Past.read`.
        """
        if all(letter.whole for letter in letters):
            return list(letters)
        with Past(kafka_connection(self.settings), self.settings.queue_name) as source:
            return made_whole(letters, source, self.secrets)


@contextlib.contextmanager
def open_desk(config: Path | None) -> Iterator[LetterDesk]:
    """Open the topic of letters that the environment, or a YAML file, names.

    Raises:
        SettingsError: the variables will not do.
        SetupError: there is no such topic, or it is not for us.
        BrokerAway: no broker answers.
    """
    loaded = settings.load_topics(os.environ, config)
    secrets = settings.secret_values(loaded)
    logs.configure("warning", "auto", secrets)
    connection, topic = kafka_connection(loaded), loaded.queue_dead_letter
    with Past(connection, topic) as letters, Past(connection, notes_topic(topic)) as notes:
        if not letters.stretches():
            raise SetupError(
                f"Topic {topic!r} does not exist: set QUEUE_NAME or QUEUE_DEAD_LETTER as consumers have it."
            )
        yield LetterDesk(loaded, letters, read_marks(notes), secrets)


def choice_of(
    reasons: Sequence[str] | None, cameras: Sequence[str] | None, since: str | None, until: str | None
) -> Choice:
    """Return which letters the options mean.

    Raises:
        SettingsError: a time is none.
    """
    begin, end = parse_span(since, until, datetime.now(UTC))
    return Choice(tuple(reasons or ()), tuple(cameras or ()), begin, end)
