"""What the tests of the model side share: a real detector, a real photo, processes that are cleaned up."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from modelops import catalogue

PHOTO = Path(__file__).parents[2].parent / "shared" / "data" / "photos" / "dog.jpg"


@pytest.fixture(scope="session")
def yolox_nano() -> Path:
    return catalogue.fetch("yolox_nano").path


@pytest.fixture(scope="session")
def dog() -> npt.NDArray[np.uint8]:
    """A dog, a bicycle and a car: uint8 [h, w, 3], BGR."""
    picture = cv2.imread(str(PHOTO))
    assert picture is not None, (
        f"The photo {PHOTO} is missing: this test needs ../shared beside the checkout."
    )
    return picture.astype(np.uint8)


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
