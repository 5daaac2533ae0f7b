"""A version is tried by a real Triton, with the configuration that it will be served with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError
from modelops import runtime
from modelops.config_pbtxt import TENSORRT_CONFIG_FILE, Served, config_files
from modelops.graph import PixelFacts, build
from modelops.plan_trial import Trial, running
from tests.modelops import little_models

HEIGHT, WIDTH = 64, 96
FRAMES = np.random.default_rng(0).integers(0, 256, (8, HEIGHT * 3 // 2, WIDTH), np.uint8)

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def model() -> bytes:
    source = little_models.ultralytics(HEIGHT, WIDTH)
    graph = build(source, PixelFacts("rgb", "1"), height=HEIGHT, width=WIDTH, max_detections=20)
    return graph.model.SerializeToString()


@pytest.fixture(scope="module")
def trial(model: bytes) -> Trial:
    config = config_files(Served("yolo", HEIGHT, WIDTH, 20, max_batch_size=4))[TENSORRT_CONFIG_FILE]
    return Trial("yolo", 3, config, {"model.onnx": model, "model_cc89.plan": b"for a GPU"})


def expected(model: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = session.run(None, {INPUT_NAME: FRAMES})[0]
    return rows


def test_the_configuration_for_tensorrt_answers_what_the_model_answers(trial: Trial, model: bytes) -> None:
    with running(trial, runtime=None, on_gpu=False) as ask:
        rows = np.concatenate([ask(FRAMES[:1]), ask(FRAMES[1:5]), ask(FRAMES[5:])])
    np.testing.assert_allclose(rows, expected(model), rtol=1e-3, atol=1e-3)


def test_the_triton_of_the_container_is_the_one_on_the_path(
    trial: Trial, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = runtime.prepare()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tritonserver").symlink_to(embedded.server)
    (tmp_path / "backends").symlink_to(embedded.backends)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{embedded.environment['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", embedded.environment["LD_LIBRARY_PATH"])
    installed = runtime.installed()
    assert installed is not None
    assert installed.server == tmp_path / "bin" / "tritonserver"

    with running(trial, runtime=installed, on_gpu=False) as ask:
        rows = ask(FRAMES[:3])

    np.testing.assert_allclose(rows, expected(model)[:3], rtol=1e-3, atol=1e-3)


def test_without_tritonserver_on_the_path_none_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.installed() is None


def test_a_version_that_does_not_load_is_said_so(trial: Trial) -> None:
    broken = replace(trial, files={"model.onnx": b"not a model", "model_cc89.plan": b"for a GPU"})
    with (
        pytest.raises(SetupError, match="ONNX Runtime cannot load"),
        running(broken, runtime=None, on_gpu=False),
    ):
        pytest.fail("it must not run")
