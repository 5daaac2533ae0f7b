"""Candidates for publishing: a planted detector with all that an export knows of one."""

from hashlib import sha256

import numpy as np

from modelops.candidate import MODEL_FILE, Candidate
from modelops.config_pbtxt import Served
from modelops.golden import GoldenAnswer
from modelops.provenance import File, Provenance
from tests import planted
from tests.planted import Planted

LABELS = ("cat", "dog", "cow")


def candidate(
    name: str = "yolo", *, width: int = planted.WIDTH, labels: tuple[str, ...] = LABELS
) -> Candidate:
    """A detector that finds one box of the first label, whatever it is shown."""
    served = Served(name, planted.HEIGHT, width, planted.MAX_DETECTIONS, max_batch_size=32)
    detector = Planted(labels, [(8, 8, 40, 40, 0.9, 0)])
    model = planted.model(detector)
    content = model.SerializeToString()
    provenance = Provenance(
        source=File("planted.onnx", detector.digest),
        graph=File(MODEL_FILE, f"sha256:{sha256(content).hexdigest()}", len(content)),
        layout="planted",
        classes=len(labels),
        labels=len(labels),
        height=planted.HEIGHT,
        width=width,
        max_detections=planted.MAX_DETECTIONS,
        precision="fp32",
    )
    frames = np.zeros((1, planted.HEIGHT * 3 // 2, planted.WIDTH), np.uint8)
    return Candidate(
        served,
        model,
        labels,
        detector.digest,
        provenance=provenance.to_json().encode(),
        golden=GoldenAnswer(frames, planted.rows_of(detector)).to_npz(),
    )
