"""Verify says what breaks the contract, and leaves alone what a person may edit."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumer.errors import SetupError
from consumer.rollout import Rollout
from modelops import companion as companions
from modelops.cli import app
from modelops.provenance import File, Plan, Provenance
from modelops.repository import Repository
from modelops.verify import verify
from tests.modelops.candidates import candidate

YOLO = "repository/yolo"
CONFIG = f"{YOLO}/config.pbtxt"
CPU = f"{YOLO}/configs/cpu.pbtxt"
ROLLOUT = "repository/yolo-rollout/config.pbtxt"
SHELF = "repository.shelf/yolo/2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a repository with version 1 in service and version 2 on the shelf."""
    directory = tmp_path_factory.mktemp("whole")
    repository = Repository.open(directory / "repository")
    for _ in range(2):
        repository.publish(candidate())
    return directory


def test_nothing_is_wrong_with_what_was_published(repository: Repository) -> None:
    for _ in range(2):
        repository.publish(candidate())
    repository.publish(candidate("other"))

    assert verify(repository) == []
    repository.serve("yolo", 2)
    assert verify(repository, ["yolo"]) == []


Damage = Callable[[Path], object]


def _edit(file: str, old: str, new: str) -> Damage:
    def damage(directory: Path) -> None:
        text = (directory / file).read_text()
        assert old in text
        (directory / file).write_text(text.replace(old, new))

    return damage


def _remove(path: str) -> Damage:
    def damage(directory: Path) -> None:
        place = directory / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return damage


def _write(path: str, content: bytes) -> Damage:
    def damage(directory: Path) -> None:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)

    return damage


def _copy(source: str, target: str) -> Damage:
    return lambda directory: shutil.copytree(directory / source, directory / target)


def _roll_out(rollout: Rollout) -> Damage:
    def damage(directory: Path) -> None:
        repository = Repository.open(directory / "repository")
        changed = replace(repository.companion("yolo"), rollout=rollout)
        (directory / ROLLOUT).write_text(companions.render("yolo", changed))

    return damage


def _provenance(change: Callable[[Provenance], Provenance]) -> Damage:
    def damage(directory: Path) -> None:
        file = directory / YOLO / "1" / "provenance.json"
        file.write_text(change(Provenance.from_json(file.read_text())).to_json())

    return damage


