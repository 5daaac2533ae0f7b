"""The detector on a real Triton: contract checked, batches in order, what heals is an outage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tenacity

from consumer.contract import Parameter, check_contract
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import ContractError, TritonAway
from consumer.rollout import Rollout
from modelops.embedded import EmbeddedTriton
from tests.brokers.kafka import free_ports

KEPT: dict[str, str] = {
    Parameter.CONTRACT: "1",
    Parameter.PIXEL_FORMAT: "i420_bt601_limited",
    Parameter.RESIZE: "letterbox",
    Parameter.NMS: "consumer",
}
COMPANION: dict[str, str] = {
    Parameter.ROLLOUT: Rollout(generation=4, live=3).to_json(),
    Parameter.labels("3"): '["person", "car"]',
    Parameter.digest("3"): "sha256:abc",
}


def metadata(**changed: object) -> dict[str, Any]:
    tensors = {
        "inputs": [{"name": "FRAMES", "datatype": "UINT8", "shape": ["-1", "576", "640"]}],
        "outputs": [{"name": "DETECTIONS", "datatype": "FP32", "shape": ["-1", "1000", "6"]}],
    }
    return tensors | changed


def config(parameters: dict[str, str]) -> dict[str, Any]:
    return {
        "max_batch_size": 32,
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


@pytest.fixture
def detector(triton: EmbeddedTriton) -> Iterator[TritonDetector]:
    with TritonDetector(TritonEndpoint(triton.grpc_url, "yolo")) as connected:
        yield connected


def pictures(count: int) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (576, 640), dtype=np.uint8) for _ in range(count)]


def test_a_model_that_keeps_the_contract_is_taken_at_its_word() -> None:
    contract = check_contract("yolo", metadata(), config(KEPT), config(COMPANION))
    assert (contract.height, contract.width) == (384, 640)
    assert (contract.max_detections, contract.max_batch_size) == (1000, 32)
    assert not contract.nms_in_graph
    assert contract.versions["3"].labels == ("person", "car")
    assert contract.versions["3"].digest == "sha256:abc"
    assert (contract.rollout.generation, contract.rollout.live) == (4, 3)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (
            {"inputs": [{"name": "images", "datatype": "FP32", "shape": ["-1", "3", "8", "8"]}]},
            "images FP32",
        ),
        ({"inputs": [{"name": "FRAMES", "datatype": "FP32", "shape": ["-1", "576", "640"]}]}, "FRAMES FP32"),
        ({"inputs": [{"name": "FRAMES", "datatype": "UINT8", "shape": ["-1", "577", "640"]}]}, "577"),
        ({"inputs": [{"name": "FRAMES", "datatype": "UINT8", "shape": ["-1", "576", "650"]}]}, "650"),
        ({"outputs": [{"name": "DETECTIONS", "datatype": "FP32", "shape": ["-1", "84", "8400"]}]}, "8400"),
        ({"outputs": []}, "nothing"),
    ],
)
def test_tensors_that_do_not_fit_are_named_with_what_was_expected(broken: dict[str, Any], named: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_contract("yolo", metadata(**broken), config(KEPT), config(COMPANION))
    assert named in str(caught.value)
    assert "expected" in str(caught.value) or "must be" in str(caught.value)
    assert "vault-ml model export" in str(caught.value)


@pytest.mark.parametrize("name", KEPT)
def test_a_parameter_that_is_missing_is_named(name: str) -> None:
    kept = {key: KEPT[key] for key in KEPT if key != name}
    with pytest.raises(ContractError, match=name):
        check_contract("yolo", metadata(), config(kept), config(COMPANION))


@pytest.mark.parametrize("name", [Parameter.ROLLOUT, Parameter.labels("3")])
def test_what_the_companion_does_not_say_is_named(name: str) -> None:
    said = {key: COMPANION[key] for key in COMPANION if key != name}
    with pytest.raises(ContractError, match=f"{name}.*'vault-ml model export'"):
        check_contract("yolo", metadata(), config(KEPT), config(said))


def test_a_companion_that_is_not_served_is_named_with_what_to_do() -> None:
    with pytest.raises(ContractError, match=r"'yolo-rollout'.*'vault-ml model export'"):
        check_contract("yolo", metadata(), config(KEPT), None)


def test_a_rollout_that_is_none_is_refused() -> None:
    with pytest.raises(ContractError, match="vaultml_rollout cannot be read"):
        check_contract("yolo", metadata(), config(KEPT), config(COMPANION | {Parameter.ROLLOUT: "{}"}))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ContractError) as caught:
        check_contract("yolo", metadata(inputs=[]), config(KEPT | {Parameter.RESIZE: "crop"}), None)
    assert "FRAMES" in str(caught.value)
    assert "crop" in str(caught.value)


def test_labels_that_are_no_list_of_words_are_refused() -> None:
    with pytest.raises(ContractError, match="JSON list of strings"):
        labels = {Parameter.labels("3"): '{"0": "person"}'}
        check_contract("yolo", metadata(), config(KEPT), config(COMPANION | labels))


def test_the_served_model_keeps_the_contract(detector: TritonDetector) -> None:
    contract = detector.contract
    assert (contract.model, contract.height, contract.width) == ("yolo", 384, 640)
    assert "person" in detector.version("1").labels
    assert detector.version("1").digest.startswith("sha256:")


def test_a_version_that_nobody_described_is_an_error_that_says_so(detector: TritonDetector) -> None:
    with pytest.raises(ContractError, match="Version 99"):
        detector.version("99")


def test_a_model_that_is_not_there_is_no_outage(triton: EmbeddedTriton) -> None:
    with (
        TritonDetector(TritonEndpoint(triton.grpc_url, "no-such-model")) as detector,
        pytest.raises(ContractError, match="no-such-model"),
    ):
        detector.read_contract()


def test_frames_come_back_one_for_one_in_order_over_several_requests(detector: TritonDetector) -> None:
    sent = pictures(21)
    together = list(detector.detect(sent))
    assert len(together) == 21
    for picture, answer in zip(sent[::5], together[::5], strict=True):
        (alone,) = detector.detect([picture])
        np.testing.assert_allclose(answer.rows, alone.rows, atol=1e-3)
    assert {answer.model_version for answer in together} == {"1"}


def test_frames_are_taken_only_as_requests_go_out(triton: EmbeddedTriton) -> None:
    taken = 0

    def source() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal taken
        for picture in pictures(1) * 200:
            taken += 1
            yield picture

    with TritonDetector(TritonEndpoint(triton.grpc_url, "yolo", requests_in_flight=1)) as detector:
        answers = detector.detect(source())
        next(answers)
        assert taken <= 3 * detector.contract.max_batch_size
        answers.close()  # type: ignore[attr-defined]  # a generator, which the signature need not promise


def test_nobody_at_the_address_is_an_outage() -> None:
    (port,) = free_ports(1)
    with (
        TritonDetector(TritonEndpoint(f"127.0.0.1:{port}", "yolo", timeout_seconds=2.0)) as detector,
        pytest.raises(TritonAway),
    ):
        detector.read_contract()


def test_a_server_that_goes_and_comes_back_is_an_outage_and_the_same_client_goes_on(
    model_repository: Path,
) -> None:
    (port,) = free_ports(1)
    endpoint = TritonEndpoint(f"127.0.0.1:{port}", "yolo", timeout_seconds=5.0)
    with TritonDetector(endpoint) as detector:
        with EmbeddedTriton.start(model_repository, grpc_port=port):
            assert len(list(detector.detect(pictures(2)))) == 2
        with pytest.raises(TritonAway):
            list(detector.detect(pictures(2)))
        with EmbeddedTriton.start(model_repository, grpc_port=port):
            # The channel itself waits a little between its attempts to connect.
            patient = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(TritonAway), stop=tenacity.stop_after_delay(30)
            )
            assert len(patient(lambda: list(detector.detect(pictures(2))))) == 2
