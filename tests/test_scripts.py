"""The commands that people type first: they are sound, and say what is missing."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path
    for folder in ("scripts", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.read_bytes().startswith(b"#!")
)


def test_every_script_can_be_run() -> None:
    names = {str(path.relative_to(ROOT)) for path in SCRIPTS}
    assert names >= {"scripts/demo", "scripts/test", "scripts/environment", ".ci/run"}
    assert [str(path) for path in SCRIPTS if not os.access(path, os.X_OK)] == []


def test_the_shell_scripts_pass_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("There is no shellcheck: run scripts/test, or install it.")
    shell = [path for path in SCRIPTS if b"bash" in path.read_bytes().splitlines()[0]]
    done = subprocess.run([shellcheck, *shell], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""


def test_a_machine_without_the_right_python_is_told_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    done = subprocess.run(
        [tmp_path / "scripts" / "environment"],
        env={"PATH": os.environ["PATH"], "PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("No Python 3.11 or 3.12 was found")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)], ids=["in CI", "on a desk"])
def test_a_skip_fails_in_ci_only(tmp_path: Path, ci: str, status: int) -> None:
    (tmp_path / "test_nothing.py").write_text(
        textwrap.dedent(
            """
            import pytest

            def test_that_is_skipped():
                pytest.skip("Something is not there.")

            def test_that_passes():
                pass
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "--rootdir", tmp_path, tmp_path],
        env=os.environ | {"CI": ci},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stdout
    assert ("in CI a skip is a failure" in done.stdout) == bool(ci)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {_name(each) for each in wanted} - {_name(each) for each in pinned} == {"vault-ml"}


def _name(requirement: str) -> str:
    """Return a requirement's project as the package index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()
