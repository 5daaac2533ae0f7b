"""What the log promises: one line per fact, for people or machines, and no secret in it."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from consumer import logs

SECRET = "hunter2-of-the-vault"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _put_logging_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def fail(sentence: str) -> None:
    raise ValueError(sentence)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_machine_gets_one_json_object_per_line_with_time_in_utc() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger("vault-ml").info("recording", key="a/b.mp4", frames=5, seconds={"download": 0.5})
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "recording",
        "key": "a/b.mp4",
        "frames": 5,
        "seconds": {"download": 0.5},
        "logger": "vault-ml",
    }


def test_a_person_at_a_terminal_gets_words() -> None:
    stream = Terminal()
    logs.configure(stream=stream)
    structlog.get_logger("vault-ml").info("recording", frames=5)
    assert "recording" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize(("format_", "stream"), [("json", Terminal()), ("console", io.StringIO())])
def test_log_format_overrules_the_terminal(format_: logs.LogFormat, stream: io.StringIO) -> None:
    logs.configure(format=format_, stream=stream)
    structlog.get_logger("vault-ml").info("recording")
    assert stream.getvalue().startswith("{") == (format_ == "json")


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_less_important_lines_are_dropped_wherever_they_come_from(level: str, expected: int) -> None:
    for logger in (structlog.get_logger("vault-ml"), logging.getLogger("librdkafka")):
        stream = io.StringIO()
        logs.configure(level, stream=stream)
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)("line")
        assert len(lines(stream)) == expected


def test_the_standard_library_speaks_in_the_same_lines() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("librdkafka").warning("%s brokers are down", 2)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("2 brokers are down", "warning", "librdkafka")


def test_a_logger_made_before_the_configuration_obeys_it() -> None:
    early = structlog.get_logger("early")
    stream = io.StringIO()
    logs.configure(stream=stream)
    early.info("hello")
    logs.configure(stream=(second := io.StringIO()))
    early.info("again")
    assert [line["event"] for line in lines(stream)] == ["hello"]
    assert [line["event"] for line in lines(second)] == ["again"]


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize("source", ["structlog", "logging"])
def test_no_secret_is_logged_in_any_way(format_: logs.LogFormat, source: str) -> None:
    stream = io.StringIO()
    logs.configure("debug", format_, [SECRET], stream)
    link = "https://minio/b/k.mp4?X-Amz-Signature=0123abcd"
    logger: Any = structlog.get_logger("vault-ml") if source == "structlog" else logging.getLogger("urllib3")
    logger.info(f"event {SECRET} {link}")
    logger.info("argument %s %s", SECRET, link)
    try:
        fail(f"refused {SECRET} at {link}")
    except ValueError as error:
        logger.exception("failed")
        logger.warning("failed", exc_info=error)
    if source == "structlog":
        logger.info("field", value=SECRET, nested={"list": [SECRET, (link,)]}, raw=SECRET.encode())
        logger.info("object", error=ValueError(SECRET), path=Path(SECRET))
        logger.bind(bound=SECRET).info("bound")
        logger.info("named", storage_secret="of-an-event", signedUrl="https://minio/x")
    text = stream.getvalue()
    assert SECRET not in text
    assert "0123abcd" not in text
    assert "of-an-event" not in text
    assert text.count("Traceback") == 2
    assert text.count("***") >= 6


def test_a_traceback_does_not_show_local_variables() -> None:
    stream = Terminal()
    logs.configure(stream=stream)
    local = " ".join(["a value", "of the moment"])
    try:
        fail(local.upper())
    except ValueError:
        structlog.get_logger("vault-ml").exception("failed")
    assert local not in stream.getvalue()
    assert local.upper() in stream.getvalue()


def test_a_recordings_name_cannot_forge_a_line_or_move_the_cursor() -> None:
    stream = io.StringIO()
    logs.configure(format="console", stream=stream)
    structlog.get_logger("vault-ml").info(
        "recording", key="x.mp4\n2026 [error] forged\x1b[2J\x9b\u202e\u2028\u2066"
    )
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b[2J" not in stream.getvalue()
    assert not set("\x9b\u202e\u2028\u2066") & set(stream.getvalue())


def test_a_line_that_cannot_be_written_costs_nothing_but_itself(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    logs.configure(secrets=[SECRET], stream=Broken())
    structlog.get_logger("vault-ml").info("recording", value=SECRET)
    logging.getLogger("urllib3").warning(SECRET)
    said = capsys.readouterr().err
    assert "could not be written: BrokenPipeError" in said
    assert SECRET not in said


def test_pythons_own_warnings_are_lines_too() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert any("old ways" in line["event"] for line in lines(stream))


CHILD = f"""
import logging, multiprocessing, sys, threading
import structlog
from consumer import logs

def work(secret):
    logs.configure("info", "json", [secret])
    structlog.get_logger("worker").info("in a worker", value=secret)

def fail():
    raise ValueError("{SECRET}")

if __name__ == "__main__":
    logs.configure("info", "json", ["{SECRET}"])
    process = multiprocessing.get_context("spawn").Process(target=work, args=("{SECRET}",))
    process.start()
    process.join()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fail()
"""


def test_spawned_workers_and_unforeseen_ends_are_lines_without_secrets(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(CHILD, encoding="utf-8")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert SECRET not in run.stderr
    events = [json.loads(line)["event"] for line in run.stderr.splitlines()]
    assert events == [
        "in a worker",
        "a thread ended with an unforeseen error",
        "stopped by an unforeseen error",
    ]
    assert run.stdout == ""  # that is for results
