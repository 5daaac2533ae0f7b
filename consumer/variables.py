"""Variables: how a setting is named, and where its value is found."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from consumer.masking import mask_urls

LARGEST_SECRET_FILE = 64 * 1024
"""Bytes; a `_FILE` that points to a device or a recording is a mistake, not a secret."""

_NEAR = 0.75
_VERY_NEAR = 0.9
_SYNONYMS = {
    "KAFKA_BOOTSTRAP_SERVERS": "KAFKA_BROKER",
    "KAFKA_TOPIC": "QUEUE_NAME",
    "TRITON_ADDRESS": "TRITON_URL",
}
"""Names that other programs use for the same thing, too far from ours for a spelling comparison."""

# Kubernetes puts these into every pod for each Service of the namespace; nobody typed them.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")


@dataclass(frozen=True)
class Variable:
    """What stands beside a field of the settings and makes it a variable.

    Attributes:
        help: one sentence for the table in docs/configuration.md.
        expects: what to give, as a phrase that ends the sentence "X is not set: give …".
        unit: of the value, for the table.
        aliases: names of the ecosystem's other naming families that mean the same.
        secret: the value is never shown.
        from_file: NAME_FILE may name a file that holds the value; always so for a secret.
        default_words: the default in words, where it is worked out.
    """

    help: str
    expects: str
    unit: str = ""
    aliases: tuple[str, ...] = ()
    secret: bool = False
    from_file: bool = False
    default_words: str = ""

    def names(self, name: str) -> tuple[str, ...]:
        """Return every name that sets it directly; `name` is its own."""
        return (name, *self.aliases)

    def file_names(self, name: str) -> tuple[str, ...]:
        """Return every name that points to a file with the value."""
        return tuple(f"{each}_FILE" for each in self.names(name)) if self.secret or self.from_file else ()


@dataclass(frozen=True)
class Found:
    """A value, still text, and who says so.

    Attributes:
        label: the name that the user wrote, for sentences.
        origin: where it came from, for `vault-ml config`.
    """

    value: str
    label: str
    origin: str


@dataclass
class Findings:
    """What was found for a set of variables.

    Attributes:
        found: by the variable's own name.
        unusable: own names of variables that are set, but not in a usable way; `problems` says how.
    """

    found: dict[str, Found] = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ConfigFile:
    """A YAML file of settings, read but not judged: values by upper-case name."""

    path: Path
    values: Mapping[str, str]
    problems: tuple[str, ...]


def find_all(
    variables: Mapping[str, Variable], environ: Mapping[str, str], config_file: ConfigFile | None
) -> Findings:
    """Find each variable's value in the environment, else in the configuration file."""
    findings = Findings()
    for name, variable in variables.items():
        problems: list[str] = []
        found = _find(name, variable, environ, "environment", problems)
        if found is None and not problems and config_file is not None:
            found = _find(name, variable, config_file.values, f"config file {config_file.path}", problems)
        if problems:
            findings.unusable.add(name)
            findings.problems += problems
        elif found is not None:
            findings.found[name] = found
    return findings


def _find(
    name: str, variable: Variable, source: Mapping[str, str], origin: str, problems: list[str]
) -> Found | None:
    candidates: dict[str, Found] = {}
    for written in variable.names(name):
        suffix = "" if origin == "environment" else f" ({origin})"
        value = source.get(written, "").strip()
        file_name = f"{written}_FILE"
        path = source.get(file_name, "").strip() if file_name in variable.file_names(name) else ""
        if value and path:
            problems.append(f"{written} and {file_name} are both set{suffix}: keep one of them.")
        elif path:
            try:
                secret = _read_secret(Path(path))
            except ValueError as error:
                problems.append(f"{file_name}{suffix} is {path!r}, {error}: correct the path or its content.")
                continue
            candidates[file_name] = Found(secret, f"{file_name}{suffix}", f"file {path}")
        elif value:
            said = origin if written == name else f"{origin} ({written})"
            candidates[written] = Found(value, f"{written}{suffix}", said)
    if len({each.value for each in candidates.values()}) > 1:
        first, *others = candidates
        problems.append(
            f"{first} and {' and '.join(others)} mean the same but are set to different values ({origin}): "
            f"keep {first} only."
        )
    return next(iter(candidates.values()), None)


