"""`vault-ml run` and `vault-ml detect` on recordings that agents encrypted."""

import json
import os
import subprocess
import sys
from pathlib import Path

from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.worlds import World, keys

KEY = "the-agents-symmetric-key"
NOISE = {"SCORE_THRESHOLD": "0.005"}
"""The model sees nothing in a drawn clip; so low, what it answers is the same only for the same pictures."""


def test_with_the_right_key_an_encrypted_recording_gives_the_boxes_of_the_plain_one(
    world: World, clip: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text(KEY + "\n")
    encrypted, foreign = tmp_path / "encrypted.mp4", tmp_path / "foreign.mp4"
    for path, key in ((encrypted, KEY), (foreign, "of-another-agent")):
        path.write_bytes(clip.read_bytes())
        clips.encrypt(path, key)
    world.send(
        world.store("cam/plain.mp4", clip),
        world.store("cam/foreign.mp4", foreign),
        world.store("cam/encrypted.mp4", encrypted),
    )
    with world.pod(RECORDING_ENCRYPTION_KEY_FILE=str(secret), **NOISE) as pod:
        records = world.results(2)
        (letter,) = world.letters(1)
        assert pod.stop() == 0
    by_key = dict(zip(keys(records), records, strict=True))
    plain, decrypted = by_key["cam/plain.mp4"], by_key["cam/encrypted.mp4"]
    data = json.loads(plain.value or b"{}")["data"]
    assert len(data["boxes"]) > 0
    assert json.loads(decrypted.value or b"{}")["data"] == data
    for header in ("vault-ml-outcome", "vault-ml-frames", "vault-ml-ledger"):
        assert decrypted.headers[header] == plain.headers[header]
    attributes = letter["deadLetter"]["attributes"]
    assert (attributes["key"], attributes["reason"]) == ("cam/foreign.mp4", "wrong_key")
    assert letter["deadLetter"]["attempts"] == 1
    assert KEY not in pod.log.read_text() + json.dumps(letter) + str(records)


def test_without_a_key_an_encrypted_recording_is_a_dead_letter_that_names_the_setting(
    world: World, clip: Path, tmp_path: Path
) -> None:
    encrypted = tmp_path / "encrypted.mp4"
    encrypted.write_bytes(clip.read_bytes())
    world.send(
        world.store("cam/encrypted.mp4", clips.encrypt(encrypted, KEY)), world.store("cam/plain.mp4", clip)
    )
    with world.pod() as pod:
        (letter,) = world.letters(1)
        assert keys(world.results(1)) == ["cam/plain.mp4"]
        assert pod.stop() == 0
    attributes = letter["deadLetter"]["attributes"]
    assert attributes["reason"] == "encrypted"
    assert "set RECORDING_ENCRYPTION_KEY" in attributes["sentence"]


def test_detect_decrypts_and_draws_with_the_key_of_the_environment(
    triton: EmbeddedTriton, clip: Path, tmp_path: Path
) -> None:
    plain, encrypted = tmp_path / "plain.mp4", tmp_path / "encrypted.mp4"
    for path in (plain, encrypted):
        path.write_bytes(clip.read_bytes())
    clips.encrypt(encrypted, KEY)
    pictures = tmp_path / "pictures"
    command = [sys.executable, "-m", "consumer", "detect", str(plain), str(encrypted)]
    options = ["--score-threshold", "0.005", "--annotate", str(pictures), "--workers", "1"]
    environ = os.environ | {"TRITON_URL": triton.grpc_url, "RECORDING_ENCRYPTION_KEY": KEY}
    done = subprocess.run(
        [*command, *options], env=environ, capture_output=True, text=True, check=True, timeout=120
    )
    one, other = (json.loads(line) for line in done.stdout.splitlines())
    assert one["frames"] == other["frames"]
    assert any(frame["detections"] for frame in one["frames"])
    drawn = sorted(path.name for path in pictures.iterdir())
    assert [name.replace("encrypted", "plain") for name in drawn if name.startswith("encrypted")] == [
        name for name in drawn if name.startswith("plain")
    ]
    assert KEY not in done.stdout + done.stderr
