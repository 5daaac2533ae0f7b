"""Comparison: what two versions of a model found in the same frames of one recording.

Its JSON, as it goes to the diff topic, is described in docs/messages.md.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from consumer.agreement import Agreement
from consumer.contract import ModelVersion
from consumer.messages import OutgoingMessage
from consumer.rollout import Mode, Rollout, to_mode


@dataclass(frozen=True)
class Side:
    """One of the two versions.

    version: its number.
    digest: of its source model.
    boxes: those found under a label that both versions know; they alone can match.
    labels: how many boxes it found of each label, all of them.
    seconds: that its requests took at Triton, the queue and the wire included.
    """

    version: int
    digest: str
    boxes: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", dict(self.labels))  # dataclasses.asdict spoils a Counter


@dataclass(frozen=True)
class Comparison:
    """The live version and the candidate on the same frames of one recording.

    id: the same for every replay of the recording in the same state of the rollout.
    source, key: the recording, as its event says.
    mode, generation: of the rollout.
    model: its name.
    live, candidate: what each found.
    frames: that both have looked at.
    matched: pairs of boxes with the same label and an IoU of at least 0.5.
    iou_sum, score_drift_sum: over those pairs.
    failed: None, or why there is nothing to compare; then all counts are 0.
    """

    id: str
    source: str
    key: str
    mode: Mode
    generation: int
    model: str
    live: Side
    candidate: Side
    frames: int = 0
    matched: int = 0
    iou_sum: float = 0.0
    score_drift_sum: float = 0.0
    failed: str | None = None

    @property
    def agreement(self) -> Agreement:
        """The same counts, to be added up over recordings; the live version is the reference."""
        return Agreement(
            frames=self.frames,
            reference_boxes=self.live.boxes,
            other_boxes=self.candidate.boxes,
            matched=self.matched,
            iou_sum=self.iou_sum,
            score_drift_sum=self.score_drift_sum,
            reference_labels=Counter(self.live.labels),
            other_labels=Counter(self.candidate.labels),
        )

    def to_json(self) -> str:
        """Return the comparison as one line of JSON: the value of a message of the diff topic."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Comparison":
        """Return the comparison that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            fields = json.loads(text)
            return cls(
                id=str(fields["id"]),
                source=str(fields["source"]),
                key=str(fields["key"]),
                mode=to_mode(fields["mode"]),
                generation=int(fields["generation"]),
                model=str(fields["model"]),
                live=_side(fields["live"]),
                candidate=_side(fields["candidate"]),
                frames=int(fields["frames"]),
                matched=int(fields["matched"]),
                iou_sum=float(fields["iou_sum"]),
                score_drift_sum=float(fields["score_drift_sum"]),
                failed=None if fields["failed"] is None else str(fields["failed"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a comparison: {error!r}") from error

    def to_message(self) -> OutgoingMessage:
        """Return the message of the diff topic; its key is the id, so that a replay is an upsert."""
        return OutgoingMessage(
            key=self.id.encode(), value=self.to_json().encode("utf-8", "backslashreplace"), headers=[]
        )


@dataclass(frozen=True)
class Trial:
    """What the rollout made of one recording: the state that it was looked at in, and what was compared."""

    rollout: Rollout
    comparison: Comparison | None = None


def comparison_id(source: str, key: str, generation: int, live: ModelVersion, candidate: ModelVersion) -> str:
    """Return the id of a comparison: SHA-256 in hex over these five."""
    identity = [source, key, generation, live.digest, candidate.digest]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _side(fields: Mapping[str, Any]) -> Side:
    return Side(
        version=int(fields["version"]),
        digest=str(fields["digest"]),
        boxes=int(fields["boxes"]),
        labels={str(label): int(count) for label, count in fields["labels"].items()},
        seconds=float(fields["seconds"]),
    )
