"""NVIDIA's parser and builder accept what the export makes of every layout, in every precision."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from modelops.graph import ContractGraph, PixelFacts, build
from modelops.precision import to_fp16
from modelops.quantization import to_int8
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


def contract_graph(network: ModelProto, layout: str, size: tuple[int, int] = (192, 320)) -> ContractGraph:
    height, width = OWN_SIZE.get(layout, size)
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


def test_tensorrt_accepts_int8(checker: Checker, network: ModelProto) -> None:
    graph = contract_graph(network, "yolox", (64, 96))
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 96), np.uint8)
    quantised = to_int8(graph, list(frames))
    report = check(checker, quantised)
    assert report.accepted
    assert report.layers > 2 * check(checker, graph).layers  # a pair of Q and DQ for each input and weight
