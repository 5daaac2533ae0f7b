"""What the tests of the model side share: a real detector, a real photo, processes that are cleaned up."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import requests

from modelops.golden import pictures_in
from modelops.object_storage import ObjectStorage
from modelops.object_store import Address, ObjectStore
from modelops.repository import Repository
from tests.modelops.golden_material import SHARED, write_crowds

if TYPE_CHECKING:
    from modelops.graph import ContractGraph
    from modelops.provenance import GateReport, Precision

PHOTO = Path(__file__).parents[2].parent / "shared" / "data" / "photos" / "dog.jpg"


@pytest.fixture(scope="session")
def yolox_nano() -> Path:
    from modelops import catalogue

    return catalogue.fetch("yolox_nano").path


@pytest.fixture(scope="session")
def dog() -> npt.NDArray[np.uint8]:
    """A dog, a bicycle and a car: uint8 [h, w, 3], BGR."""
    picture = cv2.imread(str(PHOTO))
    assert picture is not None, (
        f"The photo {PHOTO} is missing: this test needs ../shared beside the checkout."
    )
    return picture.astype(np.uint8)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Host and port of an S3 on loopback; its keys are in the environment, as Triton and s3fs want them."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for every request, in every failure
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in keys.items():
            patch.setenv(name, value)
        assert requests.put(f"http://{host}:{port}/models", timeout=30).ok
        yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket_url(s3: str) -> str:
    """Where a repository of this test alone may be, as Triton writes it."""
    return f"s3://http://{s3}/models/{uuid4().hex}/repository"


@pytest.fixture(params=["directory", "object store"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """An empty repository of each kind."""
    if request.param == "directory":
        return Repository.open(tmp_path / "repository")
    address = Address.parse(request.getfixturevalue("bucket_url"))
    # No Triton reads it, so nothing waits for the next second that it would notice.
    return Repository(ObjectStorage(address, ObjectStore.at(address), tick_seconds=0))


@pytest.fixture(scope="session")
def crowds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden set with boxes enough for the gate, in few pictures."""
    return write_crowds(tmp_path_factory.mktemp("golden") / "crowds")


@pytest.fixture(scope="session")
def yolox_graphs(yolox_nano: Path) -> "dict[Precision, ContractGraph]":
    """YOLOX-nano in every precision; INT8 is calibrated with clips, and judged by crowds."""
    from modelops.preparation import converted, plain_graph
    from modelops.request import Request
    from modelops.source import Options, read_source

    plain = plain_graph(read_source(yolox_nano, Options()), Request())
    calibration = pictures_in(SHARED / "clips")
    return {to: converted(plain, to, calibration, lambda _: None) for to in ("fp32", "fp16", "int8")}


@pytest.fixture(scope="session")
def crowd_reports(
    yolox_nano: Path, yolox_graphs: "dict[Precision, ContractGraph]", crowds: Path
) -> "dict[str, GateReport]":
    """What the gate finds for YOLOX-nano: every precision, and a graph that swaps two colours; one replay."""
    from modelops import gate
    from modelops.graph import PixelFacts, build
    from modelops.network import load
    from modelops.reference import Reference
    from modelops.sighting import answer_of
    from modelops.source import Options, read_source

    source, plain = read_source(yolox_nano, Options()), yolox_graphs["fp32"]
    swapped = build(load(yolox_nano), PixelFacts("rgb", "255"), height=plain.height, width=plain.width)
    graphs = {"colours swapped": swapped} | {str(name): graph for name, graph in yolox_graphs.items()}
    replayed = gate.replay(
        pictures_in(crowds),
        Reference(yolox_nano, source.pixels, height=plain.height, width=plain.width),
        {name: answer_of(graph) for name, graph in graphs.items()},
        height=plain.height,
        width=plain.width,
        resize=plain.resize,
        nms_in_graph=plain.nms_in_graph,
        labels=source.labels,
    )
    thresholds = {str(name): threshold for name, threshold in gate.THRESHOLDS.items()}
    return {name: tally.report(thresholds.get(name, 0.98)) for name, tally in replayed.tallies.items()}


@pytest.fixture
def run_python() -> Iterator["PythonRunner"]:
    """Start scripts in processes of their own; whatever still runs at the end is killed."""
    runner = PythonRunner()
    yield runner
    for process in runner.processes:
        process.kill()
        process.communicate()


class PythonRunner:
    """Starts `python -c script`; output is text."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process
