"""`vault-ml demo`: the whole way on one machine, and nothing left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests import clips

SECONDS = 120.0


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "consumer", "demo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background of a shell ignores Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
    )


def test_a_clip_of_ones_own_comes_out_as_a_result_with_pictures(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "my own_clip.mp4")
    process = start(clip, "--output", tmp_path / "out")
    out, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    (value,) = [json.loads(line) for line in out.splitlines()]
    assert value["operation"] == "classification"
    assert value["payload"]["key"].endswith("_my-own-clip_200-200-400-400_24_769.mp4")
    assert value["payload"]["fileSize"] == clip.stat().st_size
    assert str(tmp_path / "out") in said.replace("\n", "")


def test_the_sample_clip_gives_pictures_with_boxes(tmp_path: Path) -> None:
    process = start("--output", tmp_path / "out")
    out, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    value = json.loads(out)
    assert any("person" in labels for labels in value["data"]["labels"])
    assert len(list((tmp_path / "out").glob("*.jpg"))) == len(value["data"]["labels"])


def test_a_clip_that_cannot_be_decoded_ends_as_a_sentence_and_status_1(tmp_path: Path) -> None:
    clip = clips.write_audio_only(tmp_path / "audio.mp4")
    process = start(clip, "--output", tmp_path / "out")
    out, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert out == ""
    assert "undecodable" in said
    assert "Traceback" not in said


def consumer_runs(parent: psutil.Process) -> bool:
    for child in parent.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # Triton's own preparations come and go
            if "run" in child.cmdline()[-1:]:
                return True
    return False


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "clip.mp4")
    process = start(*[clip] * 100, "--output", tmp_path / "out")  # enough not to be done before the Ctrl-C
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + SECONDS
    # The consumer is the last part to come up: then Triton, its stub, the workers are all there.
    while not consumer_runs(parent):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = parent.children(recursive=True)
    assert len(family) >= 3
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in said
    _gone, alive = psutil.wait_procs(family, timeout=30)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
