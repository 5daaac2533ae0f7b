"""Whether TensorRT accepts a model: NVIDIA's own parser and builder, on a machine without a GPU."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from consumer.errors import SetupError
from modelops.builder_process import BuilderProcess
from modelops.tensorrt_builder import CHECK_MODULE, BuildRequest, BuiltPlan, Refusal

CHECKED_COMPUTE_CAPABILITY = "8.9"
"""What is built for where there is no GPU (L4, RTX 40): TensorRT for RTX knows no 9.0."""

TIME_LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class CheckReport:
    """What NVIDIA's parser and builder say about a model.

    accepted: a plan was built; else `problems` says why not, one sentence each.
    layers: of the parsed network; 0 where there is no plan.
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
    """Checks models one after the other, in a child process; use it as a context manager.

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
        self._level = level
        self._process = BuilderProcess(module, time_limit_seconds=time_limit_seconds)

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)

    def check(self, model: bytes | Path, *, max_batch: int) -> CheckReport:
        """Parse a contract graph and build it for batches of 1 to `max_batch` frames.

        Args:
            model: the ONNX file, or what is in it.
            max_batch: frames in the largest run.

        Raises:
            SetupError: the file cannot be read, or it took too long.
        """
        content = model if isinstance(model, bytes) else _read(model)
        request = BuildRequest(max_batch, compute_capability=CHECKED_COMPUTE_CAPABILITY, level=self._level)
        built = self._process.build(content, request)
        builder = f"TensorRT-RTX {built.version}".strip()
        match built.result:
            case Refusal(problems):
                return CheckReport(
                    accepted=False, problems=problems, layers=0, plan_bytes=0, seconds=0.0, builder=builder
                )
            case BuiltPlan() as plan:
                return CheckReport(
                    accepted=True,
                    problems=(),
                    layers=plan.layers,
                    plan_bytes=len(plan.content),
                    seconds=plan.seconds,
                    builder=builder,
                )


def check(model: bytes | Path, *, max_batch: int) -> CheckReport:
    """Check one model, as `Checker.check` does.

    Raises:
        SetupError: the builder is not installed, the file cannot be read, or it took too long.
    """
    with Checker() as checker:
        return checker.check(model, max_batch=max_batch)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from error
