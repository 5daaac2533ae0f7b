"""`vault-ml dead-letter` on a real Kafka: what failed is found, shown, handed on and sent again once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumer import letter_text, resend, resend_cli
from consumer.connection import KafkaConnection
from consumer.dead_letter import build_dead_letter
from consumer.errors import (
    EventMalformed,
    RecordingRefused,
    RecordingUnavailable,
    RecordingUndecodable,
    VaultMLError,
)
from consumer.letters import Choice, read_letters
from consumer.messages import OutgoingMessage, Position
from consumer.past import Past
from consumer.replay_mark import HEADER, ReplayMark
from consumer.resend_plan import plan_of
from consumer.topics import produce
from consumer.transactional_producer import Batch, TransactionalProducer, Written
from tests.brokers.kafka import KafkaBroker
from tests.brokers.topics import committed_offsets, create_topic
from tests.command_line import vault_ml_here
from tests.fakes.recorded_events import EVENT_2024, EVENT_2026, README_EVENT, SECRETS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
UNDECODABLE = RecordingUndecodable("it has no video track: nothing can be looked at.")


@dataclass
class Post:
    """A source topic, its topic of letters, and the pods' Kafka variables; no Vault, no Triton."""

    kafka: KafkaBroker
    source: str
    written: int = 0
    producer: TransactionalProducer | None = None

    @property
    def topic(self) -> str:
        return f"{self.source}.dead-letter"

    @property
    def environ(self) -> dict[str, str]:
        return {"QUEUE_NAME": self.source, "KAFKA_BROKER": self.kafka.bootstrap}

    def write(self, event: object, error: VaultMLError = UNDECODABLE, **more: Any) -> None:  # noqa: ANN401  # handed on
        """Write a letter as a pod does: in a transaction, so that control records stand between them."""
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        topic, index = more.pop("topic", self.source), more.pop("index", 0)
        position = Position(topic, 0, self.written, index)
        options: dict[str, Any] = {
            "destination": self.topic,
            "attempts": 1,
            "max_bytes": 1_000_000,
            "timestamp": NOON + timedelta(hours=self.written),
        }
        self.send(build_dead_letter(payload, error, position, **options | more))
        self.written += 1

    def send(self, message: OutgoingMessage) -> None:
        if self.producer is None:
            self.producer = TransactionalProducer(
                KafkaConnection(self.kafka.bootstrap),
                transactional_id=self.topic,
                max_message_bytes=1_000_000,
            )
            self.producer.begin()
        self.producer.write(Batch(((self.topic, message),), (), None))
        assert self.producer.take(30.0) == Written()

    def run(self, *arguments: str, answer: str | None = None) -> subprocess.CompletedProcess[str]:
        return vault_ml_here("dead-letter", *arguments, environ=self.environ, answer=answer)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.run("list", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def sent(self, topic: str = "") -> list[tuple[bytes, ReplayMark | None]]:
        """Return the events on the source topic, or another, with their marks."""
        with Past(KafkaConnection(self.kafka.bootstrap), topic or self.source) as past:
            records = [each.record for each in past.read(past.stretches())]
        return [(each.value or b"", ReplayMark.from_json(each.headers.get(HEADER, ""))) for each in records]


@pytest.fixture
def post(kafka: KafkaBroker) -> Iterator[Post]:
    source = create_topic(kafka.bootstrap, "letters")
    create_topic(kafka.bootstrap, f"{source}.dead-letter", exact=True)
    made = Post(kafka, source)
    yield made
    if made.producer is not None:
        made.producer.close()


def event(key: str, camera: str = "highway4") -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(README_EVENT))
    made["payload"]["key"] = key
    made["payload"]["metadata"]["event-instancename"] = camera
    return made


def test_letters_are_listed_newest_first_and_summed_up_by_reason(post: Post) -> None:
    post.write(event("a.mp4"))
    post.write(event("b.mp4"), RecordingUnavailable("Vault answers 500."), exhausted=True, attempts=9)
    post.write(b"{no json", EventMalformed("The event is not JSON."))
    done = post.run("list")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0][:4] == ["letter", "id", "failed at (UTC)", "reason"]
    assert [row[3] for row in rows[1:]] == ["malformed", "retry_exhausted (unavailable)", "undecodable"]
    assert rows[2][4:7] == ["9", "highway4", "b.mp4"]
    assert "3 dead letters" in done.stderr
    assert "malformed 1" in done.stderr
    assert committed_offsets(post.kafka.bootstrap, "vault-ml", post.topic) == {}


