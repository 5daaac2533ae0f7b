"""The table of layouts and precisions in docs/models.md is whole, and the script's own."""

import pytest

from modelops.provenance import Figures, GateReport
from tests.bench.model_table import BEGIN, DOCUMENT, END, HEAD, PRECISIONS, SOURCES, Row, put_into, render


def documented() -> list[tuple[str, ...]]:
    table = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]


def test_every_layout_stands_in_the_table_in_every_precision() -> None:
    head, _, *rows = documented()
    assert head == HEAD
    assert [row[:2] for row in rows] == [(layout, each) for layout in SOURCES for each in PRECISIONS]


def test_every_layout_of_the_table_passes_the_gate_and_is_accepted() -> None:
    for row in documented()[2:]:
        cells = dict(zip(HEAD, row, strict=True))
        assert (cells["gate"], cells["TensorRT"]) == ("passed", "accepts"), row


def report(recall: float) -> GateReport:
    figures = Figures(recall, 0.991, 0.98, 0.0041)
    return GateReport(
        frames=53, boxes=350, needed_boxes=300, score=0.35, partner_score=0.3, threshold=0.98,
        fair=figures, strict=figures,
    )  # fmt: skip


def test_a_row_says_what_was_measured() -> None:
    row = Row("yolox", "fp16", None, 1_906_000, report(0.9951), 27.6, accepted=True)
    assert row.cells == (
        "yolox", "fp16", "1.9", "passed", "0.995", "0.991", "0.980", "0.004", "28", "accepts",
    )  # fmt: skip
    assert Row("yolox", "fp16", report=report(0.9)).cells[3] == "NOT passed"
    assert Row("yolox", "int8", "No layer bears INT8.").cells == (
        "yolox", "int8", *["-"] * 7, "No layer bears INT8.",
    )  # fmt: skip


def test_only_what_stands_between_the_marks_is_written_anew() -> None:
    table = render([Row("yolox", "fp32", report=report(1.0), accepted=True)])
    written = put_into(f"before\n{BEGIN}\na row of yesterday\n{END}\nafter\n", table)
    assert written.startswith(f"before\n{BEGIN}\nMade by `scripts/model-table` on ")
    assert written.endswith(f"|\n{END}\nafter\n")
    assert "yesterday" not in written
    with pytest.raises(ValueError, match="the document has no"):
        put_into("no marks", table)
