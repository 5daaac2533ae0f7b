"""Writes the table of layouts and precisions into docs/models.md; start it with scripts/model-table.

Every layout is made of YOLOX-nano's real weights (tests/modelops/layouts.py); darknet is YOLOv3-tiny.
Every figure comes from the parts that an export uses: the same gate, the same conversions, NVIDIA's builder.
"""

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime

from consumer.contract import INPUT_NAME, OUTPUT_NAME
from consumer.errors import SetupError
from modelops import catalogue, gate
from modelops.answers import open_session
from modelops.coco import COCO_LABELS
from modelops.golden import GoldenSet, pictures_in
from modelops.graph import ContractGraph
from modelops.preparation import converted, plain_graph
from modelops.provenance import GateReport, Precision
from modelops.reference import Reference
from modelops.request import Request
from modelops.source import Options, Source, read_source
from modelops.tensorrt_check import Checker
from tests.modelops.golden_material import SHARED, write_crowds
from tests.modelops.layouts import LAYOUTS, OWN_SIZE, resize_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- scripts/model-table: begin -->", "<!-- scripts/model-table: end -->"

DARKNET = "darknet"
SOURCES = (*LAYOUTS, DARKNET)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
HEAD = (
    "layout", "precision", "model.onnx, MB", "gate", "recall", "precision of boxes", "mean IoU",
    "score drift", "ms a frame", "TensorRT",
)  # fmt: skip

_RUNS = 50


@dataclass(frozen=True)
class Row:
    """One layout in one precision; refused: why it cannot be had, and then there are no figures."""

    layout: str
    precision: Precision
    refused: str | None = None
    size_bytes: int = 0
    report: GateReport | None = None
    milliseconds: float = 0.0
    accepted: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        if self.report is None:
            return self.layout, self.precision, *["-"] * (len(HEAD) - 3), self.refused or "-"
        figures = self.report.fair
        return (
            self.layout,
            self.precision,
            f"{self.size_bytes / 1e6:.1f}",
            "passed" if self.report.passed else "NOT passed",
            *("-" if each is None else f"{each:.3f}" for each in (figures.recall, figures.precision)),
            *("-" if each is None else f"{each:.3f}" for each in (figures.mean_iou, figures.score_drift)),
            f"{self.milliseconds:.0f}",
            "accepts" if self.accepted else "refuses",
        )


def measure() -> Iterator[Row]:
    """Yield every layout in every precision, in the order of the table."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        golden = pictures_in(write_crowds(directory / "crowds"))
        checker = stack.enter_context(Checker())
        for layout in SOURCES:
            path, source = _source(layout, directory)
            yield from _rows(layout, path, source, golden, checker)


def render(rows: Sequence[Row]) -> str:
    """Return the table with a sentence on where it was made."""
    reports = [row.report for row in rows if row.report is not None]
    boxes = sorted(report.boxes for report in reports)
    table = [HEAD, tuple("---" for _ in HEAD), *(row.cells for row in rows)]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return (
        f"Made by `scripts/model-table` on {_machine()}, with ONNX Runtime {onnxruntime.__version__}. The "
        f"golden set is {reports[0].frames} pictures: people of a shared clip, nine to a picture, and the "
        f"shared photo, with {boxes[0]} to {boxes[-1]} boxes. `ms a frame` is one frame in ONNX Runtime on "
        f"one core, the median of {_RUNS} runs.\n\n{lines}\n"
    )


def put_into(document: str, table: str) -> str:
    """Return the document with the table between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def _source(layout: str, directory: Path) -> tuple[Path, Source]:
    if layout == DARKNET:
        path = catalogue.fetch("yolov3_tiny").path
        return path, read_source(path, Options())
    path = directory / f"{layout}.onnx"
    onnx.save(LAYOUTS[layout](onnx.load(catalogue.fetch("yolox_nano").path)), path)
    names = directory / "coco.names"
    names.write_text("\n".join(COCO_LABELS) + "\n")
    options = Options(colour="bgr", scale="255", resize=resize_of(layout), labels=names)
    return path, read_source(path, options)


def _rows(layout: str, path: Path, source: Source, golden: GoldenSet, checker: Checker) -> Iterator[Row]:
    plain = plain_graph(source, Request(size=OWN_SIZE.get(layout)))
    graphs: dict[Precision, ContractGraph] = {}
    refused: dict[Precision, str] = {}
    calibration = pictures_in(SHARED / "clips")
    for precision in PRECISIONS:
        try:
            graphs[precision] = converted(plain, precision, calibration, lambda _: None)
        except SetupError as error:
            refused[precision] = str(error)
    sessions = {precision: open_session(graph.model) for precision, graph in graphs.items()}
    replayed = gate.replay(
        golden,
        Reference(path, source.pixels, height=plain.height, width=plain.width, layout=source.layout),
        {precision: _answer(session) for precision, session in sessions.items()},
        height=plain.height,
        width=plain.width,
        resize=plain.resize,
        nms_in_graph=plain.nms_in_graph,
        labels=source.labels,
    )
    for precision in PRECISIONS:
        if precision in refused:
            yield Row(layout, precision, refused[precision])
            continue
        content = graphs[precision].model.SerializeToString()
        yield Row(
            layout,
            precision,
            size_bytes=len(content),
            report=replayed.tallies[precision].report(gate.THRESHOLDS[precision]),
            milliseconds=_milliseconds(graphs[precision]),
            accepted=checker.check(content, max_batch=Request().max_batch_size).accepted,
        )


def _answer(session: onnxruntime.InferenceSession) -> gate.Answer:
    return lambda frames: np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: frames})[0], np.float32)


def _milliseconds(graph: ContractGraph) -> float:
    """CPU time of one frame on one core: what else runs on the machine counts for little."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    frame = np.random.default_rng(0).integers(0, 256, (1, graph.height * 3 // 2, graph.width), np.uint8)
    taken = []
    for _ in range(_RUNS + 5):
        began = time.thread_time()
        session.run([OUTPUT_NAME], {INPUT_NAME: frame})
        taken.append((time.thread_time() - began) * 1e3)
    return statistics.median(taken[5:])


def _machine() -> str:
    fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    names = [value.strip() for key, _, value in fields if key.strip() == "model name"]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure, and write the table into the document."""
    rows = []
    for row in measure():
        rows.append(row)
        print(" | ".join(row.cells), file=sys.stderr, flush=True)  # noqa: T201 - a program for a person
    DOCUMENT.write_text(put_into(DOCUMENT.read_text(), render(rows)))


if __name__ == "__main__":
    main()
