"""The embedded Triton: real answers, clear failures, nothing left behind."""

import dataclasses
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import psutil
import pytest
import tritonclient.grpc
from onnx import TensorProto, helper

from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.errors import SetupError
from modelops import embedded, runtime
from modelops.embedded import EmbeddedTriton
from tests.modelops.conftest import PythonRunner

pytestmark = pytest.mark.triton

Frames = npt.NDArray[np.uint8]


def _ask(url: str, frames: Frames, model: str = "yolo") -> npt.NDArray[np.float32]:
    with tritonclient.grpc.InferenceServerClient(url) as client:
        tensor = tritonclient.grpc.InferInput(INPUT_NAME, list(frames.shape), "UINT8")
        tensor.set_data_from_numpy(frames)
        return np.asarray(client.infer(model, [tensor]).as_numpy(OUTPUT_NAME))


def _frames(count: int, seed: int = 0) -> Frames:
    """Smooth random pictures: each answers differently, none alike."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 24, 40), np.uint8).repeat(24, 1).repeat(16, 2)


@pytest.fixture(scope="module")
def plainly(model_repository: Path) -> Callable[[Frames], npt.NDArray[np.float32]]:
    """The same ONNX file in ONNX Runtime, without Triton."""
    session = onnxruntime.InferenceSession(
        model_repository / "yolo" / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return lambda frames: np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: frames})[0])


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A repository with one very small model: FRAMES doubled; config.pbtxt is for the test to write."""
    shape: list[str | int | None] = ["N", 4]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [INPUT_NAME], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["f", "f"], [OUTPUT_NAME]),
        ],
        "doubling",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, shape)],
    )
    version = tmp_path / "repository" / "doubling" / "1"
    version.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, version / "model.onnx")
    return tmp_path / "repository"


def test_the_server_answers_what_onnx_runtime_answers(
    triton: EmbeddedTriton, plainly: Callable[[Frames], npt.NDArray[np.float32]]
) -> None:
    frames = _frames(3)

    assert np.abs(_ask(triton.grpc_url, frames) - plainly(frames)).max() < 1e-3


def test_requests_that_share_a_batch_keep_their_own_answers(
    triton: EmbeddedTriton, plainly: Callable[[Frames], npt.NDArray[np.float32]]
) -> None:
    batches = [_frames(count, seed=count) for count in (1, 2, 3, 1, 2, 3, 1, 2)]
    with ThreadPoolExecutor(len(batches)) as threads:
        answers = list(threads.map(lambda frames: _ask(triton.grpc_url, frames), batches))

    for frames, answer in zip(batches, answers, strict=True):
        assert np.abs(answer - plainly(frames)).max() < 1e-2
    with tritonclient.grpc.InferenceServerClient(triton.grpc_url) as client:
        statistics = client.get_inference_statistics("yolo", as_json=True)["model_stats"][0]
    assert int(statistics["execution_count"]) < int(statistics["inference_count"])


@pytest.mark.parametrize(
    ("backend", "kept"),
    [
        pytest.param('platform: "tensorrt_plan"', "model.onnx", id="tensorrt without its plan"),
        pytest.param('platform: "onnxruntime_onnx"', "model.onnx", id="onnxruntime by platform"),
        pytest.param(
            'backend: "onnxruntime" default_model_filename: "net.onnx"', "net.onnx", id="other file"
        ),
    ],
)
def test_configurations_of_the_gpu_server_load_unchanged(doubling: Path, backend: str, kept: str) -> None:
    model = doubling / "doubling"
    (model / "1" / "model.onnx").rename(model / "1" / kept)
    # Inputs and outputs are left out, as the native backends allow.
    (model / "config.pbtxt").write_text(
        f"{backend} max_batch_size: 4 instance_group [ {{ kind: KIND_CPU }} ] dynamic_batching {{ }}\n"
    )
    with EmbeddedTriton.start(doubling, model_config_name="") as server:
        frames = np.arange(12, dtype=np.uint8).reshape(3, 4)
        assert (_ask(server.grpc_url, frames, "doubling") == frames * 2.0).all()


def test_a_broken_model_is_named_in_one_sentence(doubling: Path) -> None:
    (doubling / "doubling" / "config.pbtxt").write_text('backend: "onnxruntime" max_batch_size: 4\n')
    (doubling / "doubling" / "1" / "model.onnx").write_bytes(b"torn off")

    with pytest.raises(
        SetupError, match=r"Triton did not start: .*ONNX Runtime cannot load .*doubling/1/model"
    ):
        EmbeddedTriton.start(doubling)


def test_a_broken_model_is_named_without_a_trace(doubling: Path) -> None:
    (doubling / "doubling" / "config.pbtxt").write_text('backend: "onnxruntime" max_batch_size: 4\n')
    (doubling / "doubling" / "1" / "model.onnx").write_bytes(b"torn off")

    with pytest.raises(SetupError) as raised:
        EmbeddedTriton.start(doubling)
    assert str(doubling / "doubling" / "1") in str(raised.value)
    assert "At:" not in str(raised.value)
    assert "stand_in.py" not in str(raised.value)


