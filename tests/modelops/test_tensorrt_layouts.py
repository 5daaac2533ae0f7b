"""NVIDIA's parser and builder accept what the export makes of every layout, in every precision."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from modelops import catalogue
from modelops.graph import ContractGraph, PixelFacts, build
from modelops.precision import to_fp16
from modelops.provenance import Precision
from modelops.source import Options, read_source
from modelops.tensorrt_check import Checker, CheckReport
from tests.modelops.layouts import LAYOUTS, OWN_SIZE, resize_of

MAX_BATCH = 32


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    """One child process for all: importing the builder takes longer than a small graph."""
    with Checker() as checker:
        yield checker


@pytest.fixture(scope="module")
def network(yolox_nano: Path) -> ModelProto:
    return onnx.load(yolox_nano)


def contract_graph(network: ModelProto, layout: str) -> ContractGraph:
    height, width = OWN_SIZE.get(layout, (192, 320))
    pixels = PixelFacts("bgr", "255", resize_of(layout))
    return build(LAYOUTS[layout](network), pixels, height=height, width=width)


def check(checker: Checker, graph: ContractGraph) -> CheckReport:
    report = checker.check(graph.model.SerializeToString(), max_batch=MAX_BATCH)
    assert report.problems == ()
    return report


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensorrt_accepts_every_layout(checker: Checker, network: ModelProto, layout: str) -> None:
    assert check(checker, contract_graph(network, layout)).accepted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensorrt_accepts_every_layout_in_fp16(checker: Checker, network: ModelProto, layout: str) -> None:
    assert check(checker, to_fp16(contract_graph(network, layout))).accepted


def test_tensorrt_accepts_int8(checker: Checker, yolox_graphs: "dict[Precision, ContractGraph]") -> None:
    plain, quantised = (check(checker, yolox_graphs[to]) for to in ("fp32", "int8"))
    assert quantised.accepted
    assert quantised.layers > plain.layers + 100  # Q and DQ for inputs and weights


def test_tensorrt_accepts_darknet(checker: Checker) -> None:
    source = read_source(catalogue.fetch("yolov3_tiny").path, Options())
    graph = build(source.model, source.pixels, height=192, width=320, layout=source.layout)
    assert check(checker, graph).accepted
