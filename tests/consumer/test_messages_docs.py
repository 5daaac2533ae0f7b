"""What docs/messages.md promises: that its examples are what the program reads and writes."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import consumer
from consumer.analysis import Analysis, Detection, FrameResult
from consumer.comparison import Comparison, comparison_id
from consumer.contract import ModelVersion
from consumer.dead_letter import REASON_HEADER, build_dead_letter
from consumer.errors import RecordingUndecodable
from consumer.events import MAX_DEPTH, MAX_ENTRIES, MAX_KEY_BYTES, RecordingEvent, parse_message
from consumer.messages import Position
from consumer.results import Header, build_result, frames_value
from consumer.second_look import MAX_BATCHES_BEHIND, PATIENCE_SECONDS
from consumer.secret_fields import EVENT, IDENTIFIERS
from tests.fakes.recorded_events import README_EVENT

TEXT = (Path(__file__).parents[2] / "docs" / "messages.md").read_text(encoding="utf-8")
EXAMPLES: dict[str, Any] = {
    name: json.loads(text)
    for name, text in re.findall(r"<!-- example: ([a-z ]+) -->\n```json\n(.*?)```", TEXT, re.DOTALL)
}
ANALYSIS = Analysis(
    outcome="done",
    frames=(
        FrameResult(37, 1.48, (Detection("car", 0.5907418131828308, (298.2, 35.6, 398.4, 79.0)),)),
        FrameResult(87, 3.48, ()),
        FrameResult(
            187,
            7.48,
            (
                Detection("truck", 0.7311708927154541, (513.7, 53.2, 656.4, 129.4)),
                Detection("car", 0.555280864238739, (314.9, 100.8, 351.2, 124.6)),
            ),
        ),
    ),
    width=1280,
    height=720,
    model_name="yolo",
    model_version="1",
    model_digest=EXAMPLES["headers"]["vault-ml-digest"],
    ledger=EXAMPLES["frames"]["ledger"],
)


def test_the_event_is_the_readmes() -> None:
    assert EXAMPLES["event"] == README_EVENT


def test_the_result_and_its_headers_are_those_of_the_event() -> None:
    (event,) = parse_message(json.dumps(EXAMPLES["event"]).encode())
    assert isinstance(event, RecordingEvent)
    message = build_result(event, ANALYSIS, Position("source_topic", 0, 41), 1_000_012)
    assert json.loads(message.value) == EXAMPLES["result"]
    assert {name: value.decode() for name, value in message.headers} == EXAMPLES["headers"]


def test_the_frames_are_those_of_the_same_analysis() -> None:
    assert frames_value("clip.mp4", ANALYSIS) == EXAMPLES["frames"]


def test_the_dead_letter_is_what_is_sent() -> None:
    example = EXAMPLES["dead letter"]
    message = build_dead_letter(
        base64.b64decode(example["payload"]),
        RecordingUndecodable(example["deadLetter"]["attributes"]["sentence"]),
        Position("source_topic", 0, 42),
        destination="source_topic.dead-letter",
        attempts=1,
        max_bytes=1_000_012,
        timestamp=datetime(2026, 5, 1, 12, tzinfo=UTC),
    )
    example["deadLetter"]["attributes"]["version"] = consumer.__version__
    assert json.loads(message.value) == example


def test_the_comparison_is_what_is_sent() -> None:
    comparison = Comparison.from_json(json.dumps(EXAMPLES["comparison"]))
    assert json.loads(comparison.to_json()) == EXAMPLES["comparison"]
    live, candidate = (
        ModelVersion("", (), EXAMPLES["comparison"][role]["digest"]) for role in ("live", "candidate")
    )
    identity = (comparison.source, comparison.key, comparison.generation)
    assert comparison.id == comparison_id(*identity, live, candidate)


def test_every_name_of_a_comparison_is_in_its_table() -> None:
    names = {*EXAMPLES["comparison"], *EXAMPLES["comparison"]["live"]} - {"version", "digest"}
    told = TEXT.partition("## Comparisons")[2].partition("| `failed` | When |")[0]
    rows = re.findall(r"^\| (`.*?`) \|", told, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == names


def test_what_makes_a_comparison_fail_is_in_the_text() -> None:
    assert f"not done {PATIENCE_SECONDS:g} seconds after" in TEXT
    assert f"{MAX_BATCHES_BEHIND} batches behind" in TEXT


def test_every_identifier_is_in_the_text() -> None:
    told = TEXT.partition("**Identifiers are echoed as they came**")[2].partition("So a camera may be")[0]
    in_place = EVENT.identifiers | {f"payload.{name}" for name in EVENT.inner["payload"].identifiers}
    assert set(re.findall(r"`([\w.-]+)`", told)) == IDENTIFIERS | in_place


def test_every_header_is_in_the_table() -> None:
    named = set(re.findall(r"^\| `(vault-ml-[a-z]+)` \|", TEXT, re.MULTILINE))
    assert named == {value for name, value in vars(Header).items() if name.isupper()} | {REASON_HEADER}


def test_the_limits_in_the_text_are_the_codes() -> None:
    for words in (f"{MAX_DEPTH} levels", f"{MAX_ENTRIES} events", f"{MAX_KEY_BYTES} bytes"):
        assert words in TEXT
