"""Every input of the kept corpus keeps what its fuzz target promises; and a crash is told with its replay."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import session
from tests.fuzz.seeds import CORPUS, SEEDS
from tests.fuzz.targets import CANARY, TARGETS

ROOT = Path(__file__).parents[2]


def _kept(target: str) -> list[Path]:
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_the_kept_corpus_passes_its_target(target: str) -> None:
    inputs = _kept(target)
    assert len(inputs) >= len(SEEDS[target]())
    for path in inputs:
        TARGETS[target](path.read_bytes())


def test_the_seeds_are_what_the_code_makes() -> None:
    for target, seeds in SEEDS.items():
        for name, data in seeds().items():
            assert (CORPUS / target / name).read_bytes() == data, f"write {target}/{name} anew"


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for target in TARGETS for path in _kept(target)) < 200_000


def test_the_session_knows_every_target() -> None:
    assert set(session.TARGETS) == set(TARGETS) == set(session.LARGEST_BYTES)


def test_a_target_notices_a_secret_in_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.dead_letter.mask_payload", lambda payload, secrets: payload)
    with pytest.raises(AssertionError):
        TARGETS["events"](b"no JSON: " + CANARY)


def test_a_crash_is_named_with_the_command_that_replays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    harness = tmp_path / "crashing.py"
    harness.write_text(
        "import atheris, sys\n"
        "def target(data):\n"
        "    assert not data.startswith(b'{'), 'a brace'\n"
        "atheris.Setup(['fuzz', *sys.argv[1:]], target)\n"
        "atheris.Fuzz()\n"
    )
    monkeypatch.setattr(session, "FOUND", tmp_path / "found")
    monkeypatch.setattr(session, "_harness", lambda target: [sys.executable, str(harness)])
    assert session.main(["events", "--seconds", "30"]) == 1
    said = capsys.readouterr().out
    (crash,) = (tmp_path / "found" / "crashes").iterdir()
    assert crash.read_bytes().startswith(b"{")
    assert f"scripts/fuzz events --replay {crash}" in said
    assert "a brace" in said
    assert session.main(["events", "--replay", str(crash)]) != 0


def test_the_harness_hands_a_target_to_libfuzzer(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.harness",
            "boxes",
            "-runs=50",
            str(tmp_path),
            str(CORPUS / "boxes"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "cov:" in done.stderr