def test_a_plan_without_its_onnx_is_named_in_one_sentence(doubling: Path) -> None:
    (doubling / "doubling" / "config.pbtxt").write_text('platform: "tensorrt_plan" max_batch_size: 4\n')
    (doubling / "doubling" / "1" / "model.onnx").rename(doubling / "doubling" / "1" / "model.plan")

    with pytest.raises(SetupError, match=r"without a GPU the ONNX file beside model\.plan is run instead"):
        EmbeddedTriton.start(doubling)


def test_a_missing_repository_is_named_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no model repository at .*nowhere"):
        EmbeddedTriton.start(tmp_path / "nowhere")


def test_a_server_that_is_not_ready_in_time_is_ended(model_repository: Path) -> None:
    before = psutil.Process().children(recursive=True)
    with pytest.raises(SetupError, match="not ready after 0 seconds"):
        EmbeddedTriton.start(model_repository, startup_timeout_seconds=0.0)

    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_a_model_comes_with_its_companion(triton: EmbeddedTriton) -> None:
    assert triton.models == ("yolo",)
    with tritonclient.grpc.InferenceServerClient(triton.grpc_url) as client:
        assert client.is_model_ready("yolo-rollout")


def test_servers_on_one_port_play_the_pods_behind_a_name(
    triton: EmbeddedTriton, model_repository: Path
) -> None:
    port = triton.grpc_port
    with EmbeddedTriton.start(model_repository, models=[], address="127.0.0.2", grpc_port=port) as second:
        assert second.grpc_url == f"127.0.0.2:{port}"
        with tritonclient.grpc.InferenceServerClient(second.grpc_url) as client:
            assert not client.is_model_ready("yolo")
        assert _ask(triton.grpc_url, _frames(1)).shape == (1, 1000, 6)


def test_stop_leaves_no_process_and_no_shared_memory(model_repository: Path) -> None:
    before = _shared_memory(os.getpid())
    server = EmbeddedTriton.start(model_repository)
    assert _shared_memory(os.getpid()) > before, "or there is nothing to clean up"
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert len(processes) >= 2, "the server and a stub"
    server.stop()
    server.stop()

    assert not [process for process in processes if process.is_running()]
    assert _shared_memory(os.getpid()) <= before


def test_a_port_that_is_taken_is_named_in_one_sentence(
    triton: EmbeddedTriton, model_repository: Path
) -> None:
    with pytest.raises(
        SetupError, match=rf"Triton did not start: .*127\.0\.0\.1:{triton.grpc_port}' already in use"
    ):
        EmbeddedTriton.start(model_repository, grpc_port=triton.grpc_port)


def test_a_metrics_port_that_is_taken_is_named_in_one_sentence(
    triton: EmbeddedTriton, model_repository: Path
) -> None:
    with pytest.raises(SetupError, match=rf"'127\.0\.0\.1:{triton.http_port}' already in use"):
        EmbeddedTriton.start(model_repository, metrics_port=triton.http_port)


def test_paths_with_spaces_and_other_letters_are_served(model_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "my models" / "für später"
    shutil.copytree(model_repository, repository)
    with EmbeddedTriton.start(repository) as server:
        assert _ask(server.grpc_url, _frames(1)).shape == (1, 1000, 6)


def test_a_cache_with_spaces_and_other_letters_is_served(
    model_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = runtime.prepare()
    backends = tmp_path / "mein großer cache" / "backends"
    shutil.copytree(prepared.backends, backends)
    monkeypatch.setattr(embedded, "prepare", lambda: dataclasses.replace(prepared, backends=backends))
    with EmbeddedTriton.start(model_repository) as server:
        assert _ask(server.grpc_url, _frames(1)).shape == (1, 1000, 6)
    assert (backends / "python").is_dir()


def test_a_killed_server_starts_again_on_its_port(model_repository: Path) -> None:
    first = EmbeddedTriton.start(model_repository)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    first.stop()
    with EmbeddedTriton.start(model_repository, grpc_port=first.grpc_port) as second:
        assert second.grpc_url == first.grpc_url
        assert _ask(second.grpc_url, _frames(1)).shape == (1, 1000, 6)


def test_a_killed_parent_leaves_no_server_behind(model_repository: Path, run_python: PythonRunner) -> None:
    parent = run_python(
        "import sys, time; from pathlib import Path; from modelops.embedded import EmbeddedTriton\n"
        "server = EmbeddedTriton.start(Path(sys.argv[1])); print(server.pid, flush=True); time.sleep(300)",
        str(model_repository),
    )
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    family = [server, *server.children(recursive=True)]
    parent.kill()

    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    _until(lambda: not _shared_memory(parent.pid))


def test_a_dead_stub_is_noticed(model_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(model_repository, repository)
    with EmbeddedTriton.start(repository) as server:
        assert server.healthy
        for child in psutil.Process(server.pid).children():
            child.kill()
        _until(lambda: not server.healthy)


def _shared_memory(parent: int) -> set[Path]:
    return set(Path("/dev/shm").glob(f"vault-ml-{parent}-*"))


def _until(holds: Callable[[], bool], timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
