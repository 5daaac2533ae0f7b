"""`vault-ml model build`: all of it but the GPU, with NVIDIA's own builder and a real Triton."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import ModelProto, TensorProto, helper
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from consumer.contract import INPUT_NAME
from consumer.errors import SetupError
from modelops import plans
from modelops.cli import app as model_app
from modelops.coco import COCO_LABELS
from modelops.config_pbtxt import COMPUTE_CAPABILITIES, Served, plan_file
from modelops.golden import GoldenSet, pictures_in
from modelops.gpu import Gpu
from modelops.graph import build
from modelops.plan_gate import judge
from modelops.plans import Workshop, build_plan, this_workshop, timing_cache_file
from modelops.provenance import File, Provenance
from modelops.repository import Candidate, Repository
from modelops.source import Options, read_source
from modelops.tensorrt_builder import CHECK_MODULE

HEIGHT, WIDTH = 192, 320
MAX_BATCH = 8
ADA = Gpu("NVIDIA L4", "8.9", "580.95.05")
WORKSHOP = Workshop(ADA, module=CHECK_MODULE, from_afar=True)


@pytest.fixture(scope="module")
def contract_graph(yolox_nano: Path) -> ModelProto:
    source = read_source(yolox_nano, Options())
    return build(source.model, source.pixels, height=HEIGHT, width=WIDTH).model


@pytest.fixture(scope="module")
def golden(crowds: Path) -> GoldenSet:
    """Pictures for one batch of each size, and more."""
    return GoldenSet(photos=pictures_in(crowds).photos[:16])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings of builds stay in the test; what was downloaded is taken from where it is."""
    monkeypatch.setattr(plans, "cache_directory", lambda: tmp_path / "cache")


@dataclass
class Shelf:
    """A repository with version 1 served and version 2 on the shelf."""

    repository: Repository
    directory: Path


@pytest.fixture
def shelf(tmp_path: Path, contract_graph: ModelProto) -> Shelf:
    return made_shelf(tmp_path / "model_repository", contract_graph)


def made_shelf(directory: Path, model: ModelProto) -> Shelf:
    repository = Repository.open(directory)
    served = Served("yolo", HEIGHT, WIDTH, 1000, MAX_BATCH)
    provenance = Provenance(
        source=File("yolox_nano.onnx", "sha256:0"), graph=File("model.onnx", "sha256:1"),
        layout="yolox", classes=80, labels=80, height=HEIGHT, width=WIDTH, max_detections=1000,
        precision="fp32",
    )  # fmt: skip
    for _ in range(2):
        repository.publish(
            Candidate(served, model, COCO_LABELS, "sha256:0", provenance.to_json().encode(), b"")
        )
    return Shelf(repository, directory)


def files_of(shelf: Shelf, version: int) -> set[str]:
    return set(shelf.repository.files("yolo", version))


Answer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
ONE_ROUND = 30
"""Boxes that the golden set shows."""


