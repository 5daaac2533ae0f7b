"""Versions appear in the repository whole or not at all."""

import json
import signal
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consumer.contract import Parameter
from consumer.errors import SetupError
from modelops.config_pbtxt import Served, read
from modelops.repository import Candidate, Published, publish, versions
from tests.modelops import little_models
from tests.modelops.conftest import PythonRunner


def _candidate(
    name: str = "yolo", *, width: int = 96, labels: tuple[str, ...] = ("cat", "dog", "cow")
) -> Candidate:
    served = Served(name, height=64, width=width, max_detections=84, max_batch_size=32)
    return Candidate(served, little_models.yolox(64, 64), labels, "sha256:" + "0" * 64)


def _config(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_the_first_version_is_1_with_both_configurations(tmp_path: Path) -> None:
    published = publish(tmp_path / "repository", _candidate())

    assert published == Published("yolo", 1, tmp_path / "repository" / "yolo" / "1")
    assert (published.directory / "model.onnx").is_file()
    gpu = _config(tmp_path / "repository" / "yolo" / "config.pbtxt")
    cpu = _config(tmp_path / "repository" / "yolo" / "configs" / "cpu.pbtxt")
    assert [group.kind for group in gpu.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_GPU]
    assert [group.kind for group in cpu.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_CPU]
    assert gpu.max_batch_size == 32
    assert gpu.backend == cpu.backend == "onnxruntime"
    assert list(gpu.input[0].dims) == [96, 96]
    assert gpu.parameters == cpu.parameters


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(("person", "traffic light"), id="plain"),
        pytest.param(("chef's hat", 'a "sign"', "back\\slash"), id="quotes"),
        pytest.param(("Fußgänger", "自転車"), id="other alphabets"),
    ],
)
def test_labels_reach_the_configuration_as_they_are(tmp_path: Path, labels: tuple[str, ...]) -> None:
    publish(tmp_path, _candidate(labels=labels))
    parameters = _config(tmp_path / "yolo" / "config.pbtxt").parameters

    assert tuple(json.loads(parameters[Parameter.labels("1")].string_value)) == labels
    assert parameters[Parameter.digest("1")].string_value == "sha256:" + "0" * 64


def test_the_next_version_keeps_what_a_person_has_edited(tmp_path: Path) -> None:
    publish(tmp_path, _candidate())
    config = tmp_path / "yolo" / "config.pbtxt"
    config.write_text("# four, measured in May\n" + config.read_text().replace("count: 1", "count: 4"))

    published = publish(tmp_path, _candidate(labels=("cat", "dog", "horse")))

    assert published.version == 2
    assert config.read_text().startswith("# four, measured in May\n")
    assert _config(config).instance_group[0].count == 4
    parameters = _config(config).parameters
    assert json.loads(parameters[Parameter.labels("1")].string_value)[2] == "cow"
    assert json.loads(parameters[Parameter.labels("2")].string_value)[2] == "horse"


def test_a_version_number_is_never_used_again(tmp_path: Path) -> None:
    for _ in range(3):
        publish(tmp_path, _candidate())
    (tmp_path / "yolo" / "2" / "model.onnx").unlink()
    (tmp_path / "yolo" / "2").rmdir()

    assert publish(tmp_path, _candidate()).version == 4
    assert versions(tmp_path / "yolo") == [1, 3, 4]


def test_a_version_that_promises_something_else_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, _candidate(width=96))
    before = (tmp_path / "yolo" / "config.pbtxt").read_text()

    with pytest.raises(
        SetupError, match=r"must keep what the older ones promise \(width 96 there, 64 here\)"
    ):
        publish(tmp_path, _candidate(width=64))
    assert versions(tmp_path / "yolo") == [1]
    assert (tmp_path / "yolo" / "config.pbtxt").read_text() == before


def test_a_configuration_of_another_kind_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "config.pbtxt").write_text('name: "yolo" backend: "python"\n')

    with pytest.raises(SetupError, match=r"not the configuration of a model that keeps the contract"):
        publish(tmp_path, _candidate())


@pytest.mark.parametrize("name", ["", "../yolo", "yolo v8", ".hidden", "a/b"])
def test_a_name_that_would_leave_the_repository_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="will not do"):
        publish(tmp_path / "repository", _candidate(name))
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("published_before", [0, 1], ids=["first version", "second version"])
def test_a_failed_publish_leaves_the_repository_as_it_was(tmp_path: Path, published_before: int) -> None:
    for _ in range(published_before):
        publish(tmp_path, _candidate())
    before = _everything(tmp_path)
    candidate = _candidate()
    broken = Candidate(candidate.served, _FullDisk(), candidate.labels, candidate.digest)  # type: ignore[arg-type]  # a model that cannot be written

    with pytest.raises(SetupError, match=r"yolo could not be published: .*No space left"):
        publish(tmp_path, broken)
    assert _everything(tmp_path) == before


def test_a_reader_never_sees_half_a_version_however_the_writer_dies(
    tmp_path: Path, run_python: PythonRunner
) -> None:
    script = (
        "import sys; sys.path[:0] = ['.', 'triton']\n"
        "from pathlib import Path; from modelops.repository import publish\n"
        "from tests.modelops.test_repository import _candidate\n"
        "print('ready', flush=True)\n"
        "while True: publish(Path(sys.argv[1]), _candidate())"
    )
    expected_bytes = len(_candidate().model.SerializeToString())
    for delay_seconds in (0.0, 0.01, 0.02, 0.05, 0.1):
        writer = run_python(script, str(tmp_path))
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        deadline = time.monotonic() + delay_seconds
        while time.monotonic() < deadline or not (tmp_path / "yolo").is_dir():
            _check_whole(tmp_path / "yolo", expected_bytes)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        _check_whole(tmp_path / "yolo", expected_bytes)

    assert publish(tmp_path, _candidate()).version == max(versions(tmp_path / "yolo"))


def _check_whole(model: Path, expected_bytes: int) -> None:
    if not model.is_dir():
        return
    there = versions(model)
    parameters = _config(model / "config.pbtxt").parameters
    read((model / "config.pbtxt").read_text(), "config.pbtxt")
    for version in there:
        assert (model / str(version) / "model.onnx").stat().st_size == expected_bytes
        assert Parameter.labels(str(version)) in parameters


def _everything(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


class _FullDisk:
    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        raise OSError(28, "No space left on device")
