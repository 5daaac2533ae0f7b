"""Whether TensorRT accepts a model: NVIDIA's own parser and builder, on a machine without a GPU.

TensorRT is native code that may crash or eat all memory on a graph it does not expect, so it works in a child
process, one model after the other.
"""

import importlib.util
import multiprocessing
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pebble

from consumer.errors import SetupError
from modelops.tensorrt_builder import CHECK_MODULE, Plan, Request, TensorRT, missing

CHECKED_COMPUTE_CAPABILITY = "8.9"
"""What is built for where there is no GPU (L4, RTX 40): TensorRT for RTX knows no 9.0."""

TIME_LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class CheckReport:
    """What NVIDIA's parser and builder say about a model.

    accepted: a plan was built; else `problems` says why not, one sentence each.
    layers: of the parsed network; 0 where it was not parsed.
    plan_bytes: size of the plan that was built, which is for TensorRT-RTX only.
    seconds: that parsing and building took.
    builder: its name and version.
    """

    accepted: bool
    problems: tuple[str, ...]
    layers: int
    plan_bytes: int
    seconds: float
    builder: str


class Checker:
    """Checks models in one child process, which is replaced when it dies; use it as a context manager.

    Args:
        level: how long the builder looks for a faster plan, 0 to 5. What it accepts does not depend on it.
        time_limit_seconds: for one model.
        module: the Python module of the builder.

    Raises:
        SetupError: the module is not installed.
    """

    def __init__(
        self, *, level: int = 0, time_limit_seconds: float = TIME_LIMIT_SECONDS, module: str = CHECK_MODULE
    ) -> None:
        if importlib.util.find_spec(module) is None:
            raise SetupError(missing(module))
        self._level, self._time_limit_seconds, self._module = level, time_limit_seconds, module
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble types most of its calls, not this one
        self._pool.join()

    def check(self, model: bytes | Path, *, max_batch: int) -> CheckReport:
        """Parse a contract graph and build it for batches of 1 to `max_batch` frames.

        Args:
            model: the ONNX file, or what is in it.
            max_batch: frames in the largest run.

        Raises:
            SetupError: the file cannot be read, or it took too long.
        """
        content = model if isinstance(model, bytes) else _read(model)
        request = Request(max_batch, compute_capability=CHECKED_COMPUTE_CAPABILITY, level=self._level)
        if not self._pool.active:
            self._pool = self._new_pool()
        future = self._pool.schedule(
            _check, args=(self._module, content, request), timeout=self._time_limit_seconds
        )
        try:
            return future.result()
        except TookTooLong as error:
            raise SetupError(
                f"TensorRT's builder was not done after {self._time_limit_seconds:.0f} seconds: "
                "run it on a machine that has more time or processors."
            ) from error
        except pebble.ProcessExpired as error:
            return CheckReport(
                accepted=False,
                problems=(
                    f"TensorRT's builder died on this model (exit code {error.exitcode}): "
                    "it has a fault there, or the machine too little memory.",
                ),
                layers=0, plan_bytes=0, seconds=0.0, builder=self._module,
            )  # fmt: skip

    @staticmethod
    def _new_pool() -> pebble.ProcessPool:
        # Spawned: a fork would take threads and locks of the program along.
        return pebble.ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn"))


def check(model: bytes | Path, *, max_batch: int, module: str = CHECK_MODULE) -> CheckReport:
    """Check one model, as `Checker.check` does.

    Raises:
        SetupError: the builder is not installed, the file cannot be read, or it took too long.
    """
    with Checker(module=module) as checker:
        return checker.check(model, max_batch=max_batch)


def _check(module: str, model: bytes, request: Request) -> CheckReport:
    trt = TensorRT.load(module)
    result = trt.build(model, request)
    built = result if isinstance(result, Plan) else None
    return CheckReport(
        accepted=built is not None,
        problems=() if isinstance(result, Plan) else result.problems,
        layers=built.layers if built else 0,
        plan_bytes=len(built.content) if built else 0,
        seconds=built.seconds if built else 0.0,
        builder=f"TensorRT-RTX {trt.version}",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from error
