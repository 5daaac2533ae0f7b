"""Candidates for publishing: a planted detector with what goes with it."""

from modelops.candidate import Candidate
from modelops.config_pbtxt import Served
from tests import planted
from tests.planted import Planted

LABELS = ("cat", "dog", "cow")


def candidate(
    name: str = "yolo", *, width: int = planted.WIDTH, labels: tuple[str, ...] = LABELS
) -> Candidate:
    """A detector that finds one box of the first label, whatever it is shown."""
    served = Served(name, planted.HEIGHT, width, max_detections=planted.MAX_DETECTIONS, max_batch_size=32)
    detector = Planted(labels, [(8, 8, 40, 40, 0.9, 0)])
    return Candidate(served, planted.model(detector), labels, detector.digest)
