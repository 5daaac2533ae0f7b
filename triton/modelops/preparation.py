"""Preparation: from a detector's file to the contract graph that may be published, in its precision."""

from collections.abc import Callable
from pathlib import Path

from consumer.errors import SetupError
from modelops import precision, quantization
from modelops.batches import check_batches
from modelops.golden import GoldenSet, pictures_in
from modelops.graph import ContractGraph, build
from modelops.provenance import Precision
from modelops.request import Request
from modelops.source import Source, read_source, readings, weigh

_MOST_EVIDENCE = 4


def settled(path: Path, request: Request, golden: GoldenSet) -> Source:
    """Read the source; where it can be read in several ways, say what each finds on a golden picture.

    Raises:
        SetupError: it cannot be read, or not all that must be known of it is known.
    """
    try:
        return read_source(path, request.options)
    except SetupError as error:
        found = readings(path, request.options)
        picture = next(golden.some_pictures(1), None)
        if picture is None or (len(found) == 1 and found[0].certain):
            raise
        evidence = weigh(path, found, picture.bgr, size=request.size)
        telling = [each for each in evidence if each.boxes][:_MOST_EVIDENCE]
        seen = "; ".join(map(str, telling)) or "nothing in any of these ways"
        raise SetupError(f"{error} On {picture.name} it finds: {seen}.") from error


def plain_graph(source: Source, request: Request) -> ContractGraph:
    """Wrap the network into the contract graph, in FP32, and prove that batches work.

    Raises:
        SetupError: it cannot be wrapped, the labels are others, or frames of a batch get mixed up.
    """
    height, width = source.size(request.size)
    graph = build(
        source.model,
        source.pixels,
        height=height,
        width=width,
        max_detections=request.max_detections,
        layout=source.layout,
        labels=len(source.labels),
    )
    if len(source.labels) != graph.classes:
        raise SetupError(
            f"The network knows {graph.classes} classes, but there are {len(source.labels)} labels: "
            "give --labels FILE with one name a line, in class order."
        )
    check_batches(graph)
    return graph


def split(golden: GoldenSet, request: Request) -> tuple[GoldenSet, GoldenSet]:
    """Return what to calibrate with and what to judge by.

    Raises:
        SetupError: the folder to calibrate with holds neither photos nor clips.
    """
    if request.precision != "int8":
        return GoldenSet(), golden
    if request.calibration is not None:
        return pictures_in(request.calibration), golden
    return golden.split(quantization.CALIBRATION_PICTURES)


def converted(
    graph: ContractGraph, to: Precision, calibration: GoldenSet, say: Callable[[str], None]
) -> ContractGraph:
    """Bring the network to a precision, and prove once more that batches work.

    Raises:
        SetupError: it cannot be converted, or there is nothing to calibrate with.
    """
    if to == "fp32":
        return graph
    if to == "fp16":
        result = precision.to_fp16(graph)
    else:
        say("Calibrating, and measuring which layers bear INT8")
        pictures = calibration.some_pictures(quantization.CALIBRATION_PICTURES)
        frames = [
            each.network_frame(height=graph.height, width=graph.width, resize=graph.resize).i420
            for each in pictures
        ]
        result = quantization.to_int8(graph, frames)
    check_batches(result, to)
    return result
