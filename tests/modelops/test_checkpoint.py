"""Checkpoints go through Ultralytics' own exporter, if the user has it; it is never asked for."""

import tomllib
from pathlib import Path

import pytest

from consumer.errors import SetupError
from modelops import checkpoint, export, network

STAND_IN = """
import sys
import onnx
from tests.modelops import little_models

class YOLO:
    def __init__(self, file):
        self.file = file
        if open(file).read() == "torn":
            raise RuntimeError("the archive is torn")

    def export(self, **asked):
        assert asked["format"] == "onnx" and asked["dynamic"], asked
        target = self.file.removesuffix(".pt") + ".onnx"
        onnx.save(little_models.ultralytics(64, 64), target)
        return target
"""
"""The one call of Ultralytics that is made; the package itself is under AGPL, so no test installs it."""


@pytest.fixture
def ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "ultralytics-8.4.0.dist-info").mkdir(parents=True)
    (site / "ultralytics-8.4.0.dist-info" / "METADATA").write_text("Name: ultralytics\nVersion: 8.4.0\n")
    (site / "ultralytics.py").write_text(STAND_IN)
    repository = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{repository}:{repository / 'triton'}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAULT_ML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def best(tmp_path: Path) -> Path:
    file = tmp_path / "mine" / "best.pt"
    file.parent.mkdir()
    file.write_text("weights")
    return file


def test_without_ultralytics_the_user_is_told_what_it_is_and_what_else_to_do(best: Path) -> None:
    with pytest.raises(
        SetupError, match=r"best\.pt .*`pip install ultralytics` .*AGPL-3\.0.*or export it to ONNX"
    ):
        checkpoint.convert(best)


@pytest.mark.usefixtures("ultralytics")
def test_a_checkpoint_becomes_an_onnx_in_the_cache(best: Path, cache: Path) -> None:
    file = export.resolve(str(best))

    assert file.is_relative_to(cache)
    assert network.network_inputs(network.load(file)).own_size == (64, 64)
    assert [each.name for each in best.parent.iterdir()] == ["best.pt"]


@pytest.mark.usefixtures("ultralytics")
def test_a_checkpoint_is_exported_once(best: Path) -> None:
    first = checkpoint.convert(best)
    written = first.stat().st_mtime_ns

    assert checkpoint.convert(best) == first
    assert first.stat().st_mtime_ns == written


@pytest.mark.usefixtures("ultralytics")
def test_what_ultralytics_says_of_a_bad_checkpoint_is_passed_on(best: Path, cache: Path) -> None:
    best.write_text("torn")

    with pytest.raises(SetupError, match=r"does not export best\.pt: RuntimeError: the archive is torn\.$"):
        checkpoint.convert(best)
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"best\.pt is not there"):
        checkpoint.convert(tmp_path / "best.pt")


def test_ultralytics_is_no_dependency() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()

    assert not [
        each for wanted in (project["dependencies"], *extras) for each in wanted if "ultralytics" in each
    ]
