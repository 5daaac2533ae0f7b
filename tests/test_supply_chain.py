"""What images install is pinned, hashed and listed; an audit that did not take place does not look good."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = {"requirements.lock": (), "triton/requirements.lock": ("models", "s3")}
"""What each lock file is for, beside what the project itself needs."""


@dataclass(frozen=True)
class Pin:
    """One package of a lock file."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def version(self) -> str:
        return str(self.requirement.specifier).removeprefix("==")


def pins(lock: str) -> dict[str, Pin]:
    """Return what a lock file pins, by the name as the package index spells it."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Pin] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        words, *hashes = line.split(" --hash=")
        requirement = Requirement(words.strip())
        found[canonicalize_name(requirement.name)] = Pin(requirement, tuple(each.strip() for each in hashes))
    return found


def constraints() -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, version in lines}


def needed(extras: tuple[str, ...]) -> set[str]:
    """Return every package that the project needs here with these extras, and all that those need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"]]
    for extra in extras:
        named += project["optional-dependencies"][extra]
    found: set[str] = set()
    waiting = [Requirement(each) for each in named]
    asked: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        wanted = frozenset(requirement.extras)
        if (name, wanted) not in asked:
            asked.add((name, wanted))
            waiting += _needs(name, wanted)
    return found


def _needs(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    for text in requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield requirement


@pytest.mark.parametrize("lock", EXTRAS)
def test_every_package_of_a_lock_has_hashes_and_the_version_that_is_tested(lock: str) -> None:
    tested = constraints()
    for name, pin in pins(lock).items():
        assert str(pin.requirement.specifier).startswith("=="), name
        assert pin.hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in pin.hashes), name
        assert tested[name] == pin.version, f"{name}: run scripts/lock"


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_holds_all_that_is_needed_and_no_more(lock: str) -> None:
    here = {
        name
        for name, pin in pins(lock).items()
        if pin.requirement.marker is None or pin.requirement.marker.evaluate()
    }
    assert here == needed(EXTRAS[lock]), "run scripts/lock"


def test_no_lock_holds_what_only_tests_need() -> None:
    assert not {"pytest", "trustme", "moto", "ruff", "uv"} & (
        pins("requirements.lock").keys() | pins("triton/requirements.lock").keys()
    )


def test_a_bill_of_materials_lists_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    subprocess.run(
        [str(ROOT / "scripts" / "sbom"), "consumer", str(path)], check=True, capture_output=True, timeout=120
    )
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "vault-ml"
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    assert listed == {name: pin.version for name, pin in pins("requirements.lock").items()}


def judged(tmp_path: Path, report: dict[str, Any] | str) -> tuple[int, str]:
    path = tmp_path / "report.json"
    path.write_text(report if isinstance(report, str) else json.dumps(report))
    command = [sys.executable, str(ROOT / "scripts" / "audit_report.py"), "the.lock", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
BROKEN = {"name": "av", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited: rich (1)"}


@pytest.mark.parametrize(
    ("report", "status", "says"),
    [
        ({"dependencies": [FINE]}, 0, "the.lock: nothing is known of its 1 packages."),
        ({"dependencies": [FINE, BROKEN]}, 1, "the.lock: av 1.0 has PYSEC-1: 1.1 mends it."),
        ({"dependencies": [FINE, UNKNOWN]}, 2, "the.lock was NOT audited in full: of 1 of 2 packages"),
        ({"dependencies": [BROKEN, UNKNOWN]}, 2, "has PYSEC-1"),
        ({"dependencies": []}, 2, "the.lock was NOT audited"),
        ("", 2, "the.lock was NOT audited"),
    ],
    ids=["fine", "known", "skipped", "known and skipped", "nothing", "no report"],
)
def test_an_audit_that_did_not_take_place_does_not_look_good(
    tmp_path: Path, report: dict[str, Any] | str, status: int, says: str
) -> None:
    found, text = judged(tmp_path, report)
    assert found == status
    assert says in text