@pytest.fixture(scope="module")
def answer(contract_graph: ModelProto) -> Answer:
    """ONNX Runtime as the plan that answers."""
    session = onnxruntime.InferenceSession(
        contract_graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda frames: np.asarray(session.run(None, {INPUT_NAME: frames})[0], np.float32)


@pytest.fixture
def honest(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the test a Triton; test_plan_trial.py shows that one answers the same."""
    monkeypatch.setattr(plans, "running", lambda *_, **__: contextlib.nullcontext(answer))


BEFORE = {"model.onnx", "golden.npz", "provenance.json"}


@pytest.mark.triton
def test_a_plan_stands_beside_its_model_with_what_is_known_of_it(shelf: Shelf, golden: GoldenSet) -> None:
    returned = build_plan(shelf.repository, "yolo", 2, golden, WORKSHOP, needed_boxes=ONE_ROUND)

    assert files_of(shelf, 2) == BEFORE | {"model_cc89.plan"}
    known = Provenance.from_json(shelf.repository.read("yolo", 2, "provenance.json"))
    assert known.layout == "yolox"
    (plan,) = known.plans
    assert plan == returned
    content = shelf.repository.read("yolo", 2, "model_cc89.plan")
    assert plan.file == File("model_cc89.plan", f"sha256:{sha256(content).hexdigest()}", len(content))
    assert (plan.gpu, plan.compute_capability, plan.driver) == ("NVIDIA L4", "8.9", "580.95.05")
    assert plan.tensorrt.startswith("1.")
    assert plan.gate is not None
    assert plan.gate.passed
    assert plan.gate.fair.recall == pytest.approx(1, abs=0.01)
    assert timing_cache_file(ADA).read_bytes()


def test_each_kind_of_gpu_has_its_own_plan_and_a_new_one_replaces_only_its_own(
    shelf: Shelf, golden: GoldenSet, honest: None
) -> None:
    ampere = Gpu("NVIDIA A10", "8.6", "580.95.05")
    newer = replace(ADA, driver="590.10")
    for gpu in (ADA, ampere, newer):
        workshop = replace(WORKSHOP, gpu=gpu)
        build_plan(shelf.repository, "yolo", 2, golden, workshop, needed_boxes=ONE_ROUND)

    assert files_of(shelf, 2) == BEFORE | {"model_cc89.plan", "model_cc86.plan"}
    known = Provenance.from_json(shelf.repository.read("yolo", 2, "provenance.json"))
    assert {plan.file.name: plan.driver for plan in known.plans} == {
        "model_cc86.plan": "580.95.05",
        "model_cc89.plan": "590.10",
    }


def test_a_version_that_is_promoted_while_it_is_built_gets_no_file(
    shelf: Shelf, golden: GoldenSet, honest: None
) -> None:
    def promote(_: str) -> None:
        if 2 in shelf.repository.shelved("yolo"):
            shelf.repository.serve("yolo", 2)

    with pytest.raises(SetupError, match="Version 2 of 'yolo' is served"):
        build_plan(shelf.repository, "yolo", 2, golden, WORKSHOP, needed_boxes=ONE_ROUND, say=promote)
    assert files_of(shelf, 2) == BEFORE


def test_a_served_version_gets_a_plan_only_by_force(shelf: Shelf, golden: GoldenSet, honest: None) -> None:
    with pytest.raises(SetupError, match="or add --force"):
        build_plan(shelf.repository, "yolo", 1, golden, WORKSHOP)
    assert files_of(shelf, 1) == BEFORE
    build_plan(shelf.repository, "yolo", 1, golden, WORKSHOP, needed_boxes=ONE_ROUND, force=True)
    assert files_of(shelf, 1) == BEFORE | {"model_cc89.plan"}


def test_a_plan_that_finds_nothing_is_not_written(
    shelf: Shelf, golden: GoldenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.zeros((len(frames), 1000, 6), np.float32)

    monkeypatch.setattr(plans, "running", lambda *_, **__: contextlib.nullcontext(blind))
    with pytest.raises(SetupError, match=r"answers batches of \d+ wrongly: recall 0\.000"):
        build_plan(shelf.repository, "yolo", 2, golden, WORKSHOP, needed_boxes=ONE_ROUND)
    assert files_of(shelf, 2) == BEFORE


def test_a_golden_set_that_shows_too_little_proves_nothing(
    shelf: Shelf, golden: GoldenSet, honest: None
) -> None:
    photo = GoldenSet(photos=golden.photos[:1])
    with pytest.raises(SetupError, match="or give more pictures with --golden"):
        build_plan(shelf.repository, "yolo", 2, photo, WORKSHOP)
    assert files_of(shelf, 2) == BEFORE


def test_a_model_that_tensorrt_refuses_gets_no_plan(tmp_path: Path, golden: GoldenSet) -> None:
    frames = helper.make_tensor_value_info("FRAMES", TensorProto.FLOAT, ["N", 3, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N"])
    node = helper.make_node("Det", ["FRAMES"], ["out"], name="determinant")
    graph = helper.make_graph([node], "refused", [frames], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    shelf = made_shelf(tmp_path / "model_repository", model)
    with pytest.raises(SetupError, match="TensorRT does not support the operator Det as node 'determinant'"):
        build_plan(shelf.repository, "yolo", 2, golden, WORKSHOP)
    assert files_of(shelf, 2) == BEFORE


def test_a_gpu_without_a_plan_in_the_configuration_is_told_the_line(shelf: Shelf, golden: GoldenSet) -> None:
    orin = Workshop(Gpu("Orin", "8.7", "540.4.0"), module=CHECK_MODULE, from_afar=True)
    with pytest.raises(SetupError) as caught:
        build_plan(shelf.repository, "yolo", 2, golden, orin)
    assert 'add `cc_model_filenames { key: "8.7" value: "model_cc87.plan" }` to it' in str(caught.value)


def test_a_model_without_a_configuration_for_tensorrt_is_said_so(shelf: Shelf, golden: GoldenSet) -> None:
    (shelf.directory / "yolo" / "configs" / "tensorrt.pbtxt").unlink()
    with pytest.raises(SetupError, match=r"'yolo' has no configs/tensorrt\.pbtxt"):
        build_plan(shelf.repository, "yolo", 2, golden, WORKSHOP)


def test_a_damaged_provenance_is_said_so(shelf: Shelf, golden: GoldenSet) -> None:
    shelf.repository.add_file("yolo", 2, "provenance.json", json.dumps([1]).encode())
    with pytest.raises(SetupError, match=r"provenance\.json of version 2 of 'yolo' cannot be read"):
        build_plan(shelf.repository, "yolo", 2, golden, WORKSHOP)


def test_without_a_gpu_one_sentence_says_where_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "first_gpu", lambda: None)
    with pytest.raises(SetupError, match="There is no GPU here: build on the GPU that will serve the plan"):
        this_workshop()


def test_without_triton_one_sentence_says_where_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "first_gpu", lambda: ADA)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="tritonserver is not on the PATH"):
        this_workshop()


# The gate of a plan


SERVED = Served("yolo", HEIGHT, WIDTH, 1000, MAX_BATCH)


def test_a_plan_is_asked_in_batches_of_many_sizes(
    contract_graph: ModelProto,
    golden: GoldenSet,
    answer: Answer,
) -> None:
    sizes = set()

    def ask(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        sizes.add(len(frames))
        return answer(frames)

    report = judge(
        golden, contract_graph.SerializeToString(), ask,
        served=SERVED, labels=COCO_LABELS, threshold=0.98, needed_boxes=ONE_ROUND,
    )  # fmt: skip
    assert report.passed
    assert sizes >= {1, 2, 4, 8}


def test_a_plan_that_errs_at_one_size_of_batch_is_found_out(
    contract_graph: ModelProto,
    golden: GoldenSet,
    answer: Answer,
) -> None:
    def ask(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return answer(frames) * np.float32(len(frames) != 2)

    with pytest.raises(SetupError, match="The plan answers batches of 2 wrongly"):
        judge(
            golden, contract_graph.SerializeToString(), ask,
            served=SERVED, labels=COCO_LABELS, threshold=0.98, needed_boxes=ONE_ROUND,
        )  # fmt: skip


def test_a_plan_that_is_less_sure_of_everything_does_not_pass(
    contract_graph: ModelProto,
    golden: GoldenSet,
    answer: Answer,
) -> None:
    def ask(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows = answer(frames)
        rows[..., 4] *= np.float32(0.75)
        return rows

    report = judge(
        golden, contract_graph.SerializeToString(), ask,
        served=SERVED, labels=COCO_LABELS, threshold=0.98, needed_boxes=ONE_ROUND,
    )  # fmt: skip
    assert report.enough_boxes
    assert not report.passed


def test_every_batch_has_a_cuda_graph(shelf: Shelf) -> None:
    text = plans.tensorrt_config(shelf.repository, "yolo")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    graphs = config.optimization.cuda.graph_spec
    covered = [
        size for graph in graphs for size in range(graph.graph_lower_bound.batch_size, graph.batch_size + 1)
    ]
    assert covered == list(range(1, MAX_BATCH + 1))
    assert config.optimization.cuda.graphs
    assert dict(config.cc_model_filenames) == {each: plan_file(each) for each in COMPUTE_CAPABILITIES}


# The command


def test_the_command_builds_the_newest_version_and_says_what_came_of_it(
    shelf: Shelf, honest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "this_workshop", lambda: WORKSHOP)
    monkeypatch.setattr(plans, "build_plan", partial(build_plan, needed_boxes=ONE_ROUND))

    said = CliRunner().invoke(model_app, ["build", "yolo", "--repository", str(shelf.directory)])

    assert said.exception is None
    assert said.stdout.startswith("yolo version 2: model_cc89.plan for NVIDIA L4, ")
    assert "answers as ONNX Runtime does: recall " in said.stdout
    assert files_of(shelf, 2) == BEFORE | {"model_cc89.plan"}


def test_the_command_checks_a_version_without_a_gpu(shelf: Shelf) -> None:
    arguments = ["yolo", "--version", "1", "--repository", str(shelf.directory)]
    for command in (["check", *arguments], ["build", "--check", *arguments]):
        said = CliRunner().invoke(model_app, command)
        assert said.exception is None
        assert said.stdout.startswith("yolo version 1: accepted by TensorRT-RTX ")
    assert files_of(shelf, 1) == BEFORE


def test_a_model_that_is_not_there_is_named(shelf: Shelf) -> None:
    said = CliRunner().invoke(model_app, ["check", "yolov99", "--repository", str(shelf.directory)])
    assert isinstance(said.exception, SetupError)
    assert "There is no model 'yolov99'" in str(said.exception)
    assert "there are: yolo" in str(said.exception)
