"""Versions appear in the repository whole or not at all."""

import dataclasses
import signal
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consumer.contract import ModelVersion
from consumer.errors import SetupError
from consumer.rollout import Rollout
from modelops.config_pbtxt import CONFIG_FILE, Served
from modelops.repository import Candidate, Published, Repository
from tests.modelops import little_models
from tests.modelops.conftest import PythonRunner


def _candidate(
    name: str = "yolo", *, width: int = 96, labels: tuple[str, ...] = ("cat", "dog", "cow")
) -> Candidate:
    served = Served(name, height=64, width=width, max_detections=84, max_batch_size=32)
    return Candidate(served, little_models.yolox(64, 64), labels, "sha256:" + "0" * 64)


def _config(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_the_first_version_is_1_and_served_with_all_configurations(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    published = repository.publish(_candidate())

    directory = tmp_path / "repository" / "yolo"
    assert published == Published("yolo", 1, str(directory / "1"), served=True)
    assert repository.files("yolo", 1) == ["golden.npz", "model.onnx", "provenance.json"]
    gpu, cpu, tensorrt = (
        _config(directory / path) for path in (CONFIG_FILE, "configs/cpu.pbtxt", "configs/tensorrt.pbtxt")
    )
    kinds = model_config_pb2.ModelInstanceGroup
    assert [each.instance_group[0].kind for each in (gpu, cpu, tensorrt)] == [
        kinds.KIND_GPU, kinds.KIND_CPU, kinds.KIND_GPU,
    ]  # fmt: skip
    assert gpu.max_batch_size == tensorrt.max_batch_size == 32
    assert gpu.backend == cpu.backend == "onnxruntime"
    assert tensorrt.platform == "tensorrt_plan"
    assert tensorrt.cc_model_filenames["8.9"] == "model_cc89.plan"
    assert list(gpu.input[0].dims) == [96, 96]
    assert gpu.parameters == cpu.parameters == tensorrt.parameters
    assert repository.companion("yolo").rollout == Rollout(generation=1, live=1)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(("person", "traffic light"), id="plain"),
        pytest.param(("chef's hat", 'a "sign"', "back\\slash"), id="quotes"),
        pytest.param(("Fußgänger", "自転車"), id="other alphabets"),
        pytest.param(("two\nlines", "tab\t", "bell\a"), id="control characters"),
    ],
)
def test_labels_and_digest_are_the_companions(tmp_path: Path, labels: tuple[str, ...]) -> None:
    repository = Repository.open(tmp_path)
    repository.publish(_candidate(labels=labels))

    assert repository.companion("yolo").versions == {1: ModelVersion("1", labels, "sha256:" + "0" * 64)}


def test_a_later_version_waits_on_the_shelf_and_changes_nothing_that_triton_sees(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(_candidate())
    before = _everything(tmp_path / "repository" / "yolo")

    published = repository.publish(_candidate(labels=("cat", "dog", "horse")))

    assert published == Published("yolo", 2, str(tmp_path / "repository.shelf" / "yolo" / "2"), served=False)
    assert _everything(tmp_path / "repository" / "yolo") == before
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1], [2])
    companion = repository.companion("yolo")
    assert companion.rollout == Rollout(generation=1, live=1)
    assert [each.labels[2] for each in companion.versions.values()] == ["cow", "horse"]


def test_what_a_person_has_edited_stays(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(_candidate())
    config = tmp_path / "repository" / "yolo" / "config.pbtxt"
    edited = "# four, measured in May\n" + config.read_text().replace("count: 1", "count: 4")
    config.write_text(edited)

    repository.publish(_candidate())
    repository.serve("yolo", 2)
    assert config.read_text() == edited


def test_a_version_goes_into_service_and_back_as_it_is(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    for _ in range(2):
        repository.publish(_candidate())
    model = repository.read("yolo", 2, "model.onnx")

    repository.serve("yolo", 2)
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1, 2], [])
    assert repository.read("yolo", 2, "model.onnx") == model
    repository.shelve("yolo", 2)
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1], [2])
    assert repository.read("yolo", 2, "model.onnx") == model


