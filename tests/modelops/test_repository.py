"""Versions appear in the repository whole or not at all, in a directory and in an object store alike."""

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
from modelops.config_pbtxt import CONFIG_FILE
from modelops.repository import Published, Repository
from tests.modelops.candidates import candidate
from tests.modelops.conftest import PythonRunner


def _config(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_first_version_is_1_and_served_with_all_configurations(repository: Repository) -> None:
    published = repository.publish(candidate())

    assert published == Published("yolo", 1, f"{repository.location}/yolo/1", served=True)
    assert repository.models() == ["yolo"]
    assert repository.files("yolo", 1) == ["golden.npz", "model.onnx", "provenance.json"]
    assert repository.config("yolo") == candidate().served
    configs = {where: _config(text) for where, text in repository.config_texts("yolo").items()}
    model = f"{repository.location}/yolo"
    gpu, cpu, tensorrt = (
        configs[f"{model}/{path}"] for path in (CONFIG_FILE, "configs/cpu.pbtxt", "configs/tensorrt.pbtxt")
    )
    kinds = model_config_pb2.ModelInstanceGroup
    assert [each.instance_group[0].kind for each in (gpu, cpu, tensorrt)] == [
        kinds.KIND_GPU, kinds.KIND_CPU, kinds.KIND_GPU,
    ]  # fmt: skip
    assert gpu.max_batch_size == tensorrt.max_batch_size == 32
    assert gpu.backend == cpu.backend == "onnxruntime"
    assert tensorrt.platform == "tensorrt_plan"
    assert tensorrt.cc_model_filenames["8.9"] == "model_cc89.plan"
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
    repository.publish(candidate(labels=labels))

    digest = candidate(labels=labels).digest
    assert repository.companion("yolo").versions == {1: ModelVersion("1", labels, digest)}


def test_a_later_version_waits_on_the_shelf_and_changes_nothing_that_triton_sees(
    repository: Repository,
) -> None:
    repository.publish(candidate())
    before = _seen_by_triton(repository)

    published = repository.publish(candidate(labels=("cat", "dog", "horse")))

    assert published == Published("yolo", 2, f"{repository.location}.shelf/yolo/2", served=False)
    assert _seen_by_triton(repository) == before
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1], [2])
    companion = repository.companion("yolo")
    assert companion.rollout == Rollout(generation=1, live=1)
    assert [each.labels[2] for each in companion.versions.values()] == ["cow", "horse"]


def test_what_a_person_has_edited_stays(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(candidate())
    config = tmp_path / "repository" / "yolo" / "config.pbtxt"
    edited = "# four, measured in May\n" + config.read_text().replace("count: 1", "count: 4")
    config.write_text(edited)

    repository.publish(candidate())
    repository.serve("yolo", 2)
    assert config.read_text() == edited


def test_a_model_that_a_person_has_configured_gets_its_first_version(tmp_path: Path) -> None:
    Repository.open(tmp_path / "elsewhere").publish(candidate())
    written = (tmp_path / "elsewhere" / "yolo" / "configs" / "cpu.pbtxt").read_text()
    (tmp_path / "repository" / "yolo").mkdir(parents=True)
    (tmp_path / "repository" / "yolo" / "config.pbtxt").write_text(written)

    repository = Repository.open(tmp_path / "repository")
    assert repository.publish(candidate()).served
    assert repository.served("yolo") == [1]
    assert list(repository.config_texts("yolo").values()) == [written]


def test_a_version_goes_into_service_and_back_as_it_is(repository: Repository) -> None:
    for _ in range(2):
        repository.publish(candidate())
    before = _files(repository, 2)

    repository.serve("yolo", 2)
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1, 2], [])
    assert _files(repository, 2) == before
    repository.shelve("yolo", 2)
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1], [2])
    assert _files(repository, 2) == before
    assert repository.leftovers() == []


def test_a_version_that_the_rollout_uses_stays_in_service(repository: Repository) -> None:
    repository.publish(candidate())

    with pytest.raises(SetupError, match="in use by the rollout"):
        repository.shelve("yolo", 1)
    assert repository.served("yolo") == [1]


def test_a_version_number_is_never_used_again(repository: Repository) -> None:
    for _ in range(3):
        repository.publish(candidate())
    repository.remove("yolo", 3)

    assert list(repository.companion("yolo").versions) == [1, 2]
    assert repository.publish(candidate()).version == 4
    assert repository.shelved("yolo") == [2, 4]


