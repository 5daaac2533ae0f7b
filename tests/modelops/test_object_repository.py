"""A real Triton serves what was published to an object store, and follows a rollout there."""

import numpy as np
import pytest
import tritonclient.grpc

from consumer.contract import INPUT_NAME, OUTPUT_NAME, check_companion
from consumer.rollout import Rollout, companion_name
from modelops.embedded import EmbeddedTriton
from modelops.repository import Repository
from tests import planted
from tests.modelops.candidates import candidate

pytestmark = pytest.mark.triton


def test_a_real_triton_serves_what_was_published_to_an_object_store(bucket_url: str) -> None:
    repository = Repository.open(bucket_url)
    repository.publish(candidate())
    repository.publish(candidate(labels=("cat", "dog", "horse")))
    with (
        EmbeddedTriton.start(bucket_url) as server,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as client,
    ):
        assert server.models == ("yolo",)
        assert _ready(client) == ["1"], "the second one waits on the shelf"
        assert _find(client, "1") == [8, 8, 40, 40]

        repository.serve("yolo", 2)
        client.load_model("yolo")
        assert _ready(client) == ["1", "2"]
        assert _find(client, "2") == [8, 8, 40, 40]
        assert _answered(client, "1") >= 1, "it was not loaded anew for its new neighbour"

        known = repository.companion("yolo")
        repository.write_companion("yolo", known.rolled_out(Rollout(2, live=2)))
        client.load_model(companion_name("yolo"))
        config = client.get_model_config(companion_name("yolo"), as_json=True)["config"]
        rollout, versions = check_companion("yolo", config)
        assert rollout.live == 2
        assert versions["2"].labels == ("cat", "dog", "horse")

        repository.shelve("yolo", 1)
        client.load_model("yolo")
        assert _ready(client) == ["2"]


def _ready(client: tritonclient.grpc.InferenceServerClient) -> list[str]:
    index = client.get_model_repository_index(as_json=True)["models"]
    return [each["version"] for each in index if each["name"] == "yolo" and each.get("state") == "READY"]


def _find(client: tritonclient.grpc.InferenceServerClient, version: str) -> list[float]:
    """The box that a version finds, x1, y1, x2, y2."""
    frame = np.zeros((1, planted.HEIGHT * 3 // 2, planted.WIDTH), np.uint8)
    tensor = tritonclient.grpc.InferInput(INPUT_NAME, list(frame.shape), "UINT8")
    tensor.set_data_from_numpy(frame)
    rows = client.infer("yolo", [tensor], model_version=version).as_numpy(OUTPUT_NAME)
    return [float(side) for side in rows[0, 0, :4]]


def _answered(client: tritonclient.grpc.InferenceServerClient, version: str) -> int:
    """Frames that a version has answered since it was loaded."""
    (statistics,) = client.get_inference_statistics("yolo", version, as_json=True)["model_stats"]
    return int(statistics.get("inference_count", 0))
