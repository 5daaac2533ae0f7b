"""`vault-ml detect` as a person runs it: one line per recording, whatever becomes of the others."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from consumer.analysis import Analysis
from consumer.detect import detect
from consumer.detector import TritonEndpoint
from consumer.pool import WorkerPool
from consumer.rollout import Rollout
from consumer.sample_clip import sample_clip
from consumer.worker import Look, WorkerSettings
from modelops.embedded import EmbeddedTriton
from tests import clips, planted
from tests.planted import Planted


def vault_ml(*arguments: object, **environ: str) -> "subprocess.CompletedProcess[str]":
    kept = {
        name: os.environ[name] for name in os.environ if not name.startswith(("TRITON", "QUEUE", "KAFKA"))
    }
    return subprocess.run(
        [sys.executable, "-m", "consumer", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=kept | environ,
        timeout=120,
        check=False,
    )


def values(ran: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write(tmp_path_factory.mktemp("clips") / "sound.mp4")


def test_a_line_names_the_model_the_frames_their_times_and_boxes(triton: EmbeddedTriton) -> None:
    ran = vault_ml("detect", sample_clip(), "--triton", triton.grpc_url, "--predictions", 3)
    assert ran.returncode == 0, ran.stderr
    (value,) = values(ran)
    assert list(value) == ["recording", "model", "frames", "ledger"]
    assert value["recording"] == "bikes.mp4"
    assert value["model"] == {"name": "yolo", "version": "1"}
    assert len(value["frames"]) == 3
    assert [list(frame) for frame in value["frames"]] == [["index", "time", "detections"]] * 3
    times = [frame["time"] for frame in value["frames"]]
    assert times == sorted(times)
    found = [detection for frame in value["frames"] for detection in frame["detections"]]
    assert "person" in {detection["label"] for detection in found}
    for detection in found:
        assert list(detection) == ["label", "score", "box"]
        assert 0.25 <= detection["score"] <= 1
        x1, y1, x2, y2 = detection["box"]
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 272
        assert all(isinstance(side, float) for side in detection["box"])
    assert value["ledger"]["inferred"] == 3


def test_the_classification_format_is_the_value_that_goes_to_kafka(triton: EmbeddedTriton) -> None:
    ran = vault_ml("detect", sample_clip(), "--triton", triton.grpc_url, "--format", "classification")
    (value,) = values(ran)
    assert value["operation"] == "classification"
    assert list(value["data"]) == ["probabilities", "labels", "boxes"]
    assert all(isinstance(side, int) for frame in value["data"]["boxes"] for box in frame for side in box)


def test_one_bad_recording_gives_status_1_and_the_others_are_done(
    triton: EmbeddedTriton, sound: Path, tmp_path: Path
) -> None:
    encrypted = clips.write_encrypted_looking(tmp_path / "encrypted.mp4")
    missing = tmp_path / "missing.mp4"
    ran = vault_ml("detect", encrypted, sound, missing, sound, "--triton", triton.grpc_url)
    assert ran.returncode == 1
    first, second, third, fourth = values(ran)
    assert first["error"]["reason"] == "encrypted"
    assert third["error"]["reason"] == "refused"
    assert [second["recording"], fourth["recording"]] == ["sound.mp4", "sound.mp4"]
    assert "missing.mp4" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_however_many_clips_only_one_waits_beside_those_at_work(
    triton: EmbeddedTriton, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What waits in the pool counts against its watchdog, so a long list must not be queued at once.
    under_way = []
    submit = WorkerPool.submit

    def watched(pool: WorkerPool, ticket: int, task: str) -> None:
        submit(pool, ticket, task)
        under_way.append(pool.under_way)

    monkeypatch.setattr(WorkerPool, "submit", watched)
    settings = WorkerSettings(Look(1, 0.25, 0.45), TritonEndpoint(triton.grpc_url, "yolo"))
    results = list(detect([sound] * 12, settings, workers=2, time_limit_seconds=60.0))
    assert [clip for clip, result in results if isinstance(result, Analysis)] == [sound] * 12
    assert max(under_way) == 3


def test_annotated_frames_are_pictures_of_the_recordings_size(triton: EmbeddedTriton, tmp_path: Path) -> None:
    ran = vault_ml("detect", sample_clip(), "--triton", triton.grpc_url, "--annotate", tmp_path / "pictures")
    assert ran.returncode == 0, ran.stderr
    written = sorted((tmp_path / "pictures").glob("*.jpg"))
    (value,) = values(ran)
    assert len(written) == sum(bool(frame["detections"]) for frame in value["frames"])
    picture = cv2.imread(str(written[0]))
    assert picture is not None
    assert picture.shape == (272, 640, 3)


def test_without_an_address_a_triton_is_started_and_ended(sound: Path) -> None:
    ran = vault_ml("detect", sound)
    assert ran.returncode == 0, ran.stderr
    assert len(values(ran)) == 1


def test_triton_away_is_one_sentence_and_not_a_traceback(sound: Path) -> None:
    ran = vault_ml("detect", sound, "--triton", "127.0.0.1:9", TRITON_TIMEOUT="2")
    assert ran.returncode == 1
    assert "Triton at 127.0.0.1:9 does not answer" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_wrong_option_is_named_as_it_was_written(sound: Path) -> None:
    ran = vault_ml("detect", sound, "--triton", "127.0.0.1:9", "--score-threshold", "7")
    assert ran.returncode == 2
    assert ran.stderr.startswith("--score-threshold")


def test_config_shows_what_is_in_force_and_no_secret() -> None:
    ran = vault_ml(
        "config",
        QUEUE_NAME="source_topic",
        QUEUE_TARGET="target_topic",
        KAFKA_BROKER="kafka:9092",
        VAULT_API_URL="https://vault.example.com",
        VAULT_ACCESS_KEY="a-key-to-hide",
        VAULT_SECRET_KEY="a-secret-to-hide",
        REMOVE_AFTER_PROCESSED="true",
    )
    assert ran.returncode == 0, ran.stderr
    assert "source_topic.dead-letter" in ran.stdout
    assert "to-hide" not in ran.stdout + ran.stderr
    assert "REMOVE_AFTER_PROCESSED" in ran.stderr


def test_at_a_terminal_the_lines_still_go_where_standard_output_goes(
    triton: EmbeddedTriton, sound: Path, tmp_path: Path
) -> None:
    # The progress bar is on standard error, a terminal here; standard output is a file.
    master, terminal = pty.openpty()
    with (tmp_path / "out.json").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumer", "detect", str(sound), "--triton", triton.grpc_url],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # how a pseudo-terminal says that nobody writes any more
            while piece := os.read(master, 4096):
                shown += piece
        os.close(master)
        assert process.wait(60) == 0
    (line,) = (tmp_path / "out.json").read_text().splitlines()
    assert json.loads(line)["recording"] == "sound.mp4"
    assert b"Looking at recordings" in shown


def test_a_version_that_is_asked_for_is_the_one_that_looks(sound: Path, tmp_path: Path) -> None:
    rows = [(10.0, 10.0, 40.0, 40.0, 0.9, 0)]
    versions = {1: Planted(["car"], rows), 2: Planted(["van"], rows)}
    repository = planted.write_repository(tmp_path / "repository", versions, Rollout(1, 1))
    with EmbeddedTriton.start(repository) as server:
        live = vault_ml("detect", sound, "--triton", server.grpc_url)
        asked = vault_ml("detect", sound, "--triton", server.grpc_url, "--model-version", 2)
        missing = vault_ml("detect", sound, "--triton", server.grpc_url, "--model-version", 3)
    looked = [
        (value["model"]["version"], value["frames"][0]["detections"][0]["label"])
        for ran in (live, asked)
        for value in values(ran)
    ]
    assert looked == [("1", "car"), ("2", "van")]
    assert missing.returncode == 1
    assert "Version 3 of model 'yolo' has no vaultml_labels_3" in missing.stderr


def test_clips_of_one_name_keep_their_own_lines_and_pictures(triton: EmbeddedTriton, tmp_path: Path) -> None:
    paths = []
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        paths.append(tmp_path / directory / "cam.mp4")
        shutil.copy(sample_clip(), paths[-1])
    ran = vault_ml("detect", *paths, "--triton", triton.grpc_url, "--annotate", tmp_path / "pictures")
    first, second = values(ran)
    assert [first["recording"], second["recording"]] == [str(path) for path in paths]
    drawn = sum(bool(frame["detections"]) for value in (first, second) for frame in value["frames"])
    assert len(list((tmp_path / "pictures").iterdir())) == drawn


def test_pictures_that_cannot_be_written_are_refused_before_any_work(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = vault_ml("detect", sound, "--triton", "127.0.0.1:9", "--annotate", tmp_path / "file")
    assert ran.returncode == 1
    assert "cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_model_that_is_not_there_is_not_replaced_by_another(sound: Path, tmp_path: Path) -> None:
    for asked in (("--model", "other"), ("--repository", tmp_path)):
        ran = vault_ml("detect", sound, *asked)
        assert ran.returncode == 1
        assert "There is no model" in ran.stderr


def test_the_consumer_needs_nothing_of_the_model_side() -> None:
    script = (
        "import sys, consumer.run, consumer.worker; print([m for m in sys.modules if m.startswith('onnx')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
