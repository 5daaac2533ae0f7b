"""What the documents promise: that they speak of the program as it is."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
import typer.main
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from consumer import (
    backlog,
    boxes,
    claims,
    cli,
    diff_topic,
    errors,
    events,
    memory_watch,
    prefetch,
    sampling,
    second_look,
    service,
    settings,
    stream,
)
from consumer.analysis import Analysis
from consumer.comparison import Comparison, Side
from consumer.dead_letter_cli import app as dead_letter_app
from consumer.limits import OPEN_FILES
from consumer.metrics import PARTS, STAGES, Metrics
from consumer.results import frames_value
from consumer.rollout import Rollout
from modelops.cli import app as model_app

ROOT = Path(__file__).parents[1]


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


DOCUMENTS = [name for name in tracked_files() if name.endswith(".md")]


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def code_of(document: str) -> list[str]:
    """The lines of code blocks, and the pieces of code inside sentences."""
    text = text_of(document)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line for block in blocks for line in block.splitlines()] + inline


def section(document: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", text_of(document), flags=re.MULTILINE)
    return parts[parts.index(heading) + 1]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, line in enumerate(lines) if set(line) <= set("|- ")]
    heads = {number - 1 for number in rules}
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for number, line in enumerate(lines)
        if number not in heads and number not in rules
    ]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Links and paths


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_inside_the_repository_leads_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    folders = "consumer|docs|manifests|scripts|tests|triton"
    for code in code_of(document):
        for path in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w/?", code):
            assert (ROOT / path).exists(), path


def test_no_file_names_a_place_on_a_developers_machine() -> None:
    own = re.compile(rb"(?<![\w.$}/-])/(?:home|Users|root|work|mnt)/\w|[A-Z]:\\Users")
    found = [name for name in tracked_files() if own.search((ROOT / name).read_bytes())]
    assert found == []


def test_pictures_are_small() -> None:
    pictures = [ROOT / name for name in tracked_files() if name.startswith("docs/images/")]
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 100_000] == []


# Commands


def commands() -> dict[str, set[str]]:
    """Every command of the command line with its options, `model export` and its like included."""

    def leaves(prefix: str, app: typer.Typer) -> Iterator[tuple[str, set[str]]]:
        group = typer.main.get_group(app)
        for name, each in group.commands.items():
            options = {option for parameter in each.params for option in parameter.opts}
            yield f"{prefix}{name}", {option for option in options if option.startswith("--")} | {"--help"}

    groups = {**dict(leaves("model ", model_app)), **dict(leaves("dead-letter ", dead_letter_app))}
    return {"": {"--version", "--help"}, **dict(leaves("", cli.app)), **groups}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_is_named_exists_with_its_options(document: str) -> None:
    known = commands()
    for code in code_of(document):
        for words in re.findall(r"(?:^|/|\s)vault-ml ((?:model |dead-letter )?[a-z]+\b.*|--.*)", code):
            name = re.match(r"(?:model |dead-letter )?[a-z]+|", words).group()  # type: ignore[union-attr]  # may be empty
            assert name in known or name == "model", code
            assert set(re.findall(r"--[a-z-]+", words.split("#")[0])) <= known.get(name, set()), code


def test_every_command_is_in_a_document() -> None:
    named = "\n".join(code for document in DOCUMENTS for code in code_of(document))
    assert [command for command in commands() if f"vault-ml {command}" not in named] == []


# README


def test_the_readmes_deployment_is_one_that_works() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", text_of("README.md"), re.DOTALL)
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    assert settings.load(environ).triton_url == environ["TRITON_URL"]
    assert settings.warnings(environ, dev=ROOT / "no-devices-here") == []
    assert "nvidia.com/gpu" not in text


def test_the_readmes_line_of_detect_has_the_keys_of_today() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", text_of("README.md"), re.DOTALL)
    line = json.loads(text)
    assert line.keys() == frames_value("clip.mp4", Analysis("done")).keys()


# Operations


def exposed_metrics() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every series of ours that /metrics shows once everything has happened."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.recording_finished("dead-letter", "malformed")
    metrics.retried("unavailable")
    metrics.lag({("events", 0): 3})
    metrics.oldest_event_expires({"events": 3600.0})
    metrics.looked_at(Analysis("done", model_name="yolo", model_version="1", model_digest="sha256:0"))
    metrics.trials.rollout(Rollout(1, 1))
    side = Side(1, "sha256:0", 1, {"car": 1})
    comparison = Comparison("id", "", "a.mp4", "canary", 1, "yolo", side, side)
    metrics.trials.compared(comparison)
    metrics.trials.compared(replace(comparison, failed="timeout"))
    text = generate_latest(registry).decode()
    types = re.findall(r"^# TYPE (vault_ml_\w+) (\w+)$", text, re.MULTILINE)
    return {
        name: (
            kind,
            set(re.findall(r"(\w+)=", " ".join(re.findall(rf"^{name}\w*{{(.*)}}", text, re.MULTILINE)))),
        )
        for name, kind in types
        if not name.endswith("_created")
    }


def test_the_table_of_metrics_is_the_codes() -> None:
    named = {
        names_in(name)[0]: (kind, set(names_in(labels)))
        for name, kind, labels, _meaning in rows(section("docs/operations.md", "Metrics"))
    }
    exposed = exposed_metrics()
    assert exposed["vault_ml_stage_seconds"] == ("histogram", {"stage", "le"})
    without_le = {name: (kind, labels - {"le"}) for name, (kind, labels) in exposed.items()}
    assert named == without_le, "`le` belongs to every histogram"


def test_the_table_of_metrics_names_every_stage_and_part() -> None:
    meanings = {names_in(row[0])[0]: row[3] for row in rows(section("docs/operations.md", "Metrics"))}
    assert sorted(names_in(meanings["vault_ml_stage_seconds"])) == sorted(STAGES)
    assert sorted(names_in(meanings["vault_ml_outage"])) == sorted(PARTS)


def test_there_is_advice_for_an_outage_of_every_part() -> None:
    advice = section("docs/operations.md", "`vault_ml_outage` is 1")
    assert sorted(re.findall(r"^- `(\w+)`:", advice, re.MULTILINE)) == sorted(PARTS)


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    def leaves(kind: type[errors.VaultMLError]) -> Iterator[str]:
        for each in kind.__subclasses__():
            if each.__module__ == errors.__name__:
                yield each.reason
                yield from leaves(each)

    table = rows(section("docs/dead-letters.md", "What each reason asks for"))
    named = [names_in(row[0])[0] for row in table]
    assert set(named) == {*leaves(errors.NeverHeals), "retry_exhausted", *leaves(errors.MayHeal)}


def test_reasons_are_explained_in_one_place() -> None:
    explained = {
        document
        for document in DOCUMENTS
        for row in rows(text_of(document))
        if {"undecodable", "wrong_key"} & set(names_in(row[0]))
    }
    assert explained == {"docs/dead-letters.md"}


def test_who_lists_the_letters_of_a_replay_is_told_the_rights_to_them() -> None:
    assert any("QUEUE_DEAD_LETTER=<topic-to>.dead-letter" in code for code in code_of("docs/dead-letters.md"))
    granted = {
        name: row[2]
        for row in rows(section("docs/operations.md", "Rights in Kafka"))
        if "READ" in row[2]
        for name in names_in(row[1])
    }
    for name in ("<topic-to>.dead-letter", "<topic-to>.dead-letter.replayed"):
        assert granted[name] == "READ, DESCRIBE"


def test_every_log_line_in_the_table_is_written_somewhere() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "consumer").glob("*.py"))
    written = set(re.findall(r'\.(?:info|warning|error|critical)\(\s*"([^"]+)"', sources))
    named = {name for row in rows(section("docs/operations.md", "Log lines")) for name in names_in(row[0])}
    assert named <= written
    assert written <= named
    assert "try failed" in named


# Architecture


def test_every_module_of_the_consumer_is_in_the_tables() -> None:
    table = rows(section("docs/architecture.md", "The way of one recording"))
    named = [name for row in table for name in names_in(row[0])]
    modules = {path.stem for path in (ROOT / "consumer").glob("*.py") if not path.stem.startswith("__")}
    assert sorted(named) == sorted(modules)


def test_every_module_of_the_models_side_is_in_a_table() -> None:
    text = text_of("docs/architecture.md").partition("## The model's side")[2]
    first = {name for row in rows(text) for name in names_in(row[0])}
    named = {name for row in rows(text) for cell in row for name in names_in(cell)}
    modules = {path.stem for path in (ROOT / "triton/modelops").glob("*.py") if path.stem != "__init__"}
    assert modules - named == set()
    assert first - modules == set()


def test_the_limits_are_the_codes() -> None:
    limits = {row[0]: row[1] for row in rows(section("docs/architecture.md", "Limits"))}
    in_hand = limits["recordings in hand, waiting ones and unconfirmed results included"]
    assert in_hand.split(",")[0] == str(service.MAX_IN_HAND)
    assert limits["recordings ready to be tried"].split()[0] == str(service.READY_PER_WORKER)
    ahead = f"{prefetch.AHEAD_MESSAGES} of a partition, {prefetch.AHEAD_BYTES // 1024**2} MiB in all"
    assert limits["messages fetched ahead"] == ahead
    assert limits["messages that the Kafka client has besides"] == f"{stream.PREFETCH_KILOBYTES // 1024} MiB"
    held = limits["messages behind an unfinished one, per partition"]
    assert held.split(",")[0] == str(service.MAX_HELD_MESSAGES)
    held_in_all = limits["results that wait, of all partitions of a pod"]
    assert held_in_all == f"{service.MAX_HELD_BYTES_IN_ALL >> 20} MiB"
    assert limits["files that a worker has open"] == str(OPEN_FILES)
    assert limits["memory of the pod"].split()[0] == str(memory_watch.FULL_SHARE)
    assert limits["worker or pod deaths of one recording"] == str(backlog.MAX_BREAKDOWNS)
    behind = limits["batches that a version that is only compared is behind"]
    assert behind == str(second_look.MAX_BATCHES_BEHIND)
    assert limits["comparisons that Kafka has not confirmed"] == str(diff_topic.MOST_WAITING)
    samples = "samples that an MP4's tables count, or packets of another container"
    assert limits[samples] == str(claims.MAX_SAMPLES)
    assert limits["boxes of an MP4"] == str(boxes.MAX_BOXES)
    assert limits["damaged places between boxes"] == str(boxes.MAX_GAPS)
    tried = "keyframes tried in place of damaged ones, per frame wanted"
    assert limits[tried] == str(sampling.MAX_KEYFRAMES)
    message = limits["an event's message"]
    assert message == (
        f"{events.MAX_BYTES >> 20} MiB, {events.MAX_ENTRIES} events, {events.MAX_VALUES} commas and "
        f"brackets, {events.MAX_DEPTH} levels, keys of {events.MAX_KEY_BYTES} bytes"
    )
    in_memory = limits["what the events in hand take in memory, by an upper bound"]
    assert in_memory == f"{service.MAX_IN_HAND_BYTES >> 20} MiB"
