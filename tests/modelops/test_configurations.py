"""The generated configurations in a real Triton: they load, keep the contract, put live requests first."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from consumer.contract import INPUT_NAME, LIVE_PRIORITY, OUTPUT_NAME, REPLAY_PRIORITY, check_contract
from consumer.rollout import Rollout, companion_name
from modelops.config_pbtxt import Served
from modelops.embedded import EmbeddedTriton
from modelops.repository import Repository
from tests import planted
from tests.modelops.candidates import LABELS, candidate
from tests.planted import Planted

pytestmark = pytest.mark.triton

VARIANTS = ["", "cpu", "tensorrt"]


@pytest.fixture(scope="module")
def without_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model whose configurations ask for a CPU where they asked for a GPU; else as written."""
    directory = tmp_path_factory.mktemp("configurations") / "repository"
    repository = Repository.open(directory)
    model = candidate()
    repository.publish(
        replace(model, served=replace(model.served, resize="stretch", nms_in_graph=True, max_batch_size=6))
    )
    for where in repository.config_texts("yolo"):
        text = Path(where).read_text()
        assert "KIND_" in text
        Path(where).write_text(text.replace("KIND_GPU", "KIND_CPU"))
    return directory


@pytest.mark.parametrize("variant", VARIANTS, ids=["config.pbtxt", "cpu.pbtxt", "tensorrt.pbtxt"])
def test_triton_loads_it_and_answers_the_whole_contract(variant: str, without_gpu: Path) -> None:
    with (
        EmbeddedTriton.start(without_gpu, model_config_name=variant) as server,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as client,
    ):
        config = client.get_model_config("yolo", as_json=True)["config"]
        contract = check_contract(
            "yolo",
            client.get_model_metadata("yolo", as_json=True),
            config,
            client.get_model_config(companion_name("yolo"), as_json=True)["config"],
        )
        assert (contract.height, contract.width, contract.max_detections) == (64, 96, 8)
        assert (contract.resize, contract.nms_in_graph, contract.max_batch_size) == ("stretch", True, 6)
        assert contract.rollout == Rollout(generation=1, live=1)
        assert contract.versions["1"].labels == LABELS
        assert config["version_policy"] == {"all": {}}
        assert config["dynamic_batching"]["priority_levels"] == "2"
        frames = np.zeros((6, 96, 96), np.uint8)
        assert _rows(client.infer("yolo", [_tensor(frames)])).shape == (6, 8, 6)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes one frame at a time, and a while for each."""
    directory = tmp_path_factory.mktemp("slow") / "repository"
    busy = Planted(LABELS, [(8, 8, 40, 40, 0.9, 0)], busy=150)
    served = Served("yolo", planted.HEIGHT, planted.WIDTH, planted.MAX_DETECTIONS, max_batch_size=1)
    Repository.open(directory).publish(replace(candidate(), served=served, model=planted.model(busy)))
    return directory


def test_live_requests_go_before_replays_whose_queue_is_short(slow: Path) -> None:
    with (
        EmbeddedTriton.start(slow) as server,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as client,
    ):
        replays = [_ask(client, REPLAY_PRIORITY) for _ in range(60)]
        _until(lambda: sum(replay.done() for replay in replays) >= 1)  # refusals, and the queue is full
        live = [_ask(client, LIVE_PRIORITY) for _ in range(2)]
        assert all(_outcome(request) == "answered" for request in live)
        waiting = sum(not replay.done() for replay in replays)
        assert waiting > 10, "replays that came first are answered last"
        # Those that found the queue full, and on a slow machine those that waited for five seconds.
        outcomes = Counter(_outcome(replay) for replay in replays)
        assert outcomes.keys() == {"answered", "StatusCode.UNAVAILABLE"}


def _ask(
    client: tritonclient.grpc.InferenceServerClient, priority: int
) -> "Future[tritonclient.grpc.InferResult]":
    asked: Future[tritonclient.grpc.InferResult] = Future()

    def answer(result: object, error: InferenceServerException | None) -> None:
        asked.set_exception(error) if error else asked.set_result(result)

    frame = np.zeros((1, planted.HEIGHT * 3 // 2, planted.WIDTH), np.uint8)
    client.async_infer("yolo", [_tensor(frame)], answer, priority=priority)
    return asked


def _outcome(asked: "Future[tritonclient.grpc.InferResult]") -> str:
    try:
        asked.result(timeout=60)
    except InferenceServerException as error:
        return str(error.status())
    return "answered"


def _tensor(frames: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> tritonclient.grpc.InferInput:
    tensor = tritonclient.grpc.InferInput(INPUT_NAME, list(frames.shape), "UINT8")
    tensor.set_data_from_numpy(frames)
    return tensor


def _rows(result: tritonclient.grpc.InferResult) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.asarray(result.as_numpy(OUTPUT_NAME))


def _until(holds: Callable[[], bool], timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
