"""Provenance: where a version comes from, how it was made, and how it did against its source."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, Literal, TypeVar, cast

Precision = Literal["fp32", "fp16", "int8"]

T = TypeVar("T")


@dataclass(frozen=True)
class Figures:
    """How far an answer agrees with the source model; None where there was nothing to compare."""

    recall: float | None
    precision: float | None
    mean_iou: float | None
    score_drift: float | None
    """Mean |score difference| of the matched boxes."""


@dataclass(frozen=True)
class GateReport:
    """What the accuracy gate found (modelops/gate.py).

    frames: pictures that were replayed.
    boxes: of the source model with a score of at least `score`; each is a question to the answer.
    needed_boxes: fewer of them prove nothing.
    fair: figures by the rule that decides; a partner may score down to `partner_score`.
    strict: the same where a partner must have `score` too.
    threshold: recall and precision, by the fair rule, that a version needs.
    """

    frames: int
    boxes: int
    needed_boxes: int
    score: float
    partner_score: float
    threshold: float
    fair: Figures
    strict: Figures

    @property
    def enough_boxes(self) -> bool:
        """Whether there were boxes enough to judge by."""
        return self.boxes >= self.needed_boxes

    @property
    def passed(self) -> bool:
        """Whether recall and precision reach the threshold, over enough boxes."""
        reached = [figure is not None and figure >= self.threshold for figure in self._deciding]
        return self.enough_boxes and all(reached)

    @property
    def _deciding(self) -> tuple[float | None, float | None]:
        return self.fair.recall, self.fair.precision


@dataclass(frozen=True)
class File:
    """A file that took part: its name, `sha256:<hex>` and size in bytes."""

    name: str
    digest: str
    size_bytes: int = 0

    @classmethod
    def of(cls, name: str, content: bytes) -> "File":
        """Describe a file by its content."""
        return cls(name, f"sha256:{sha256(content).hexdigest()}", len(content))


@dataclass(frozen=True)
class Plan:
    """A TensorRT plan that was built for a version.

    compute_capability: of the GPU, like `8.9`. gate: its figures on the golden set, if it was replayed.
    max_batch_size: most frames in one run; 0 where it was not written down.
    """

    file: File
    gpu: str
    compute_capability: str
    tensorrt: str
    driver: str
    created: str = ""
    gate: GateReport | None = None
    max_batch_size: int = 0


@dataclass(frozen=True)
class Provenance:
    """Everything that is known about a version; `provenance.json` beside its model.

    source: the detector's file. graph: the exported model.onnx.
    height, width: of the network's picture in pixels. labels: how many names.
    options: what the user said, by the name of the option.
    golden: the files that the gate replayed. calibration: those that INT8 was calibrated with.
    gate: None where nothing was replayed; `gate_skipped` then says why.
    forced: published although the gate was not passed.
    checked_by: NVIDIA's builder that took the model, where it was asked (`--check`).
    kept_fp32: layers of the network that FP16 or INT8 left in FP32.
    tools: versions by package. created: ISO 8601, UTC.
    """

    source: File
    graph: File
    layout: str
    classes: int
    labels: int
    height: int
    width: int
    max_detections: int
    precision: Precision
    options: Mapping[str, str] = field(default_factory=dict)
    golden: tuple[File, ...] = ()
    calibration: tuple[File, ...] = ()
    gate: GateReport | None = None
    gate_skipped: str | None = None
    forced: bool = False
    checked_by: str | None = None
    kept_fp32: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    plans: tuple[Plan, ...] = ()

    def to_json(self) -> str:
        """Return it as JSON, indented for people."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Provenance":
        """Return what `to_json` wrote; keys that a later version added are left out.

        Raises:
            ValueError: it is no provenance.
        """
        try:
            read = json.loads(text)
            known = _known(cls, read)
            known["source"], known["graph"] = _made(File, read["source"]), _made(File, read["graph"])
            for name in ("golden", "calibration"):
                known[name] = tuple(_made(File, each) for each in read.get(name, ()))
            known["kept_fp32"] = tuple(map(str, read.get("kept_fp32", ())))
            known["gate"] = _gate(read.get("gate"))
            known["plans"] = tuple(_plan(each) for each in read.get("plans", ()))
            return cls(**known)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a provenance: {error!r}") from error


def _plan(read: dict[str, Any]) -> Plan:
    return Plan(**{**_known(Plan, read), "file": _made(File, read["file"]), "gate": _gate(read.get("gate"))})


def _gate(read: dict[str, Any] | None) -> GateReport | None:
    if read is None:
        return None
    figures = {name: _made(Figures, read[name]) for name in ("fair", "strict")}
    return GateReport(**{**_known(GateReport, read), **figures})


def _made(kind: type[T], read: dict[str, Any]) -> T:
    return kind(**_known(kind, read))


def _known(kind: type[Any], read: dict[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return cast(dict[str, Any], {name: value for name, value in read.items() if name in names})
