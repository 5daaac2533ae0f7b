"""`vault-ml demo`: the whole way of a recording on one machine, with real parts.

A real Triton, a Kafka broker (librdkafka's mock cluster), a stand-in for Vault over HTTP, and the consumer as
users start it: `vault-ml run` with the variables of its Deployment. All of it listens on loopback.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumer.analysis import Detection
from consumer.annotate import write_annotated_frames
from consumer.detect import names
from consumer.errors import SetupError
from consumer.media import FileMedia
from consumer.mock_broker import MockBroker
from consumer.results import Header
from consumer.sample_clip import sample_clip
from consumer.standin_vault import StandinVault
from consumer.topics import Record, produce, read_topic
from modelops.embedded import EmbeddedTriton
from modelops.export import ready_repository

SOURCE_TOPIC = "source_topic"
TARGET_TOPIC = "target_topic"
DEAD_LETTER_TOPIC = f"{SOURCE_TOPIC}.dead-letter"

READY_SECONDS = 60.0
RESULT_SECONDS_PER_CLIP = 120.0
STOP_SECONDS = 35.0


@dataclass(frozen=True)
class Shown:
    """What came out of the target topic and what was drawn of it."""

    values: list[dict[str, Any]]
    failures: list[str]
    pictures: list[Path]


def demonstrate(
    clips: Sequence[Path], output: Path, *, predictions: int, say: Callable[[str], None]
) -> Shown:
    """Send one recording event per clip through everything, and draw what came back.

    Args:
        clips: local videos; none for the sample clip.
        output: the directory for annotated frames.
        predictions: NUMBER_OF_PREDICTIONS.
        say: takes a line about what happens now.

    Raises:
        SetupError: a part does not start; says which.
    """
    if missing := [str(clip) for clip in clips if not clip.is_file()]:
        raise SetupError(f"There is no file {', '.join(missing)}: name video files that exist.")
    if not clips:
        say("Getting the sample clip ready")
        clips = [sample_clip()]
    say("Getting the model ready (YOLOX-nano, or YOLOv3-tiny where that is out of reach)")
    repository = ready_repository()
    with contextlib.ExitStack() as stack:
        say("Starting Triton on this machine's CPUs")
        triton = stack.enter_context(EmbeddedTriton.start(repository))
        say(f"  Triton      {triton.grpc_url}")
        topics = dict.fromkeys((SOURCE_TOPIC, TARGET_TOPIC, DEAD_LETTER_TOPIC), 1)
        broker = stack.enter_context(MockBroker(topics))
        say(f"  Kafka       {broker.bootstrap} (librdkafka's mock cluster; delivery is at-least-once)")
        recordings = {_key(number, clip): clip for number, clip in enumerate(clips)}
        media = dict(zip(recordings, map(FileMedia, clips, names(clips)), strict=True))
        vault = stack.enter_context(StandinVault(recordings))
        say(f"  Vault       {vault.url} (a stand-in)")
        environ = _environment(triton.grpc_url, broker.bootstrap, vault, predictions)
        port = stack.enter_context(_consumer(environ, output))
        say(f"  Consumer    vault-ml run, http://127.0.0.1:{port}/metrics; log in {output / 'consumer.log'}")
        events = [_event(key, clip, vault.provider or "standin") for key, clip in recordings.items()]
        say(f"Putting {len(events)} recording event{'s' * (len(events) > 1)} on {SOURCE_TOPIC}")
        produce(broker.bootstrap, SOURCE_TOPIC, [json.dumps(event).encode() for event in events])
        say(f"Waiting for what comes out of {TARGET_TOPIC}")
        results, letters = _outcomes(broker.bootstrap, len(events))
        say("Drawing the boxes")
        pictures = [
            picture
            for record in results
            for picture in _draw(record, media[json.loads(record.value or b"{}")["payload"]["key"]], output)
        ]
    return Shown([json.loads(record.value or b"{}") for record in results], letters, pictures)


def _key(number: int, clip: Path) -> str:
    """Name a recording as an agent does: time, size and microseconds, camera, region, changes, token."""
    camera = re.sub(r"[^A-Za-z0-9-]+", "-", clip.stem)
    return f"demo/{int(time.time()) + number}_6-967003_{camera}_200-200-400-400_24_769{clip.suffix or '.mp4'}"


def _event(key: str, clip: Path, provider: str) -> dict[str, Any]:
    """Return an event as Vault publishes it (docs/messages.md)."""
    stamp, camera = key.split("/")[1].split("_", maxsplit=1)[0], key.split("_")[2]
    return {
        "date": int(stamp),
        "events": ["monitor", "sequence", "analysis", "throttler", "notification"],
        "provider": "kstorage",
        "request": "persist",
        "payload": {
            "key": key,
            "fileSize": clip.stat().st_size,
            "is_fragmented": False,
            "metadata": {
                "uploadtime": stamp,
                "event-instancename": camera,
                "event-timestamp": stamp,
                "productid": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5",
                "event-numberofchanges": "24",
                "event-microseconds": "0",
                "event-regioncoordinates": "200-200-400-400",
                "capture": "IPCamera",
                "event-token": "0",
                "publickey": "ABCDEFGHI!@#$%12345",
            },
            "bytes_ranges": "",
            "bytes_range_on_time": None,
        },
        "source": provider,
    }


def _environment(triton_url: str, bootstrap: str, vault: StandinVault, predictions: int) -> dict[str, str]:
    """Return the variables of the Deployment, for the parts that were started here."""
    return {
        "QUEUE_SYSTEM": "KAFKA",
        "QUEUE_NAME": SOURCE_TOPIC,
        "QUEUE_TARGET": TARGET_TOPIC,
        "KAFKA_BROKER": bootstrap,
        "KAFKA_GROUP": "group",
        "KAFKA_SECURITY": "PLAINTEXT",
        "KAFKA_DELIVERY": "at-least-once",  # the mock cluster does not store the offsets of transactions
        "VAULT_API_URL": vault.url,
        "VAULT_ACCESS_KEY": vault.access_key,
        "VAULT_SECRET_KEY": vault.secret_key,
        "NUMBER_OF_PREDICTIONS": str(predictions),
        "TRITON_URL": triton_url,
        "HTTP_PORT": str(_free_port()),
        "LOG_FORMAT": "json",
    }


@contextlib.contextmanager
def _consumer(environ: Mapping[str, str], output: Path) -> Iterator[int]:
    """Run `vault-ml run` until the block is left; gives its port once it is ready."""
    output.mkdir(parents=True, exist_ok=True)
    port = int(environ["HTTP_PORT"])
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    with (output / "consumer.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumer", "run"],
            env=inherited | dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_ready(process, port, output / "consumer.log")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        connection.close()
        time.sleep(0.1)
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise SetupError(f"The consumer did not become ready: {last[0] if last else log}")


def _outcomes(bootstrap: str, expected: int) -> tuple[list[Record], list[str]]:
    """Return the results, and a sentence for each recording that became a dead letter instead."""
    deadline = time.monotonic() + expected * RESULT_SECONDS_PER_CLIP
    while True:
        results = read_topic(bootstrap, TARGET_TOPIC, expected, timeout_seconds=1.0)
        letters = read_topic(bootstrap, DEAD_LETTER_TOPIC, expected - len(results), timeout_seconds=0.2)
        if len(results) + len(letters) >= expected:
            break
        if time.monotonic() > deadline:
            raise SetupError(f"Only {len(results)} of {expected} results came; the consumer's log says why.")
    return results, [_why(letter) for letter in letters]


def _why(letter: Record) -> str:
    attributes = json.loads(letter.value or b"{}")["deadLetter"]["attributes"]
    return f"dead letter: {json.dumps(attributes, ensure_ascii=False)}"


def _draw(record: Record, media: FileMedia, output: Path) -> list[Path]:
    """Draw the boxes of a result onto the frames that its header names."""
    data = json.loads(record.value or b"{}")["data"]
    times_ms = [milliseconds for _, milliseconds in json.loads(record.headers[Header.FRAMES])]
    found = {
        milliseconds / 1000: [
            Detection(label, score, (x1, y1, x2, y2))
            for label, score, (x1, y1, x2, y2) in zip(labels, scores, boxes, strict=True)
        ]
        for milliseconds, labels, scores, boxes in zip(
            times_ms, data["labels"], data["probabilities"], data["boxes"], strict=True
        )
    }
    return write_annotated_frames(media, found, output)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