def test_a_model_that_was_moved_away_begins_again_above_its_old_numbers(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(candidate())
    (tmp_path / "repository" / "yolo").rename(tmp_path / "yolo")

    published = repository.publish(candidate())
    assert (published.version, published.served) == (2, True)
    assert repository.companion("yolo").rollout == Rollout(generation=2, live=2)


def test_only_a_version_on_the_shelf_is_removed(repository: Repository) -> None:
    repository.publish(candidate())

    with pytest.raises(SetupError, match="not on the shelf; nothing was removed"):
        repository.remove("yolo", 1)
    assert repository.served("yolo") == [1]


def test_a_rollout_that_does_not_grow_is_refused(repository: Repository) -> None:
    repository.publish(candidate())
    companion = repository.companion("yolo")

    with pytest.raises(SetupError, match="at generation 1 by now"):
        repository.write_companion("yolo", dataclasses.replace(companion, rollout=Rollout(1, live=2)))
    newer = dataclasses.replace(companion, rollout=Rollout(2, live=1, withdrawn={1: "2026-01-01T00:00:00"}))
    repository.write_companion("yolo", newer)
    assert repository.companion("yolo") == newer


def test_a_file_joins_a_version_wherever_it_lies(repository: Repository) -> None:
    for _ in range(2):
        repository.publish(candidate())
    for version in (1, 2):
        repository.add_file("yolo", version, "model_cc89.plan", b"plan")
        assert repository.read("yolo", version, "model_cc89.plan") == b"plan"

    with pytest.raises(SetupError, match=r"no version 3 of 'yolo' in .*; there are 1, 2\."):
        repository.add_file("yolo", 3, "model_cc89.plan", b"plan")


def test_a_version_that_promises_something_else_is_refused(repository: Repository) -> None:
    repository.publish(candidate())
    before = _seen_by_triton(repository)

    with pytest.raises(
        SetupError, match=r"must keep what the older ones promise \(width 96 there, 64 here\)"
    ):
        repository.publish(candidate(width=64))
    assert _seen_by_triton(repository) == before
    assert repository.shelved("yolo") == []


def test_a_model_without_its_companion_is_not_published_over(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(candidate())
    (tmp_path / "repository" / "yolo-rollout").rename(tmp_path / "yolo-rollout")

    with pytest.raises(SetupError, match=r"yolo-rollout/config\.pbtxt is missing"):
        repository.publish(candidate())
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1], [])


def test_a_configuration_of_another_kind_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "config.pbtxt").write_text('name: "yolo" backend: "python"\n')

    with pytest.raises(SetupError, match=r"not the configuration of a model that keeps the contract"):
        Repository.open(tmp_path).publish(candidate())


@pytest.mark.parametrize("name", ["", "../yolo", "yolo v8", ".hidden", "a/b", "yolo-rollout"])
def test_a_name_that_will_not_do_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="will not do"):
        Repository.open(tmp_path / "repository").publish(candidate(name))
    assert not (tmp_path / "repository").exists()


def test_a_reader_never_sees_half_a_version_however_the_writer_dies(
    tmp_path: Path, run_python: PythonRunner
) -> None:
    script = (
        "import sys; sys.path[:0] = ['.', 'triton']\n"
        "from modelops.repository import Repository\n"
        "from tests.modelops.candidates import candidate\n"
        "print('ready', flush=True)\n"
        "while True: Repository.open(sys.argv[1]).publish(candidate())"
    )
    expected = candidate().model.SerializeToString()
    repository = Repository.open(tmp_path / "repository")
    for delay_seconds in (0.0, 0.02, 0.1):
        writer = run_python(script, repository.location)
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        deadline = time.monotonic() + delay_seconds
        while time.monotonic() < deadline or not repository.models():
            _check_whole(repository, expected)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        _check_whole(repository, expected)

    assert repository.publish(candidate()).version == max(repository.shelved("yolo"))


def _check_whole(repository: Repository, expected: bytes) -> None:
    for name in repository.models():
        for version in [*repository.served(name), *repository.shelved(name)]:
            assert repository.read(name, version, "model.onnx") == expected
            assert version in repository.companion(name).versions
        assert repository.config(name).name == name


def _files(repository: Repository, version: int) -> dict[str, bytes]:
    return {file: repository.read("yolo", version, file) for file in repository.files("yolo", version)}


def _seen_by_triton(repository: Repository) -> dict[str, object]:
    versions = {str(version): _files(repository, version) for version in repository.served("yolo")}
    return {**versions, **repository.config_texts("yolo")}


@pytest.mark.parametrize(
    "location",
    [
        "",
        "ftp://host/models",
        "https://account.blob.core.windows.net/models",
        "S3://bucket/models",
        "s3:/bucket/m",
    ],
)
def test_what_is_neither_a_path_nor_a_url_of_triton_makes_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SetupError, match=r"give a directory, or a URL .* s3://, gs:// or as://"):
        Repository.open(location)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(SetupError, match=r"notes\.txt is a file: give a directory"):
        Repository.open(file).publish(candidate())


def test_a_name_that_no_file_system_takes_is_refused_with_what_to_do(repository: Repository) -> None:
    with pytest.raises(SetupError, match="use at most 100 letters"):
        repository.publish(candidate("a" * 300))


def test_a_model_whose_labels_are_lost_is_not_published_over(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path / "repository")
    repository.publish(candidate())
    (tmp_path / "repository" / "yolo-rollout").rename(tmp_path / "away")

    with pytest.raises(SetupError, match=r"yolo-rollout/config\.pbtxt is missing.*bring it back, or move"):
        repository.publish(candidate())
    (tmp_path / "away").rename(tmp_path / "repository" / "yolo-rollout")
    assert repository.publish(candidate()).version == 2
