"""Temporary files: what a killed process leaves is swept, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from consumer.temporary import private_file, sweep

_KILLED_WHILE_IT_HAS_A_NAME = """
import os, signal, sys, tempfile
from pathlib import Path
from consumer.temporary import private_file
tempfile._O_TMPFILE_WORKS = False  # as on a file system without O_TMPFILE
os.unlink = lambda path: os.kill(os.getpid(), signal.SIGKILL)
private_file(Path(sys.argv[1]))
"""


def test_a_file_never_has_a_name(tmp_path: Path) -> None:
    with private_file(tmp_path) as file:
        file.write(b"recording")
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_IT_HAS_A_NAME, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("vault-ml-")
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_and_of_the_living_are_left_alone(tmp_path: Path) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    kept = [f"vault-ml-{os.getpid()}-{started}-a", "vault-ml-notes-of-mine", "other-1-2-a", "vault-ml-x-y-z"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / "vault-ml-999999999-7-directory").mkdir()
    (tmp_path / f"vault-ml-{os.getpid()}-1-its-id-was-used-again").touch()
    assert sweep(tmp_path) == 1
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "vault-ml-999999999-7-directory"}
