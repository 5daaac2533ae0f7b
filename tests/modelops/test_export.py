"""`vault-ml model` and `vault-ml serve`, as a user types them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import ModelProto
from typer.testing import CliRunner, Result

from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.errors import SetupError
from modelops import batches, cli, export, graph, source
from modelops.graph import PixelFacts
from modelops.repository import Repository
from tests.modelops import little_models
from tests.modelops.conftest import PythonRunner
from tests.modelops.test_darknet import LITTLE_CFG
from tests.modelops.test_darknet import _weights as darknet_weights

Export = Callable[..., Result]
YOLOX_OPTIONS = ("--colour", "bgr", "--scale", "255", "--resize", "letterbox")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("cat\ndog\n\ncow\n")
    return file


@pytest.fixture
def little(tmp_path: Path) -> Path:
    return _saved(little_models.yolox(64, 64), tmp_path / "little.onnx")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """One picture of noise: weights that were never trained find nothing in any."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    (tmp_path / "golden").mkdir()
    assert cv2.imwrite(str(tmp_path / "golden" / "noise.png"), noise)
    return tmp_path / "golden"


@pytest.fixture
def export_little(tmp_path: Path, golden: Path) -> Export:
    def run(*arguments: object, force: bool = True) -> Result:
        where = ("--repository", tmp_path / "repository", "--size", "64x96", "--golden", golden)
        forced = ("--force",) if force else ()
        return CliRunner().invoke(cli.app, ["export", *map(str, (*arguments, *where, *forced))])

    return run


def test_export_publishes_version_after_version(
    tmp_path: Path, little: Path, labels: Path, export_little: Export
) -> None:
    for number in (1, 2):
        result = export_little(little, "--labels", labels, *YOLOX_OPTIONS)
        assert result.exception is None
        assert result.stdout.startswith(f"yolo version {number}: ")

    repository = Repository.open(tmp_path / "repository")
    assert (repository.served("yolo"), repository.shelved("yolo")) == ([1], [2])
    session = onnxruntime.InferenceSession(repository.read("yolo", 2, "model.onnx"))
    assert session.get_inputs()[0].name == INPUT_NAME
    assert session.get_inputs()[0].shape == ["N", 96, 96]
    assert session.get_outputs()[0].name == OUTPUT_NAME
    assert session.get_outputs()[0].shape == ["N", 126, 6]


def test_pixels_that_nobody_knows_are_asked_for(little: Path, labels: Path, export_little: Export) -> None:
    for given in ((), ("--colour", "bgr"), ("--scale", "255")):
        error = export_little(little, "--labels", labels, *given).exception
        assert isinstance(error, SetupError)
        assert "--colour bgr --scale 255 --resize letterbox (YOLOX since 0.1.1)" in str(error)


def test_labels_that_nobody_knows_are_asked_for(little: Path, export_little: Export) -> None:
    error = export_little(little, *YOLOX_OPTIONS).exception

    assert isinstance(error, SetupError)
    assert str(error) == (
        "little.onnx carries no class names: give --labels FILE with one name a line, in class order."
    )


def test_labels_of_another_model_are_refused(little: Path, labels: Path, export_little: Export) -> None:
    labels.write_text("cat\ndog\n")
    error = export_little(little, "--labels", labels, *YOLOX_OPTIONS).exception

    assert isinstance(error, SetupError)
    assert "knows 3 classes, but there are 2 labels" in str(error)


def test_an_ultralytics_file_says_everything_itself(tmp_path: Path) -> None:
    file = _saved(little_models.ultralytics(64, 64), tmp_path / "best.onnx")
    read = source.read_source(file, source.Options())

    assert read.pixels == PixelFacts(colour="rgb", scale="1")
    assert read.labels == ("cat", "dog", "cow")
    assert read.digest.startswith("sha256:")


@pytest.mark.parametrize(
    "names",
    [
        "__import__('pathlib').Path('owned').touch()",
        "{0: 'cat', 2: 'dog'}",
        "{'a': 'cat'}",
        "'" * 3,
        "(" * 10_000,
    ],
    ids=["code", "gap", "no number", "torn", "deep"],
)
def test_class_names_are_parsed_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = little_models.ultralytics(64, 64)
    onnx.helper.set_model_props(model, {"author": "Ultralytics", "names": names})
    file = _saved(model, tmp_path / "best.onnx")

    with pytest.raises(SetupError, match=r"class names in the metadata of best\.onnx cannot be read"):
        source.read_source(file, source.Options())
    assert not (tmp_path / "owned").exists()


def test_a_network_that_mixes_up_the_frames_of_a_batch_is_not_published(
    tmp_path: Path, labels: Path, export_little: Export
) -> None:
    file = _saved(little_models.yolox(64, 64, baked_batch=True), tmp_path / "baked.onnx")
    error = export_little(file, "--labels", labels, *YOLOX_OPTIONS).exception

    assert isinstance(error, SetupError)
    assert "does not keep the frames of a batch apart" in str(error)
    assert not (tmp_path / "repository" / "yolo").exists()


