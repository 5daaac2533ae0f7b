"""NVIDIA's builder on this machine without a GPU, through the module that has the same API as `tensorrt`."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from onnx import TensorProto, helper

from consumer.errors import SetupError
from modelops import tensorrt_builder
from modelops.graph import PixelFacts, build
from modelops.tensorrt_builder import CHECK_MODULE, BuildRequest, BuiltPlan, Refusal, TensorRT
from tests.modelops import little_models


@pytest.fixture(scope="module")
def trt() -> TensorRT:
    return TensorRT.load(CHECK_MODULE)


@pytest.fixture(scope="module")
def contract_graph() -> bytes:
    source = little_models.ultralytics(192, 320)
    return build(source, PixelFacts("rgb", "1"), height=192, width=320).model.SerializeToString()


def one_node(operator: str, *, name: str = "the/node", domain: str = "") -> bytes:
    """A model of one operator on FRAMES float32 [N, 3, 3]."""
    frames = helper.make_tensor_value_info("FRAMES", TensorProto.FLOAT, ["N", 3, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node(operator, ["FRAMES"], ["out"], name=name, domain=domain)], "one", [frames], [out]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def refusal(trt: TensorRT, model: bytes) -> str:
    result = trt.build(model, BuildRequest(4, compute_capability="8.9", level=0))
    assert isinstance(result, Refusal)
    (problem,) = result.problems
    return problem


def test_a_contract_graph_becomes_a_plan(trt: TensorRT, contract_graph: bytes) -> None:
    plan = trt.build(contract_graph, BuildRequest(32, compute_capability="8.9", level=0))
    assert isinstance(plan, BuiltPlan)
    assert len(plan.content) > 10_000
    assert plan.layers > 50


@pytest.mark.parametrize(
    ("max_batch", "batches"), [(32, (1, 8, 32)), (8, (1, 8, 8)), (4, (1, 4, 4)), (1, (1, 1, 1))]
)
def test_the_profile_goes_from_one_frame_to_the_largest_batch_of_the_configuration(
    max_batch: int, batches: tuple[int, int, int]
) -> None:
    assert BuildRequest(max_batch).batches == batches


def test_what_one_build_measured_is_taken_by_the_next(trt: TensorRT, contract_graph: bytes) -> None:
    first = trt.build(contract_graph, BuildRequest(2, compute_capability="8.9", level=0))
    assert isinstance(first, BuiltPlan)
    assert first.timing_cache
    second = trt.build(
        contract_graph, BuildRequest(2, compute_capability="8.9", level=0, timing_cache=first.timing_cache)
    )
    assert isinstance(second, BuiltPlan)


def test_a_damaged_timing_cache_is_not_in_the_way(trt: TensorRT, contract_graph: bytes) -> None:
    request = BuildRequest(2, compute_capability="8.9", level=0, timing_cache=b"damaged")
    assert isinstance(trt.build(contract_graph, request), BuiltPlan)


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(trt: TensorRT) -> None:
    assert (
        refusal(trt, one_node("Det"))
        == "TensorRT does not support the operator Det as node 'the/node' uses it."
    )


def test_an_operator_of_somebody_else_is_named(trt: TensorRT) -> None:
    problem = refusal(trt, one_node("Winnow", name="", domain="com.example"))
    assert problem == "TensorRT does not support the operator Winnow as node 0 uses it."


def test_mixed_precisions_are_refused_with_tensorrts_own_reason(trt: TensorRT) -> None:
    frames = helper.make_tensor_value_info("FRAMES", TensorProto.FLOAT, ["N", 3, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3, 3])
    nodes = [
        helper.make_node("Cast", ["FRAMES"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["half", "FRAMES"], ["out"], name="mixed"),
    ]
    graph = helper.make_graph(nodes, "mixed", [frames], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    problem = refusal(trt, model.SerializeToString())
    assert problem.startswith("TensorRT refuses node 'mixed' (Add): ")
    assert "types Half and Float" in problem
    assert "\n" not in problem
    assert "/_src/" not in problem


def test_a_file_that_is_no_onnx_is_said_to_be_none(trt: TensorRT) -> None:
    assert refusal(trt, b"not a model") == (
        "TensorRT's parser cannot read this: it is no ONNX file, or a damaged one."
    )


def test_a_model_without_the_contracts_input_is_sent_to_the_export(trt: TensorRT) -> None:
    raw = little_models.yolox(192, 320).SerializeToString()
    with pytest.raises(SetupError, match="has no input FRAMES: export it with `vault-ml model export`"):
        trt.build(raw, BuildRequest(4, compute_capability="8.9", level=0))


def test_a_gpu_that_cannot_be_built_for_from_afar_is_named(trt: TensorRT, contract_graph: bytes) -> None:
    with pytest.raises(SetupError, match=r"does not build for compute capability 9\.0"):
        trt.build(contract_graph, BuildRequest(4, compute_capability="9.0"))


def test_without_tensorrt_one_sentence_says_where_to_build() -> None:
    with pytest.raises(SetupError) as caught:
        TensorRT.load("tensorrt")
    assert "build in the Triton image" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_of_its_packages_there_is_no_module_to_build_with() -> None:
    with pytest.raises(SetupError, match="TensorRT is not here"):
        tensorrt_builder.build_module()


def test_the_bindings_alone_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_bindings.py").write_text("__version__ = '11.2.1.2'")
    monkeypatch.syspath_prepend(tmp_path)
    assert tensorrt_builder.build_module() == "tensorrt_bindings"
    assert TensorRT.load("tensorrt_bindings").version == "11.2.1.2"


def test_a_builder_that_cannot_be_made_says_why_in_one_sentence(contract_graph: bytes) -> None:
    """As TensorRT 11.2 does without a driver: the reason is in its log, the error says nothing."""
    real = sys.modules[CHECK_MODULE]
    eleven = ModuleType("tensorrt")
    eleven.__dict__.update({name: getattr(real, name) for name in dir(real) if name != "ComputeCapability"})
    eleven.__dict__["__version__"] = "11.2.1.2"

    def no_builder(logger: Any) -> None:  # noqa: ANN401 - TensorRT's own type
        logger.log(
            real.ILogger.ERROR,
            "CUDA initialization failure with error: 35.\nIn operator() at /_src/builder.cpp:1569",
        )
        raise TypeError("pybind11::init(): factory function returned nullptr")

    eleven.__dict__["Builder"] = no_builder
    with pytest.raises(SetupError) as caught:
        TensorRT(eleven).build(contract_graph, BuildRequest(2))
    assert str(caught.value) == (
        "TensorRT 11.2.1.2 does not start on this machine: CUDA initialization failure with error: 35."
    )


def test_a_tensorrt_without_strong_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__dict__["__version__"] = "8.6.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(SetupError, match=r"TensorRT 8\.6\.1 is too old"):
        TensorRT.load("tensorrt")


def test_tensorrt_11_needs_no_flag_to_be_strongly_typed(trt: TensorRT, contract_graph: bytes) -> None:
    """The module as TensorRT 11 may come: without the flag, as strong types are all that is left."""
    real = sys.modules[CHECK_MODULE]
    eleven = ModuleType("tensorrt")
    eleven.__dict__.update(
        {name: getattr(real, name) for name in dir(real) if name != "NetworkDefinitionCreationFlag"}
    )
    eleven.__dict__["NetworkDefinitionCreationFlag"] = type("NetworkDefinitionCreationFlag", (), {})
    assert isinstance(
        TensorRT(eleven).build(contract_graph, BuildRequest(2, compute_capability="8.9", level=0)), BuiltPlan
    )


def test_missing_wheels_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`pip install '.[tensorrt]'`" in tensorrt_builder.missing(CHECK_MODULE)
    monkeypatch.setitem(sys.modules, CHECK_MODULE, None)
    with pytest.raises(SetupError, match="extra"):
        TensorRT.load(CHECK_MODULE)
