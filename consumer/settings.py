"""Settings: one typed object from the environment and a YAML file, or every problem at once.

The environment wins over the file of `--config`. The variables: consumer/setting_fields.py.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import SecretStr, TypeAdapter, ValidationError

from consumer import logins, older_images
from consumer.errors import SettingsError
from consumer.kafka_fields import TopicSettings
from consumer.known_secrets import mask_known_secrets
from consumer.look_fields import DetectSettings
from consumer.secret_names import MASK
from consumer.setting_fields import Settings
from consumer.triton_fields import TritonAccessSettings
from consumer.variables import ConfigFile, Found, Variable, find_all, near_misses, read_config_file, shown

__all__ = [
    "DetectSettings",
    "Setting",
    "Settings",
    "TopicSettings",
    "TritonAccessSettings",
    "describe",
    "known_names",
    "load",
    "load_detect",
    "load_topics",
    "load_triton_access",
    "secret_values",
    "variables",
    "warnings",
]

TRITON_SHARE = 1 / 3
"""Of RECORDING_TIME_LIMIT, for one request: there must be time for a second one, and for the rest."""

S = TypeVar("S", bound=TritonAccessSettings)


def load(environ: Mapping[str, str], config_file: Path | None = None) -> Settings:
    """Return the settings of `vault-ml run`.

    Raises:
        SettingsError: with every problem, each beginning with the name that the user wrote.
    """
    return _load(Settings, environ, config_file)


def load_topics(environ: Mapping[str, str], config_file: Path | None = None) -> TopicSettings:
    """Return the settings of a program that reads what the consumers of an environment wrote.

    Raises:
        SettingsError: with every problem, each beginning with the name that the user wrote.
    """
    return _load(TopicSettings, environ, config_file)


def load_triton_access(environ: Mapping[str, str]) -> TritonAccessSettings:
    """Return how a program that changes models reaches Triton.

    Raises:
        SettingsError: with every problem, each beginning with the name that the user wrote.
    """
    return _load(TritonAccessSettings, environ, None)


def load_detect(
    environ: Mapping[str, str],
    config_file: Path | None = None,
    options: Mapping[str, tuple[str, object]] | None = None,
) -> DetectSettings:
    """Return the settings of `vault-ml detect`.

    Args:
        environ: as os.environ.
        config_file: the YAML file of `--config`.
        options: the command line's option and value by variable name; wins, and None means not given.

    Raises:
        SettingsError: with every problem, each beginning with the name that the user wrote.
    """
    given = {
        name: Found(str(value).strip(), option, "command line")
        for name, (option, value) in (options or {}).items()
        if value is not None
    }
    return _load(DetectSettings, environ, config_file, given)


def variables(kind: type[TritonAccessSettings] = Settings) -> dict[str, Variable]:
    """Return every variable of a kind of settings, by its own name, in the order of the table."""
    groups = (DetectSettings, TritonAccessSettings)
    fields = sorted(
        kind.model_fields.items(), key=lambda each: sum(each[0] in group.model_fields for group in groups)
    )
    return {
        field_name.upper(): each
        for field_name, field in fields
        for each in field.metadata
        if isinstance(each, Variable)
    }


def known_names() -> frozenset[str]:
    """Return every name that means something: variables, aliases and their `_FILE` forms."""
    return frozenset(
        written
        for name, variable in variables().items()
        for written in (*variable.names(name), *variable.file_names(name))
    )


def warnings(
    environ: Mapping[str, str], config_file: Path | None = None, dev: Path = Path("/dev")
) -> list[str]:
    """Return a sentence for each thing that is set and does not do what it seems to."""
    known = known_names()
    sentences = older_images.warnings(environ) + older_images.gpu_warnings(environ, dev)
    sentences += [
        f"{name} is not a setting of vault-ml: did you mean {meant}?"
        for name, meant in near_misses(environ, known | older_images.ADVICE.keys())
        if name not in older_images.ADVICE
    ]
    found = find_all(variables(), environ, _read(config_file)).found
    return sentences + [
        f"{found[name].label} is set but does nothing: {why}"
        for name, why in logins.idle(found).items()
        if name in found
    ]


def _read(config_file: Path | None) -> ConfigFile | None:
    return None if config_file is None else read_config_file(config_file, known_names(), older_images.ADVICE)


@cache
def _adapters(kind: type[TritonAccessSettings]) -> dict[str, TypeAdapter[Any]]:
    return {
        name.lower(): TypeAdapter(kind.model_fields[name.lower()].rebuild_annotation())
        for name in variables(kind)
    }


def _load(
    kind: type[S],
    environ: Mapping[str, str],
    config_file: Path | None,
    options: Mapping[str, Found] | None = None,
) -> S:
    config = _read(config_file)
    findings = find_all(variables(kind), environ, config)
    findings.found.update(options or {})
    problems = [*(config.problems if config else ()), *findings.problems]
    values: dict[str, Any] = {}
    for field_name, adapter in _adapters(kind).items():
        name, field = field_name.upper(), kind.model_fields[field_name]
        found = findings.found.get(name)
        if name in findings.unusable:
            continue
        if found is None and field.is_required():
            problems.append(f"{name} is not set: give {variables(kind)[name].expects}.")
            continue
        default = field.get_default(call_default_factory=True, validated_data=values)
        try:  # a default that is worked out can be wrong too: a topic's name with `.dead-letter` is too long
            values[field_name] = adapter.validate_python(found.value if found else default)
        except ValidationError as error:
            said = found or Found(str(default), name, "default")
            problems.append(_sentence(said, variables(kind)[name], error))
    problems += _conflicts(values, findings.found, findings.unusable)
    if problems:
        secrets = [found.value for name, found in findings.found.items() if variables(kind)[name].secret]
        # Our own sentences: nothing but a value that they quote can be secret, and values are shown masked.
        raise SettingsError([mask_known_secrets(each.encode(), secrets).decode() for each in problems])
    origins = {name: found.origin for name, found in findings.found.items()}
    return kind(**values, origins=origins)


def _sentence(found: Found, variable: Variable, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "value_error":
        return f"{found.label} {first['ctx']['error']}"
    if variable.secret:
        return f"{found.label} cannot be used: give {variable.expects}."
    return f"{found.label} is {shown(found.value)}: give {variable.expects}."


def _conflicts(
    values: Mapping[str, Any], found: Mapping[str, Found], unusable: Collection[str]
) -> Iterator[str]:
    """Yield a sentence for each pair of settings that are fine alone and wrong together."""
    yield from logins.conflicts(values, found, unusable)
    yield from _topic_conflicts(values, found)
    limit, deadline = values.get("recording_time_limit"), values.get("recording_deadline")
    if limit is not None and deadline is not None and limit > deadline:
        yield from _too_long(found, "RECORDING_TIME_LIMIT", limit, "RECORDING_DEADLINE", deadline)
    timeout = values.get("triton_timeout")
    if timeout is not None and limit is not None and timeout > limit * TRITON_SHARE:
        third = "a third of RECORDING_TIME_LIMIT"
        yield from _too_long(found, "TRITON_TIMEOUT", timeout, third, limit * TRITON_SHARE)


def _too_long(
    found: Mapping[str, Found], shorter: str, seconds: float, longer: str, longer_seconds: float
) -> Iterator[str]:
    # A default gives way by itself (consumer.run takes the smaller of the two); what somebody wrote does not.
    if shorter in found:
        yield f"{found[shorter].label} is {seconds:g} seconds: give at most {longer} ({longer_seconds:g})."


def _topic_conflicts(values: Mapping[str, Any], found: Mapping[str, Found]) -> Iterator[str]:
    taken: dict[str, str] = {}
    for name in ("QUEUE_NAME", "QUEUE_TARGET", "QUEUE_DEAD_LETTER", "QUEUE_COMPARISON"):
        topic = values.get(name.lower())
        label = found[name].label if name in found else name
        if topic in taken:
            yield f"{label} is {topic!r} like {taken[topic]}: give another topic, or results become events."
        elif topic is not None:
            taken[topic] = label


class Setting(NamedTuple):
    """One variable in force: its value as it may be shown, and where it came from."""

    name: str
    value: str
    origin: str


def describe(settings: TritonAccessSettings) -> list[Setting]:
    """Return every variable in force: secrets masked, with where it came from."""
    return [
        Setting(name, _in_words(getattr(settings, name.lower())), settings.origins.get(name, "default"))
        for name in variables(type(settings))
    ]


def _in_words(value: object) -> str:
    match value:
        case None | ():
            return "(not set)"
        case SecretStr():
            return MASK
        case tuple():
            return ",".join(map(str, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def secret_values(settings: TritonAccessSettings) -> tuple[str, ...]:
    """Return the secrets in force, for logs.configure() and whatever else must mask them."""
    values = (getattr(settings, field_name) for field_name in type(settings).model_fields)
    secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    if settings.triton_access_key:  # NAME=VALUE, of which the value alone travels
        secrets.append(settings.triton_access_key.get_secret_value().partition("=")[2])
    return tuple(secrets)
