"""NVIDIA's builder in a child process: native code that may crash, hang or eat all memory on a graph.

The child's GPU memory is free again when it has ended, so that a server can try the plan on the same GPU.
"""

import importlib.util
import multiprocessing
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pebble

from consumer.errors import SetupError
from modelops.tensorrt_builder import BuildRequest, BuiltPlan, Refusal, TensorRT, missing

TIME_LIMIT_SECONDS = 3600.0
"""For one model: TensorRT times thousands of kernels on a slow GPU."""


@dataclass(frozen=True)
class BuilderAnswer:
    """What the builder made of a model, and the builder's version; empty where it died."""

    result: BuiltPlan | Refusal
    version: str


class BuilderProcess:
    """Builds models one after the other; the child is replaced when it dies. Use it as a context manager.

    Args:
        module: the Python module of the builder, one of BUILD_MODULES or CHECK_MODULE.
        time_limit_seconds: for one model.

    Raises:
        SetupError: the module is not installed.
    """

    def __init__(self, module: str, *, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> None:
        if importlib.util.find_spec(module) is None:
            raise SetupError(missing(module))
        self._module, self._time_limit_seconds = module, time_limit_seconds
        self._pool = _new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble types most of its calls, not this one
        self._pool.join()

    def build(self, model: bytes, request: BuildRequest) -> BuilderAnswer:
        """Build a contract graph; a builder that dies on it has refused it.

        Raises:
            SetupError: the builder does not load, the request is not possible, or it took too long.
        """
        if not self._pool.active:
            self._pool = _new_pool()
        future = self._pool.schedule(
            _build, args=(self._module, model, request), timeout=self._time_limit_seconds
        )
        try:
            return future.result()
        except TookTooLong as error:
            raise SetupError(
                f"TensorRT's builder was not done after {self._time_limit_seconds:.0f} seconds: "
                "run it on a machine that has more time or processors."
            ) from error
        except pebble.ProcessExpired as error:
            died = (
                f"TensorRT's builder died on this model (exit code {error.exitcode}): "
                "it has a fault there, or the machine too little memory."
            )
            return BuilderAnswer(Refusal((died,)), "")


def _build(module: str, model: bytes, request: BuildRequest) -> BuilderAnswer:
    trt = TensorRT.load(module)
    return BuilderAnswer(trt.build(model, request), trt.version)


def _new_pool() -> pebble.ProcessPool:
    # Spawned: a fork would take threads and locks of the program along.
    return pebble.ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn"))