def _plan(content: bytes, max_batch_size: int = 32) -> Damage:
    """A plan in the provenance of version 1, and a file of that name."""
    digest = "sha256:d8bb2d9e2ce0fd1ee4bd1cf2cd7cf1dac79de9e8f2bbf1bf4e7e2ba5bbfb6c96"

    def damage(directory: Path) -> None:
        plan = Plan(
            File("model_cc89.plan", digest),
            "NVIDIA L4",
            "8.9",
            "11.0",
            "600.1",
            max_batch_size=max_batch_size,
        )
        _provenance(lambda provenance: replace(provenance, plans=(plan,)))(directory)
        if content:
            _write(f"{YOLO}/1/model_cc89.plan", content)(directory)

    return damage


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        # Configurations
        pytest.param(
            _edit(CONFIG, "max_batch_size:", "max_batch:"),
            "config.pbtxt cannot be read: .*max_batch",
            id="typo",
        ),
        pytest.param(
            _edit(CONFIG, 'name: "yolo"', 'name: "yolov8"'),
            "names the model 'yolov8', and its directory 'yolo'",
            id="name",
        ),
        pytest.param(
            _edit(CONFIG, 'input [ { name: "FRAMES"', 'input [ { name: "images"'),
            "must have exactly one input, FRAMES; found images",
            id="input",
        ),
        pytest.param(
            _edit(CONFIG, "TYPE_UINT8 dims", "TYPE_FP32 dims"),
            "must have FRAMES as TYPE_UINT8, found TYPE_FP32",
            id="type",
        ),
        pytest.param(
            _edit(CONFIG, "dims: [ 96, 96 ] } ]", "dims: [ 3, 96, 96 ] } ]"),
            r"must have two dims for FRAMES, .*found \[3, 96, 96\]",
            id="batch in the dims",
        ),
        pytest.param(
            _edit(CONFIG, "dims: [ 96, 96 ] } ]", "dims: [ 95, 96 ] } ]"),
            r"must have \[H\*3/2, W\] .*found \[95, 96\]",
            id="size",
        ),
        pytest.param(
            _edit(CONFIG, "dims: [ 8, 6 ]", "dims: [ 8, 7 ]"),
            r"must have \[K, 6\] .*found \[8, 7\]",
            id="rows",
        ),
        pytest.param(
            _edit(CONFIG, "max_batch_size: 32", "max_batch_size: 0"),
            "has max_batch_size 0: at least 1",
            id="no batches",
        ),
        pytest.param(
            _edit(CONFIG, '"i420_bt601_limited"', '"nv12"'),
            "has 'nv12' as the parameter vaultml_pixel_format, which must be i420",
            id="parameter",
        ),
        pytest.param(
            _edit(CONFIG, "vaultml_nms", "nms"),
            "lacks the parameter vaultml_nms, which must be consumer or graph",
            id="no parameter",
        ),
        pytest.param(
            _edit(CONFIG, "version_policy { all { } }", "version_policy { latest { } }"),
            "must have `version_policy { all",
            id="policy",
        ),
        pytest.param(
            _edit(CONFIG, "version_policy { all { } }", ""),
            "must have `version_policy { all",
            id="Triton's own policy",
        ),
        pytest.param(
            _edit(CONFIG, "vaultml_contract", "vaultml_labels_1"),
            "vaultml_labels_1, which only yolo-rollout may say",
            id="labels",
        ),
        pytest.param(
            _edit(CPU, '"letterbox"', '"stretch"'),
            "cpu.pbtxt says vaultml_resize stretch and .*config.pbtxt says letterbox",
            id="variant",
        ),
        # Versions
        pytest.param(_remove(f"{YOLO}/1/model.onnx"), "yolo/1 has no model.onnx", id="no model"),
        pytest.param(
            _remove(f"{YOLO}/1/golden.npz"),
            "yolo/1 has no golden.npz, so a rollout cannot test it",
            id="no golden answer",
        ),
        pytest.param(
            _write(f"{YOLO}/1/golden.npz", b"torn"),
            "yolo/1/golden.npz cannot be read",
            id="torn golden answer",
        ),
        pytest.param(
            _remove(f"{SHELF}/provenance.json"), "yolo/2 has no provenance.json", id="no provenance"
        ),
        pytest.param(
            _write(f"{SHELF}/provenance.json", b"torn"),
            "yolo/2/provenance.json cannot be read",
            id="torn provenance",
        ),
        pytest.param(
            _write(f"{YOLO}/1/model.onnx", b"torn"),
            "yolo/1/model.onnx is not the one that its provenance.json speaks of",
            id="other model",
        ),
        pytest.param(
            _write(f"{YOLO}/1/model.onnx", b"torn"), "yolo/1/model.onnx cannot be read", id="torn model"
        ),
        pytest.param(
            _provenance(lambda known: replace(known, classes=2)),
            "has 2 classes and 3 labels",
            id="label count",
        ),
        pytest.param(
            _provenance(lambda known: replace(known, source=File("a", "sha256:0"))),
            "yolo-rollout says sha256:.* of version 1, and its provenance.json sha256:0",
            id="source",
        ),
        pytest.param(
            _edit(CONFIG, "dims: [ 8, 6 ]", "dims: [ 9, 6 ]"),
            r"model.onnx has .*\[N, 8, 6\], and config.pbtxt promises .*\[N, 9, 6\]",
            id="graph",
        ),
        pytest.param(
            _copy(f"{YOLO}/1", f"{YOLO}/3"), "yolo/3 has no labels in yolo-rollout", id="copied version"
        ),
        pytest.param(
            _copy(SHELF, f"{YOLO}/2"),
            "repository.shelf/yolo/2 is not whole, or lies in both places",
            id="in both places",
        ),
        pytest.param(_remove(f"{YOLO}/1"), "'yolo' has no version in service", id="no version"),
        # Plans
        pytest.param(
            _write(f"{YOLO}/1/model_cc89.plan", b"?"),
            "model_cc89.plan is not in its provenance.json: build it",
            id="strange plan",
        ),
        pytest.param(_plan(b""), "model_cc89.plan is missing", id="missing plan"),
        pytest.param(_plan(b"other"), "model_cc89.plan is not the one", id="other plan"),
        pytest.param(
            _plan(b"", max_batch_size=16),
            "takes batches of 16 frames at most, and configs/tensorrt.pbtxt promises 32",
            id="small plan",
        ),
        # Companion and rollout
        pytest.param(
            _remove("repository/yolo-rollout"), "yolo-rollout/config.pbtxt is missing", id="no companion"
        ),
        pytest.param(
            _edit(ROLLOUT, "vaultml_rollout", "rollout"),
            "yolo-rollout/config.pbtxt does not say the rollout",
            id="no rollout",
        ),
        pytest.param(
            _roll_out(Rollout(2, live=2, previous=1)),
            "needs version 2, which is on the shelf: run `vault-ml model load yolo`",
            id="live on the shelf",
        ),
        pytest.param(
            _roll_out(Rollout(2, live=1, previous=7)), "needs version 7, which is nowhere", id="live nowhere"
        ),
        pytest.param(
            _remove(SHELF), "yolo-rollout knows version 2 of 'yolo', which is nowhere", id="gone version"
        ),
        pytest.param(
            _copy("repository/yolo-rollout", "repository/gone-rollout"),
            "gone-rollout has no model beside it",
            id="lone companion",
        ),
        # What dead commands left
        pytest.param(
            _write("repository.shelf/.tmp-1/a", b""),
            r"repository.shelf/.tmp-1 is left of a publisher that died",
            id="leftover",
        ),
        pytest.param(
            _write("repository.shelf/.journal-yolo.json", b"{}"),
            "A change of the rollout of 'yolo' was interrupted",
            id="journal",
        ),
    ],
)
def test_each_damage_is_named(damage: Damage, sentence: str, whole: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole, tmp_path / "damaged"))
    damage(directory)

    problems = verify(Repository.open(directory / "repository"))
    assert [problem for problem in problems if re.search(sentence, problem)], problems
    assert all(problem.endswith(".") and "\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(_edit(CONFIG, "count: 1", "count: 2 gpus: [ 0, 1 ]"), id="instances"),
        pytest.param(_edit(CONFIG, "max_queue_size: 256", "max_queue_size: 16"), id="queue"),
        pytest.param(_edit(CONFIG, "max_batch_size: 32", "max_batch_size: 8"), id="batch"),
        pytest.param(_edit(CONFIG, "# Written once", "# Ours since May; written once"), id="comment"),
        pytest.param(_edit(CONFIG, 'name: "yolo"', ""), id="no name"),
        pytest.param(_remove(f"{YOLO}/configs"), id="no variants"),
    ],
)
def test_what_a_person_may_edit_is_no_problem(edit: Damage, whole: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole, tmp_path / "edited"))
    edit(directory)

    assert verify(Repository.open(directory / "repository")) == []


