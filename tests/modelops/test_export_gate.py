"""What an export publishes and what it does not; and what it writes down and shows."""

import io
import signal
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError
from modelops import cli
from modelops.coco import COCO_LABELS
from modelops.export import export, export_unproven
from modelops.provenance import Provenance
from modelops.repository import GOLDEN_FILE, MODEL_FILE, PROVENANCE_FILE, Repository
from modelops.request import Request
from modelops.source import Options
from tests.modelops.conftest import PHOTO, PythonRunner


@pytest.fixture(scope="module")
def one_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden set that is looked at in a moment: three objects, far from enough to prove anything."""
    directory = tmp_path_factory.mktemp("one photo")
    (directory / "dog.jpg").write_bytes(PHOTO.read_bytes())
    return directory


@pytest.fixture(scope="module")
def anonymous(tmp_path_factory: pytest.TempPathFactory, yolox_nano: Path) -> tuple[Path, Path]:
    """YOLOX-nano as a file that no catalogue knows, and its labels."""
    directory = tmp_path_factory.mktemp("anonymous")
    model = onnx.load(yolox_nano)
    model.doc_string = "another digest"
    onnx.save(model, directory / "mine.onnx")
    (directory / "labels.txt").write_text("\n".join(COCO_LABELS))
    return directory / "mine.onnx", directory / "labels.txt"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


def test_a_model_that_is_as_good_as_its_source_is_published_with_its_figures(
    tmp_path: Path, yolox_nano: Path, crowds: Path
) -> None:
    seen = tmp_path / "seen.jpg"
    result = run("yolox_nano", "--golden", crowds, "--repository", tmp_path, "--picture", seen)
    assert result.exception is None, result.exception

    first, figures, sees, drawn = result.stdout.splitlines()
    assert first == f"yolo version 1: {tmp_path / 'yolo' / '1'} (served)"
    assert figures.startswith("accuracy gate passed: recall ")
    assert sees.startswith("it sees in dog.jpg: bicycle 0.7")
    assert drawn == f"drawn in {seen}"
    picture = cv2.imread(str(seen))
    original = cv2.imread(str(PHOTO))
    assert picture is not None
    assert original is not None
    assert picture.shape == original.shape

    repository = Repository.open(tmp_path)
    provenance = Provenance.from_json(repository.read("yolo", 1, PROVENANCE_FILE))
    model = repository.read("yolo", 1, MODEL_FILE)
    assert (provenance.precision, provenance.layout, provenance.forced) == ("fp32", "yolox", False)
    assert provenance.gate is not None
    assert provenance.gate.passed
    assert provenance.gate.boxes >= 300
    assert (provenance.source.name, provenance.graph.size_bytes) == (yolox_nano.name, len(model))
    assert "dog.jpg" in {file.name for file in provenance.golden}
    assert set(provenance.tools) == {"vault-ml", "onnx", "onnxruntime", "onnxslim", "numpy"}

    with np.load(io.BytesIO(repository.read("yolo", 1, GOLDEN_FILE)), allow_pickle=False) as golden:
        frames, rows = golden["frames"], golden["rows"]
    assert (frames.shape, frames.dtype) == ((1, 576, 640), np.uint8)
    assert (rows.shape, rows.dtype) == ((1, 1000, 6), np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {INPUT_NAME: frames})[0], rows, rtol=1e-3, atol=1e-2)


def test_below_the_gate_nothing_appears_and_force_is_written_down(tmp_path: Path, one_photo: Path) -> None:
    arguments = ("yolox_nano", "--golden", one_photo, "--repository", tmp_path / "repository")
    error = run(*arguments).exception

    assert isinstance(error, SetupError)
    assert (
        "300 boxes are needed, and what the source model finds in the golden set is 5 (pictures: 1)"
        in str(error)
    )
    assert not (tmp_path / "repository").exists()
    assert not (tmp_path / "repository.shelf").exists()

    result = run(*arguments, "--force")
    assert "accuracy gate NOT passed, published all the same because of --force: recall" in result.stdout
    written = Repository.open(tmp_path / "repository").read("yolo", 1, PROVENANCE_FILE)
    provenance = Provenance.from_json(written)
    assert provenance.forced
    assert provenance.gate is not None
    assert provenance.gate.boxes == 5


def test_a_wrong_scale_shows_at_once(tmp_path: Path, anonymous: tuple[Path, Path], one_photo: Path) -> None:
    model, labels = anonymous
    common = (model, "--labels", labels, "--golden", one_photo, "--repository", tmp_path, "--force")
    right = run(*common, "--colour", "bgr", "--scale", "255", "--resize", "letterbox")
    wrong = run(*common, "--colour", "bgr", "--scale", "1", "--resize", "letterbox")

    assert right.stdout.splitlines()[-1].startswith("it sees in dog.jpg: bicycle")
    assert wrong.stdout.splitlines()[-1] == "it sees in dog.jpg: nothing"


def test_what_is_not_known_is_asked_for_with_what_each_choice_would_find(
    tmp_path: Path, anonymous: tuple[Path, Path], one_photo: Path
) -> None:
    model, labels = anonymous
    error = run(model, "--labels", labels, "--golden", one_photo, "--repository", tmp_path / "none").exception

    assert isinstance(error, SetupError)
    _, _, found = str(error).partition("On dog.jpg it finds: ")
    first = found.partition(";")[0]
    assert "--scale 255" in first
    assert "boxes, mean score 0." in first
    assert not (tmp_path / "none").exists()


def test_another_precision_is_the_next_version_on_the_shelf(
    tmp_path: Path, yolox_nano: Path, one_photo: Path
) -> None:
    export_unproven(yolox_nano, tmp_path / "repository")
    result = run(
        "yolox_nano", "--precision", "fp16", "--check", "--golden", one_photo, "--force",
        "--repository", tmp_path / "repository",
    )  # fmt: skip

    assert result.exception is None, result.exception
    assert result.stdout.startswith(
        f"yolo version 2: {tmp_path / 'repository.shelf' / 'yolo' / '2'} (on the "
    )
    assert "\naccepted by TensorRT-RTX " in result.stdout
    repository = Repository.open(tmp_path / "repository")
    provenance = Provenance.from_json(repository.read("yolo", 2, PROVENANCE_FILE))
    assert provenance.precision == "fp16"
    assert provenance.checked_by is not None
    sizes = [len(repository.read("yolo", version, MODEL_FILE)) for version in (1, 2)]
    assert sizes[1] < 0.6 * sizes[0]


def test_the_version_of_the_demonstration_says_that_it_was_not_replayed(
    tmp_path: Path, yolox_nano: Path
) -> None:
    exported = export_unproven(yolox_nano, tmp_path)
    provenance = Provenance.from_json(Repository.open(tmp_path).read("yolo", 1, PROVENANCE_FILE))

    assert provenance == exported.provenance
    assert provenance.gate is None
    assert provenance.gate_skipped == "a model of the catalogue in FP32: proven by the tests of vault-ml"
    assert exported.sighting.found


def test_a_kill_during_the_replay_leaves_nothing(
    tmp_path: Path, yolox_nano: Path, one_photo: Path, run_python: PythonRunner
) -> None:
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from modelops.export import export; from modelops.request import Request\n"
        "def say(line):\n"
        "    print(line, flush=True)\n"
        "    if line.startswith('Replaying'): signal.pause()\n"
        "source, repository, golden = sys.argv[1:]\n"
        "export(Path(source), repository, request=Request(golden=Path(golden)), force=True, say=say)"
    )
    process = run_python(script, str(yolox_nano), str(tmp_path / "repository"), str(one_photo))
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("Replaying"):
        assert line, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.wait(30)

    assert list(tmp_path.iterdir()) == []
    exported = export(yolox_nano, tmp_path / "repository", request=Request(golden=one_photo), force=True)
    assert exported.published.version == 1


def test_what_cannot_be_published_is_refused_before_the_replay(
    tmp_path: Path, yolox_nano: Path, one_photo: Path
) -> None:
    export_unproven(yolox_nano, tmp_path)
    said: list[str] = []
    with pytest.raises(SetupError, match="The model name 'yo/lo' will not do"):
        export(yolox_nano, tmp_path, name="yo/lo", request=Request(golden=one_photo), say=said.append)
    with pytest.raises(SetupError, match="must keep what the older ones promise"):
        export(yolox_nano, tmp_path, request=Request(size=(320, 320), golden=one_photo), say=said.append)
    assert not [line for line in said if line.startswith("Replaying")]


@pytest.mark.parametrize("picture", ["seen.gif", "nowhere/seen.jpg"])
def test_a_picture_that_cannot_be_written_is_refused_before_all_work(tmp_path: Path, picture: str) -> None:
    error = run("yolox_nano", "--picture", tmp_path / picture, "--repository", tmp_path / "models").exception

    assert isinstance(error, SetupError)
    assert "give a file ending in .jpg in a directory that exists" in str(error)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        pytest.param({"max_batch_size": 0}, "--max-batch 0 will not do: give 1 to 1024", id="no batch"),
        pytest.param({"max_batch_size": 1025}, "--max-batch 1025 will not do", id="large batch"),
        pytest.param({"max_detections": 100_001}, "--max-detections 100001 will not do", id="rows"),
        pytest.param({"size": (64, 4128)}, "The size 64x4128 will not do: at most 4096 pixels", id="size"),
        pytest.param({"calibration": Path()}, "--calibration is for --precision int8", id="calibration"),
    ],
)
def test_the_functions_have_the_bounds_of_the_command(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(SetupError) as raised:
        Request(**wrong)  # type: ignore[arg-type]  # values of any type, by name

    assert sentence in str(raised.value)


def test_what_was_said_is_written_down() -> None:
    request = Request(size=(64, 96), options=Options(colour="bgr", labels=Path("somewhere/names.txt")))

    assert request.said() == {
        "size": "64x96", "precision": "fp32", "colour": "bgr", "labels": "names.txt",
        "max-batch": "32", "max-detections": "1000",
    }  # fmt: skip