def _read_secret(path: Path) -> str:
    """Return the content without its trailing newline; ValueError says what is wrong, as a clause."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SECRET_FILE + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise ValueError(f"which cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError("which is not text in UTF-8") from error
    if len(content) > LARGEST_SECRET_FILE:
        raise ValueError(f"which holds more than {LARGEST_SECRET_FILE} bytes")
    text = text.rstrip("\r\n")
    if not text:
        raise ValueError("which is empty")
    return text


def read_config_file(path: Path, known: Iterable[str], advice: Mapping[str, str]) -> ConfigFile:
    """Read a YAML file of settings; what is wrong with it becomes sentences in `problems`.

    Keys are the variables' names in any case; a list stands for a comma list.

    Args:
        known: every name that may stand in it.
        advice: for names that once meant something, the sentence that says what to do instead.
    """
    problem = "is not a list of `name: value` lines: write it as one"
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        problem = f"cannot be read ({error.strerror}): correct the path"
    except UnicodeDecodeError:
        problem = "is not text in UTF-8: save it as UTF-8"
    except yaml.MarkedYAMLError as error:  # str(error) quotes the line, which may hold a secret
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = f"is not YAML, at line {line}: {error.problem}"
    except (yaml.YAMLError, RecursionError):
        problem = "is not YAML: correct it"
    else:
        if root is None:
            return ConfigFile(path, {}, ())
        if isinstance(root, yaml.MappingNode):
            return _read_mapping(path, root, frozenset(known), advice)
    return ConfigFile(path, {}, (f"--config {path} {problem}.",))


def _read_mapping(
    path: Path, root: yaml.MappingNode, known: frozenset[str], advice: Mapping[str, str]
) -> ConfigFile:
    values: dict[str, str] = {}
    problems: list[str] = []
    for key, value in root.value:
        where = f"(config file {path}, line {key.start_mark.line + 1})"
        name = key.value.upper() if isinstance(key, yaml.ScalarNode) else "?"
        text = _text_of(value)
        if name in advice:
            problems.append(f"{name} {where} does nothing here: {advice[name]}")
        elif name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near.lower()}?" if near else "remove it; docs/configuration.md lists all."
            problems.append(f"{name} {where} is not a setting: {hint}")
        elif text is None:
            problems.append(
                f"{name} {where} holds more than one value: write a single value or a plain list."
            )
        elif name in values and values[name] != text:
            problems.append(f"{name} {where} is written a second time with another value: keep one line.")
        else:
            values[name] = text
    return ConfigFile(path, values, tuple(problems))


def _text_of(node: yaml.Node) -> str | None:
    """Return the text as written (0123 stays 0123); a list joined by commas; None for anything deeper."""
    if isinstance(node, yaml.ScalarNode):
        return "" if node.tag == "tag:yaml.org,2002:null" else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(each, yaml.ScalarNode) for each in node.value):
        return ",".join(str(each.value) for each in node.value)
    return None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was probably meant to be, or None."""
    if name in _SYNONYMS:
        return _SYNONYMS[name]
    known = sorted(known)
    family = [each for each in known if each.split("_")[0] == name.split("_", maxsplit=1)[0]]
    close = difflib.get_close_matches(name, family, n=1, cutoff=_NEAR) or difflib.get_close_matches(
        name, known, n=1, cutoff=_VERY_NEAR
    )
    return close[0] if close else None


def near_misses(environ: Mapping[str, str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name found, name probably meant) for environment variables that look like ours and are not."""
    names = frozenset(known)
    misses = []
    for name, value in sorted(environ.items()):
        if name in names or not value.strip() or name.startswith("VAULT_ML_") or _SERVICE_LINK.search(name):
            continue
        near = name.upper() if name.upper() in names else nearest(name.upper(), names)
        if near:
            misses.append((name, near))
    return misses


_USER = re.compile(r"[^\s/,@]+@")


def shown(value: str) -> str:
    """Return a value for a sentence, in quotes; a user or query inside a URL is masked."""
    return repr(_USER.sub("***@", mask_urls(value)))
