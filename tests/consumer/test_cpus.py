"""How many workers a pod starts when nobody says."""

import os
from pathlib import Path

import pytest

from consumer.cpus import usable_cpus


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))


def cpus(tmp_path: Path, files: dict[str, str], own: str = "0::/\n") -> int:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    (tmp_path / "own").write_text(own, encoding="ascii")
    return usable_cpus(tmp_path / "cgroup", tmp_path / "own")


@pytest.mark.usefixtures("many_cpus")
@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 64),
        ({}, "0::/\n", 64),
        ({"pods/one/cpu.max": "max 100000", "pods/cpu.max": "400000 100000"}, "0::/pods/one\n", 4),
        ({"pods/one/cpu.max": "300000 100000", "pods/cpu.max": "400000 100000"}, "0::/pods/one\n", 3),
        ({"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 64),
    ],
    ids=[
        "two",
        "one and a half",
        "half",
        "no quota",
        "no cgroup",
        "parent's",
        "own below parent's",
        "v1",
        "v1 none",
    ],
)
def test_the_quota_of_the_pod_is_kept(files: dict[str, str], own: str, expected: int, tmp_path: Path) -> None:
    assert cpus(tmp_path, files, own) == expected


def test_affinity_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5})
    assert cpus(tmp_path, {"cpu.max": "800000 100000"}) == 2