def test_a_version_that_the_rollout_uses_stays_in_service(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path)
    repository.publish(_candidate())

    with pytest.raises(SetupError, match="in use by the rollout"):
        repository.shelve("yolo", 1)
    assert repository.served("yolo") == [1]


def test_a_version_number_is_never_used_again(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    for _ in range(3):
        repository.publish(_candidate())
    repository.remove("yolo", 3)

    assert list(repository.companion("yolo").versions) == [1, 2]
    assert repository.publish(_candidate()).version == 4
    assert repository.shelved("yolo") == [2, 4]


def test_only_a_version_on_the_shelf_is_removed(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path)
    repository.publish(_candidate())

    with pytest.raises(SetupError, match="not on the shelf; nothing was removed"):
        repository.remove("yolo", 1)
    assert repository.served("yolo") == [1]


def test_a_rollout_that_does_not_grow_is_refused(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path)
    repository.publish(_candidate())
    companion = repository.companion("yolo")

    with pytest.raises(SetupError, match="at generation 1 by now"):
        repository.write_companion("yolo", dataclasses.replace(companion, rollout=Rollout(1, live=2)))
    newer = dataclasses.replace(companion, rollout=Rollout(2, live=1, withdrawn={1: "2026-01-01T00:00:00"}))
    repository.write_companion("yolo", newer)
    assert repository.companion("yolo") == newer


def test_a_file_joins_a_version_wherever_it_lies(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    for _ in range(2):
        repository.publish(_candidate())
    for version in (1, 2):
        repository.add_file("yolo", version, "model_cc89.plan", b"plan")
        assert repository.read("yolo", version, "model_cc89.plan") == b"plan"

    with pytest.raises(SetupError, match=r"no version 3 of 'yolo' in .*; there are \[1, 2\]"):
        repository.add_file("yolo", 3, "model_cc89.plan", b"plan")


def test_a_version_that_promises_something_else_is_refused(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(_candidate(width=96))
    before = _everything(tmp_path / "repository")

    with pytest.raises(
        SetupError, match=r"must keep what the older ones promise \(width 96 there, 64 here\)"
    ):
        repository.publish(_candidate(width=64))
    assert _everything(tmp_path / "repository") == before


def test_a_configuration_of_another_kind_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "config.pbtxt").write_text('name: "yolo" backend: "python"\n')

    with pytest.raises(SetupError, match=r"not the configuration of a model that keeps the contract"):
        Repository.open(tmp_path).publish(_candidate())


@pytest.mark.parametrize("name", ["", "../yolo", "yolo v8", ".hidden", "a/b", "yolo-rollout"])
def test_a_name_that_will_not_do_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="will not do"):
        Repository.open(tmp_path / "repository").publish(_candidate(name))
    assert not (tmp_path / "repository").exists()


def test_a_reader_never_sees_half_a_version_however_the_writer_dies(
    tmp_path: Path, run_python: PythonRunner
) -> None:
    script = (
        "import sys; sys.path[:0] = ['.', 'triton']\n"
        "from modelops.repository import Repository\n"
        "from tests.modelops.test_repository import _candidate\n"
        "print('ready', flush=True)\n"
        "while True: Repository.open(sys.argv[1]).publish(_candidate())"
    )
    expected = _candidate().model.SerializeToString()
    repository = Repository.open(tmp_path / "repository")
    for delay_seconds in (0.0, 0.01, 0.02, 0.05, 0.1):
        writer = run_python(script, repository.location)
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        deadline = time.monotonic() + delay_seconds
        while time.monotonic() < deadline or not repository.models():
            _check_whole(repository, expected)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        _check_whole(repository, expected)

    assert repository.publish(_candidate()).version == max(repository.shelved("yolo"))


def _check_whole(repository: Repository, expected: bytes) -> None:
    for name in repository.models():
        for version in [*repository.served(name), *repository.shelved(name)]:
            assert repository.read(name, version, "model.onnx") == expected
            assert version in repository.companion(name).versions
        assert repository.config(name).name == name


def _everything(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