def test_darknet_weights_are_converted_on_the_way(tmp_path: Path, export_little: Export) -> None:
    (tmp_path / "little.cfg").write_text(LITTLE_CFG)
    (tmp_path / "little.weights").write_bytes(darknet_weights())
    (tmp_path / "names").write_text("cat\ndog\n")
    result = export_little(tmp_path / "little.weights", "--labels", tmp_path / "names")

    assert result.exception is None
    assert Repository.open(tmp_path / "repository").served("yolo") == [1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(
            ("nothing.onnx",), "neither a file nor in the catalogue, which has yolox_nano", id="file"
        ),
        pytest.param(
            ("yolox_nano", "--size", "big"), "--size big will not do: write HEIGHTxWIDTH", id="size"
        ),
        pytest.param(("yolox_nano", "--size", "\u00b2x32"), "write HEIGHTxWIDTH", id="digits"),
        pytest.param(("yolox_nano", "--size", "32x4128"), "at most 4096 pixels a side", id="large"),
        pytest.param(("yolox_nano", "--size", "100x100"), "must be multiples of 32", id="multiple"),
        pytest.param(
            ("yolox_nano", "--labels", "/nowhere"), "The labels in /nowhere cannot be read", id="labels"
        ),
    ],
)
def test_a_wrong_option_is_answered_in_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    error = CliRunner().invoke(cli.app, ["export", *arguments, "--repository", str(tmp_path)]).exception

    assert isinstance(error, SetupError)
    assert sentence in str(error)


def test_fetch_prints_licence_and_place(yolox_nano: Path) -> None:
    result = CliRunner().invoke(cli.app, ["fetch", "yolox_nano"])

    assert "licence: Apache-2.0" in result.stdout
    assert result.stdout.splitlines()[-1] == str(yolox_nano)


def test_without_the_models_extra_one_sentence_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        "import importlib.util; found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'onnx' else found(name)\n"
        "from modelops.cli import app\n"
        "try: app(['export', 'yolox_nano'], standalone_mode=False)\n"
        "except Exception as error: print(error)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert finished.stdout == "This needs onnx: install vault-ml with its extra, `pip install '.[models]'`.\n"


def test_the_default_repository_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yolox_nano: Path
) -> None:
    repository = export.ready_repository(tmp_path)
    config = (repository / "yolo" / "config.pbtxt").stat()

    def not_again(*_: object, **__: object) -> None:
        pytest.fail("the second call must find the work done")

    monkeypatch.setattr(export, "export", not_again)
    assert export.ready_repository(tmp_path) == repository
    assert (repository / "yolo" / "config.pbtxt").stat() == config


def test_two_that_begin_together_both_find_the_repository(tmp_path: Path, run_python: PythonRunner) -> None:
    script = (
        "import sys; from pathlib import Path; from modelops.export import ready_repository\n"
        "ready_repository(Path(sys.argv[1]))"
    )
    both = [run_python(script, str(tmp_path)) for _ in range(2)]

    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert Repository.open(tmp_path).served("yolo") == [1]


def test_serve_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="publish one with `vault-ml model export`"):
        cli.serve(tmp_path)


def test_ports_of_serve_must_differ(model_repository: Path) -> None:
    with pytest.raises(SetupError, match="give three different ones"):
        cli.serve(model_repository, grpc_port=9000, http_port=0, metrics_port=9000)


@pytest.mark.triton
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_that_still_starts_ends_when_it_is_told_to(
    model_repository: Path, run_python: PythonRunner, stop: signal.Signals
) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from modelops import embedded; from modelops.cli import serve\n"
        "def never(url): print('starting', flush=True); return False\n"
        "embedded.is_ready = never\n"
        "sys.exit(serve(Path(sys.argv[1]), grpc_port=0, http_port=0, metrics_port=0))"
    )
    process = run_python(script, str(model_repository))
    assert process.stdout is not None
    assert process.stdout.readline() == "starting\n"
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, stop)

    assert process.wait(30) == 0
    assert not [child for child in family if child.is_running()]


@pytest.mark.triton
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_it_is_told_to_stop(
    model_repository: Path, run_python: PythonRunner, stop: signal.Signals
) -> None:
    script = (
        "import sys; from pathlib import Path; from modelops.cli import serve\n"
        "sys.exit(serve(Path(sys.argv[1]), grpc_port=0, http_port=0, metrics_port=0))"
    )
    process = run_python(script, str(model_repository))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Triton serves yolo: gRPC at 127.0.0.1:")
    os.kill(process.pid, stop)

    assert process.wait(30) == 0


def test_a_batch_that_is_kept_apart_passes_the_proof() -> None:
    pixels = PixelFacts(colour="bgr", scale="255")

    batches.check_batches(graph.build(little_models.yolox(64, 64), pixels, height=64, width=96))


def _saved(model: ModelProto, file: Path) -> Path:
    onnx.save(model, file)
    return file
