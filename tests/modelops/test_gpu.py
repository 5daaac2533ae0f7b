"""Which GPU a plan would be built for."""

import os
import subprocess
import sys

SCRIPT = "from modelops.gpu import first_gpu; print(first_gpu())"


def test_a_gpu_that_cuda_does_not_show_is_none() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "None"