def test_a_model_that_is_not_there_is_named(whole: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no model 'yolov8' in .*; there are: yolo\."):
        verify(Repository.open(whole / "repository"), ["yolov8"])


def test_the_command_fails_with_problems_and_names_them(whole: Path, tmp_path: Path) -> None:
    fine = CliRunner().invoke(app, ["verify", "--repository", str(whole / "repository")])
    assert (fine.exit_code, fine.output) == (0, f"yolo: nothing is wrong in {whole / 'repository'}\n")

    directory = Path(shutil.copytree(whole, tmp_path / "damaged"))
    _remove(f"{YOLO}/1/golden.npz")(directory)
    _remove(f"{SHELF}/golden.npz")(directory)
    failed = CliRunner().invoke(app, ["verify", "yolo", "--repository", str(directory / "repository")])
    assert failed.exit_code == 1
    assert [line.split(" has no ")[0][-6:] for line in failed.output.splitlines()] == ["yolo/1", "yolo/2"]


def test_nothing_is_changed_by_looking(whole: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole, tmp_path / "looked at"))
    _write("repository.shelf/.tmp-1/a", b"")(directory)
    before = sorted(directory.rglob("*"))

    verify(Repository.open(directory / "repository"))
    assert sorted(directory.rglob("*")) == before
    assert json.loads((directory / "repository.shelf" / ".lock").read_text())["pid"]


def test_a_mistyped_repository_is_not_called_whole(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "--repository", str(tmp_path / "nowhere")])

    assert isinstance(result.exception, SetupError)
    assert "There is no model in" in str(result.exception)
    assert result.stdout == ""
