"""`vault-ml model check`: what NVIDIA's builder says, and that it cannot take the program down."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumer.errors import SetupError
from modelops import tensorrt_check
from modelops.cli import app as model_app
from modelops.graph import PixelFacts, build
from modelops.tensorrt_check import Checker, check
from tests.modelops import little_models

FAILING = "tests.modelops.failing_builders"


@pytest.fixture(scope="module")
def contract_graph() -> bytes:
    source = little_models.ultralytics(192, 320)
    return build(source, PixelFacts("rgb", "1"), height=192, width=320).model.SerializeToString()


def test_an_accepted_model_is_reported_with_its_plan(contract_graph: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(contract_graph)
    report = check(file, max_batch=32)
    assert report.accepted
    assert report.problems == ()
    assert report.layers > 50
    assert report.plan_bytes > 10_000
    assert report.builder.startswith("TensorRT-RTX 1.")


def test_one_child_checks_many_models_and_a_refusal_is_a_report(contract_graph: bytes) -> None:
    with Checker() as checker:
        refused = checker.check(b"not a model", max_batch=4)
        accepted = checker.check(contract_graph, max_batch=4)
    assert not refused.accepted
    assert refused.problems == ("TensorRT's parser cannot read this: it is no ONNX file, or a damaged one.",)
    assert accepted.accepted


def test_a_builder_that_crashes_takes_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_FAULT", "crash")
    with Checker(module=FAILING) as checker:
        for _ in range(2):  # the child is replaced
            report = checker.check(b"model", max_batch=4)
            assert not report.accepted
            assert "died on this model" in report.problems[0]


def test_a_builder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_FAULT", "hang")
    with (
        Checker(module=FAILING, time_limit_seconds=1) as checker,
        pytest.raises(SetupError, match="not done after 1 seconds"),
    ):
        checker.check(b"model", max_batch=4)


def test_without_the_wheels_the_extra_is_named() -> None:
    with pytest.raises(SetupError, match=r"pip install '\.\[tensorrt\]'"):
        tensorrt_check.Checker(module="no_such_builder")


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"missing\.onnx cannot be read"):
        check(tmp_path / "missing.onnx", max_batch=4)


def test_the_command_takes_a_file_and_refuses_what_tensorrt_refuses(
    contract_graph: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(contract_graph)
    said = CliRunner().invoke(model_app, ["check", str(file), "--max-batch", "4"])
    assert said.stdout.startswith(f"{file}: accepted by TensorRT-RTX ")

    file.write_bytes(b"not a model")
    said = CliRunner().invoke(model_app, ["check", str(file)])
    assert isinstance(said.exception, SetupError)
    assert "it is no ONNX file, or a damaged one" in str(said.exception)