def test_a_topic_that_takes_long_to_read_is_announced_and_a_position_is_read_alone(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        post.write(event(f"{name}.mp4"))
    monkeypatch.setattr(resend_cli, "_MANY", 2)
    assert f"Reading {post.topic}, which holds about 6 messages." in post.run("list").stderr
    shown = post.run("show", "0/2")
    assert "b.mp4" in shown.stdout
    assert "Reading" not in shown.stderr
    two = post.run("export", "0/4", "0/0")
    assert [json.loads(line)["key"] for line in two.stdout.splitlines()] == ["c.mp4", "a.mp4"]


def test_letters_are_chosen_by_reason_camera_and_time(post: Post) -> None:
    post.write(event("a.mp4", "gate"))
    post.write(event("b.mp4", "yard"))
    post.write(event("c.mp4", "gate"), RecordingRefused("Vault refuses it (404)."))
    assert [each["key"] for each in post.listed("--camera", "gate")] == ["c.mp4", "a.mp4"]
    assert [each["key"] for each in post.listed("--reason", "undecodable", "--reason", "x")] == [
        "b.mp4",
        "a.mp4",
    ]
    assert [each["key"] for each in post.listed("--reason", "handler_error", "--limit", "1")] == ["c.mp4"]
    in_between = post.listed("--from", "2026-05-01T12:30", "--to", "2026-05-01T14:00Z")
    assert [each["key"] for each in in_between] == ["b.mp4"]
    nothing = post.run("list", "--camera", "cellar")
    assert "No such dead letter" in nothing.stderr


def test_a_letter_is_shown_with_its_event_and_without_credentials(post: Post) -> None:
    post.write(EVENT_2024)
    by_position = post.run("show", "0/0")
    assert UNDECODABLE.args[0] in by_position.stdout
    assert '"storage_secret": "***"' in by_position.stdout
    assert README_EVENT["payload"]["metadata"]["productid"] in by_position.stdout
    assert not any(secret in by_position.stdout for secret in SECRETS)
    (listed,) = post.listed()
    by_id = post.run("show", listed["id"][:12], "--json")
    assert json.loads(by_id.stdout)["event"]["payload"] == README_EVENT["payload"]
    by_source = post.run("show", f"{post.source}/0/0/0")
    assert by_source.stdout == by_position.stdout


def test_nothing_that_strangers_wrote_reaches_a_terminal_as_it_is(post: Post) -> None:
    post.write(event("a.mp4", "gate\x1b]0;owned\x07\u202e"))
    post.write(b"\x1b[2Jno json\x07", EventMalformed("x\x1b[2J"))
    for arguments in (["list"], ["list", "--json"], ["show", "0/0"], ["show", "0/2"], ["export"]):
        done = post.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr)


def test_letters_are_handed_on_as_lines_or_as_files(post: Post, tmp_path: Path) -> None:
    post.write(EVENT_2026)
    post.write(b"{no json", EventMalformed("The event is not JSON."))
    lines = [json.loads(line) for line in post.run("export").stdout.splitlines()]
    assert lines[0]["event"]["payload"]["key"] == EVENT_2026["payload"]["key"]
    assert lines[1]["event_base64"] == "e25vIGpzb24="
    post.run("export", "--output", str(tmp_path / "letters.jsonl"), "--reason", "malformed")
    assert json.loads((tmp_path / "letters.jsonl").read_text())["reason"] == "malformed"
    done = post.run("export", "0/2", "--output", str(tmp_path / "letters"))
    assert "1 dead letters written" in done.stderr
    assert {path.name for path in (tmp_path / "letters").iterdir()} == {"0-2.letter.json", "0-2.event.bin"}
    assert (tmp_path / "letters" / "0-2.event.bin").read_bytes() == b"{no json"


