"""The embedded server's files: complete or not there, and a clear sentence where something lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from consumer.errors import SetupError
from modelops import runtime


def test_the_stub_finds_all_its_libraries() -> None:
    prepared = runtime.prepare()

    assert (
        runtime.missing_libraries(
            prepared.backends / "python" / "triton_python_backend_stub", prepared.environment
        )
        == []
    )


def test_a_missing_libpython_is_seen_before_the_server_would_hang() -> None:
    server = runtime.prepare().server
    stub = server.parents[1] / "python_backend_stubs" / "3.8" / "triton_python_backend_stub"

    assert runtime.missing_libraries(stub, {}) == ["libpython3.8.so.1.0"]


def test_a_libpython_that_cannot_be_fetched_names_the_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"run `sudo apt-get install libpython3\.\d+` and try again"):
        runtime.fetch_debian_package("libpython3.11", tmp_path)


def test_a_package_that_debian_does_not_know_names_the_one_command(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"run `sudo apt-get install libpython3\.0` and try again"):
        runtime.fetch_debian_package("libpython3.0", tmp_path)


def test_a_failed_build_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    target = tmp_path / "runtime"

    def fails(directory: Path) -> None:
        (directory / "half").write_text("a")
        raise SetupError("no network")

    with pytest.raises(SetupError, match="no network"):
        runtime.build_atomically(target, fails)
    assert list(tmp_path.iterdir()) == []

    runtime.build_atomically(target, lambda directory: directory.joinpath("whole").touch())
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [target]


def test_the_second_of_two_builders_takes_what_the_first_built(tmp_path: Path) -> None:
    target = tmp_path / "runtime"

    def slower(directory: Path) -> None:
        runtime.build_atomically(target, lambda first: first.joinpath("first").touch())
        directory.joinpath("second").touch()

    runtime.build_atomically(target, slower)

    assert [path.name for path in target.iterdir()] == ["first"]


def test_nothing_of_the_caller_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    environment = runtime.prepare().environment

    assert "secret" not in environment.values()
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


_STAND_IN_WITH_A_BROKEN_EXCHANGE = """
import sys, types
import numpy as np

class TritonModelException(Exception): ...

class Tensor:
    def __init__(self, array): self.array = array
    @staticmethod
    def from_dlpack(name, capsule): return Tensor(np.full((2, 3, 4), {first}, dtype={dtype}))
    def __dlpack__(self, **options): return self.array.__dlpack__()
    def __dlpack_device__(self): return (1, 0)

sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(
    Tensor=Tensor, TritonModelException=TritonModelException
)
sys.path.insert(0, sys.argv[1])
import stand_in
try:
    stand_in.check_tensor_exchange()
except TritonModelException as error:
    print(error)
"""


@pytest.mark.parametrize("dtype", ["np.uint8", "np.float32"])
def test_a_numpy_that_changes_tensors_is_refused(dtype: str) -> None:
    # numpy 2 with this server's own as_numpy() repeats the first element: seen, and imitated here.
    script = _STAND_IN_WITH_A_BROKEN_EXCHANGE.format(first=0, dtype=dtype)
    finished = subprocess.run(
        [sys.executable, "-c", script, str(runtime.backend_sources())],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "do not exchange tensors correctly: a known uint8 tensor came back changed" in finished.stdout
