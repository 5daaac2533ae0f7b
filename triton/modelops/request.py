"""A request: everything that may be asked of an export beside the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consumer.contract import DEFAULT_MAX_DETECTIONS
from consumer.errors import SetupError
from modelops.limits import DEFAULT_MAX_BATCH_SIZE, LARGEST_SIDE_PIXELS, MOST_BATCH_SIZE, MOST_DETECTIONS
from modelops.provenance import Precision
from modelops.source import Options


@dataclass(frozen=True)
class Request:
    """What is asked for; a value out of its bounds is refused at once.

    size: height and width of the network's picture in pixels; None for the file's own where it must keep it,
        else the contract's default.
    options: what the file does not say.
    calibration: folder of photos and clips for INT8; None for other frames of the golden set.
    golden: folder of photos and clips that the result is judged by; None as modelops.golden.golden_set.
    max_batch_size: frames in one run of the model. max_detections: rows of the answer.

    Raises:
        SetupError: a value will not do.
    """

    size: tuple[int, int] | None = None
    precision: Precision = "fp32"
    options: Options = field(default_factory=Options)
    calibration: Path | None = None
    golden: Path | None = None
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    max_detections: int = DEFAULT_MAX_DETECTIONS

    def __post_init__(self) -> None:
        for name, value, most in (
            ("max-batch", self.max_batch_size, MOST_BATCH_SIZE),
            ("max-detections", self.max_detections, MOST_DETECTIONS),
        ):
            if not 1 <= value <= most:
                raise SetupError(f"--{name} {value} will not do: give 1 to {most}.")
        if self.size is not None and max(self.size) > LARGEST_SIDE_PIXELS:
            height, width = self.size
            raise SetupError(
                f"The size {height}x{width} will not do: at most {LARGEST_SIDE_PIXELS} pixels a side."
            )
        if self.calibration is not None and self.precision != "int8":
            raise SetupError("--calibration is for --precision int8: leave it out, or export in INT8.")

    def said(self) -> Mapping[str, str]:
        """Return the options that were given, for the provenance."""
        size = None if self.size is None else "x".join(map(str, self.size))
        every = {
            "size": size, "precision": self.precision, "layout": self.options.layout,
            "colour": self.options.colour, "scale": self.options.scale, "resize": self.options.resize,
            "labels": self.options.labels and self.options.labels.name,
            "max-batch": self.max_batch_size, "max-detections": self.max_detections,
        }  # fmt: skip
        return {name: str(value) for name, value in every.items() if value is not None}