def test_whoever_stops_reading_letters_in_the_middle_sees_no_traceback(post: Post) -> None:
    for number in range(3):
        post.write(event(f"{number}.mp4") | {"monitorStage": {"plans": "x" * 200_000}})
    reading = subprocess.Popen(
        [sys.executable, "-m", "consumer", "dead-letter", "export"],
        env=os.environ | post.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert reading.stdout is not None
    assert reading.stderr is not None
    reading.stdout.read(10)
    reading.stdout.close()
    said = reading.stderr.read()
    reading.stderr.close()
    assert reading.wait() == 1
    assert said == b""


def test_letters_that_were_not_all_written_do_not_replace_those_that_were(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    post.write(event("a.mp4"))
    lines = tmp_path / "letters.jsonl"
    post.run("export", "--output", str(lines))
    before = lines.read_text()
    monkeypatch.setattr(letter_text, "as_json", interrupted)
    done = post.run("export", "--output", str(lines))
    assert done.returncode != 0
    assert "what is written is a part of the letters" in done.stderr
    assert "Traceback" not in done.stderr
    assert lines.read_text() == before


def test_a_reason_that_no_letter_has_is_answered_with_those_that_are_there(post: Post) -> None:
    post.write(event("a.mp4"))
    done = post.run("list", "--reason", "undecodeable")
    assert "No such dead letter" in done.stderr
    assert "Reasons of letters there: undecodable." in done.stderr


def test_a_mistake_in_a_name_is_said_though_no_broker_answers() -> None:
    environ = {"QUEUE_NAME": "source", "KAFKA_BROKER": "127.0.0.1:1"}
    done = vault_ml_here("dead-letter", "show", "5", environ=environ)
    assert (done.returncode, "'5' names no dead letter" in done.stderr) == (2, True), done.stderr


def test_nothing_is_sent_before_somebody_agrees(post: Post) -> None:
    post.write(event("a.mp4"))
    refused = post.run("replay", "--all")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    dry = post.run("replay", "--all", "--dry-run")
    assert f"a.mp4 (undecodable) to {post.source}" in dry.stderr
    assert post.sent() == []
    assert post.listed()[0]["sent_again_at"] is None


def test_a_letter_goes_back_byte_for_byte_with_a_mark_and_only_once(post: Post) -> None:
    payload = json.dumps(event("a.mp4"), indent=3).encode()
    post.write(payload)
    assert post.run("replay", "--all", "--yes").returncode == 0
    second = post.run("replay", "--all", "--yes")
    assert "1 that were sent again already are left out" in second.stderr
    third = post.run("replay", "0/0", "--yes")
    assert third.returncode == 1
    assert "add --again" in third.stderr
    ((sent, mark),) = post.sent()
    assert sent == payload
    (listed,) = post.listed()
    assert mark is not None
    assert (mark.of, mark.id, mark.count, mark.at) == (
        "dead-letter",
        listed["id"],
        1,
        listed["sent_again_at"],
    )
    assert post.run("replay", "0/0", "--yes", "--again").returncode == 0
    assert [mark and mark.count for _, mark in post.sent()] == [1, 2]


def test_masked_credentials_are_left_out_of_what_is_sent(post: Post) -> None:
    post.write(EVENT_2024)
    post.write(EVENT_2026 | {"payload": EVENT_2026["payload"] | {"key": "b/token=7.mp4"}})
    assert post.run("replay", "--all", "--yes").returncode == 0
    first, second = (json.loads(sent) for sent, _ in post.sent())
    assert first == {name: value for name, value in EVENT_2024.items() if name != "data"} | {"data": {}}
    assert "signedUrl" not in second["payload"]
    assert second["payload"]["key"] == "b/token=7.mp4", "masking does not change the recording's name"
    assert second["payload"]["metadata"] == EVENT_2026["payload"]["metadata"]
    assert b"***" not in b"".join(sent for sent, _ in post.sent())


def test_what_failed_again_is_left_alone_until_somebody_says_so(post: Post) -> None:
    mark = ReplayMark("dead-letter", "a" * 64, 1, "2026-05-01T10:00:00Z")
    post.write(event("a.mp4"), replay=mark)
    first = post.run("replay", "--all", "--yes")
    assert "1 that failed again after they had been are left out" in first.stderr
    assert post.sent() == []
    assert post.run("replay", "--reason", "undecodable", "--again", "--yes").returncode == 0
    assert [sent and sent.count for _, sent in post.sent()] == [2]


def test_of_several_letters_of_one_recording_the_newest_is_sent_and_all_are_done_with(post: Post) -> None:
    post.write(event("a.mp4"))
    post.write(event("a.mp4"), RecordingRefused("Vault refuses it (404)."))
    assert post.run("replay", "--all", "--yes").returncode == 0
    assert len(post.sent()) == 1
    assert [bool(each["sent_again_at"]) for each in post.listed()] == [True, True]


def test_what_is_not_whole_is_not_sent_and_says_why(post: Post) -> None:
    post.write(b"\xff" * 20_000, EventMalformed("not UTF-8."), max_bytes=10_000)
    post.write(b'{"storage_secret": "hunter22", ', EventMalformed("not JSON."))
    post.write(b"", RecordingRefused("x"))
    post.write(EVENT_2026 | {"monitorStage": {"plans": "x" * 20_000}}, max_bytes=10_000)
    done = post.run("replay", "--all", "--yes")
    assert "0/0 : its event is not whole (cut off after" in done.stderr
    assert "0/2 : credentials in it are masked, and it is no event as JSON" in done.stderr
    assert "0/4 : it holds no event" in done.stderr
    assert [each["event_is"].split()[0] for each in post.listed()] == ["reduced", "whole", "whole", "cut"]
    ((sent, _),) = post.sent()
    assert json.loads(sent)["payload"] == {"key": EVENT_2026["payload"]["key"]}, "what was reduced will do"


def test_an_event_that_was_left_out_is_found_by_its_camera_and_sent_from_the_source_topic(post: Post) -> None:
    events = [event("a.mp4"), EVENT_2024, event("c.mp4"), event("d.mp4")]
    produce(post.kafka.bootstrap, post.source, [json.dumps(each).encode() for each in events[:2]])
    produce(post.kafka.bootstrap, post.source, [json.dumps(events[2:]).encode()])
    for number in (0, 1):
        post.write(events[number], max_bytes=0)
    post.written = 2
    post.write(events[3], max_bytes=0, index=1)
    listed = post.listed("--camera", "highway4")
    assert [each["key"] for each in listed] == ["d.mp4", EVENT_2024["payload"]["key"], "a.mp4"]
    assert "were left out" in post.run("show", "0/0").stdout
    assert [row.split("\t")[7] for row in post.run("list").stdout.splitlines()[1:]] == ["not whole"] * 3
    done = post.run("replay", "--all", "--yes")
    assert "Sent 3 of 3 events again." in done.stderr
    sent = [json.loads(value) for value, mark in post.sent() if mark is not None]
    assert sent[0] == events[0]
    assert sent[1] == {name: value for name, value in EVENT_2024.items() if name != "data"} | {"data": {}}
    assert sent[2] == events[3], "one event out of a list goes back alone"


def test_an_event_that_is_left_out_and_gone_from_the_source_topic_is_named_and_not_sent(post: Post) -> None:
    other = create_topic(post.kafka.bootstrap, "elsewhere")
    for topic in (post.source, other):
        produce(post.kafka.bootstrap, topic, [json.dumps(event("b.mp4")).encode()])
    post.write(event("a.mp4"), max_bytes=0)  # another event stands where it stood
    post.write(event("b.mp4"), max_bytes=0)
    post.written = 0
    post.write(event("b.mp4"), max_bytes=0, topic=other)
    before = post.sent()
    done = post.run("replay", "--all", "--yes")
    said = [line.split("left out, ")[1] for line in done.stderr.splitlines() if "left out, " in line]
    once_more = "): have its sender send it once more."
    assert said == [
        f"and at {post.source}/0/0/0 no such recording's event is found{once_more}",
        f"and it came from topic '{other}', which is not QUEUE_NAME{once_more}",
        f"and topic '{post.source}' holds {post.source}/0/1/0 no longer{once_more}",
    ]
    assert post.sent() == before


def test_letters_of_other_services_are_shown_and_not_sent(post: Post) -> None:
    about = {
        "source": "kcloud-thumby-queue",
        "destination": post.topic,
        "service": "hub-thumby",
        "reason": "handler_error",
        "timestamp": "2026-05-01T12:00:00.123456789Z",
    }
    envelope = {"schema": "uug.ai/dead-letter/v1", "payload": "e30=", "deadLetter": about}
    post.send(OutgoingMessage(b"", json.dumps(envelope).encode(), []))
    produce(post.kafka.bootstrap, post.topic, [b"no envelope", None, b'{"schema": "uug.ai/dead-letter/v1"}'])
    (listed,) = post.listed()
    assert (listed["service"], listed["reason"]) == ("hub-thumby", "handler_error")
    done = post.run("replay", "--all", "--yes")
    assert "hub-thumby wrote it" in done.stderr
    assert post.sent() == []


def test_events_go_to_queue_name_only_unless_somebody_says_where(post: Post) -> None:
    other = create_topic(post.kafka.bootstrap, "elsewhere")
    post.write(event("a.mp4"), topic=other)
    done = post.run("replay", "0/0", "--yes")
    assert done.returncode == 1
    assert f"it came from topic '{other}', and QUEUE_NAME is '{post.source}'" in done.stderr
    assert "Nothing is to be sent" in done.stderr
    assert "Sent 1 of 1" in post.run("replay", "0/0", "--topic-to", other, "--yes").stderr
    assert post.sent() == []


def test_what_cannot_be_sent_does_not_fill_up_the_limit(post: Post) -> None:
    for name in "abc":
        post.write(event(f"{name}.mp4"), topic="elsewhere")
    post.write(event("d.mp4"), max_bytes=0)  # the source topic holds nothing of it
    post.write(event("e.mp4"))
    done = post.run("replay", "--all", "--limit", "1", "--yes")
    assert "Sent 1 of 1 event again." in done.stderr
    assert done.stderr.count("Not sent: ") == 4
    assert "younger ones wait" not in done.stderr
    assert [json.loads(sent)["payload"]["key"] for sent, _ in post.sent()] == ["e.mp4"]


def test_sending_again_what_failed_again_goes_on_with_the_next_ones(post: Post) -> None:
    for number, name in enumerate("abc", 1):
        post.write(event(f"{name}.mp4"), replay=ReplayMark("dead-letter", "a" * 64, number, "2026-05-01"))
    said = [post.run("replay", "--all", "--again", "--limit", "1", "--yes").stderr for _ in range(4)]
    assert [json.loads(sent)["payload"]["key"] for sent, _ in post.sent()] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [mark and mark.count for _, mark in post.sent()] == [2, 3, 4]
    assert "1 younger ones wait" in said[1]
    assert "Nothing is to be sent" in said[3]
    assert "3 that were sent again already are left out (name one to repeat it)" in said[3]


def test_what_somebody_else_sent_while_the_plan_was_looked_at_is_not_sent_twice(post: Post) -> None:
    for name in "ab":
        post.write(event(f"{name}.mp4"))
    connection = KafkaConnection(post.kafka.bootstrap)
    with Past(connection, post.topic) as letters:
        read = list(read_letters(letters, Choice()))
    plan = plan_of(read, {}, source=post.source, now=NOON)
    assert post.run("replay", "0/0", "--yes").returncode == 0
    sent = resend.send(plan.sendings, connection, post.topic, f"{post.source}-other")
    assert list(sent) == [resend.Sent(done=1, by_others=1)]
    sent = resend.send(plan.sendings, connection, post.topic, None)
    assert list(sent) == [resend.Sent(done=0, by_others=2)]
    assert [json.loads(sent)["payload"]["key"] for sent, _ in post.sent()] == ["a.mp4", "b.mp4"]


def test_large_events_are_sent_in_transactions_of_their_own(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        post.write(event(f"{name}.mp4"))
    monkeypatch.setattr(resend, "BATCH_BYTES", 2 * len(json.dumps(event("a.mp4"))))
    done = post.run("replay", "--all", "--yes")
    assert "Sent 2 of 3 events again.\nSent 3 of 3 events again." in done.stderr
    assert len(post.sent()) == 3


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_an_event_that_is_too_large_for_its_topic_is_named_and_the_others_are_sent(
    post: Post, delivery: str
) -> None:
    narrow = create_topic(post.kafka.bootstrap, "narrow", config={"max.message.bytes": "2000"})
    post.write(event("a.mp4") | {"note": "n" * 20_000})
    for name in "bcde":
        post.write(event(f"{name}.mp4") | {"note": "n" * 600})
    arguments = ("dead-letter", "replay", "--all", "--yes", "--topic-to", narrow)
    done = vault_ml_here(*arguments, environ=post.environ | {"KAFKA_DELIVERY": delivery})
    assert done.returncode == 1
    assert "Not sent: 0/0 a.mp4: its event of 2" in done.stderr
    assert f"bytes is too large for '{narrow}': raise the topic's max.message.bytes." in done.stderr
    assert "Sent 4 of 5 events again." in done.stderr
    assert sorted(json.loads(sent)["payload"]["key"] for sent, _ in post.sent(narrow)) == [
        f"{name}.mp4" for name in "bcde"
    ]
    assert [bool(each["sent_again_at"]) for each in post.listed()] == [True] * 4 + [False]


def test_at_least_once_sends_and_notes_without_a_transaction(post: Post) -> None:
    post.write(event("a.mp4"))
    environ = post.environ | {"KAFKA_DELIVERY": "at-least-once"}
    assert vault_ml_here("dead-letter", "replay", "--all", "--yes", environ=environ).returncode == 0
    assert len(post.sent()) == 1
    assert post.listed()[0]["sent_again_at"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["show", "nonsense"], 2, "'nonsense' names no dead letter"),
        (["show", "0/77"], 1, "No dead letter is called 0/77"),
        (["show", "9/0"], 1, "No dead letter is called 9/0"),
        (["show", "elsewhere/0/0"], 2, "'elsewhere/0/0' is in topic 'elsewhere'"),
        (["list", "--from", "soon"], 2, "--from is 'soon': give an age"),
        (["list", "--from", "1h", "--to", "2h"], 2, "--to 2h is not after --from 1h"),
        (["replay", "--yes"], 2, "Say which letters"),
        (["replay", "--all", "--reason", "x", "--yes"], 2, "Say which letters"),
        (["replay", "0/0", "--topic-to", "nowhere-at-all", "--yes"], 1, "'nowhere-at-all' does not exist"),
        (["export", "0/0", "--reason", "x"], 2, "not both"),
        (["export", "--output", "letters.json"], 2, "--output letters.json is neither"),
        (["export", "0/0", "--output", "/dev/null/x"], 1, "cannot be written to /dev/null/x"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(post: Post, arguments: list[str], status: int, said: str) -> None:
    post.write(event("a.mp4"))
    done = post.run(*arguments)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert post.sent() == []


def test_a_missing_topic_or_variable_is_named(kafka: KafkaBroker) -> None:
    environ = {"QUEUE_NAME": "never-there", "KAFKA_BROKER": kafka.bootstrap}
    missing = vault_ml_here("dead-letter", "list", environ=environ)
    assert missing.returncode == 1
    assert "'never-there.dead-letter' does not exist" in missing.stderr
    nothing = vault_ml_here("dead-letter", "list", environ={})
    assert nothing.returncode == 2
    assert [line.split()[0] for line in nothing.stderr.splitlines()] == ["QUEUE_NAME", "KAFKA_BROKER"]


def test_a_refused_login_is_named_and_shows_no_secret(kafka: KafkaBroker) -> None:
    environ = {
        "QUEUE_NAME": "letters",
        "KAFKA_BROKER": kafka.sasl_bootstrap,
        "KAFKA_SECURITY": "SASL_PLAINTEXT",
        "KAFKA_USERNAME": "plain-user",
        "KAFKA_PASSWORD": "a-wrong-secret",
    }
    done = vault_ml_here("dead-letter", "list", environ=environ)
    assert done.returncode == 1
    assert "Kafka refused the login" in done.stderr
    assert "a-wrong-secret" not in done.stdout + done.stderr
    environ["KAFKA_PASSWORD"] = "plain-secret"
    assert "does not exist" in vault_ml_here("dead-letter", "list", environ=environ).stderr
