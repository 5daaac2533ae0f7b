"""Report: what one try at a recording came to, and its way as JSON from the worker to the main process."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from consumer import errors
from consumer.analysis import Analysis
from consumer.comparison import Comparison, Trial
from consumer.errors import BrokerAway, ContractError, Outage, RecordingError, Unforeseen, VaultMLError
from consumer.rollout import Rollout
from consumer.tally import Requests

_TOLD_BY_WORKERS: Mapping[str, type[VaultMLError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, Outage | RecordingError | ContractError)
    and not issubclass(kind, BrokerAway)
}
"""What a worker may report, by name: it has nothing to do with Kafka or with our settings."""


@dataclass(frozen=True)
class Costs:
    """What a try took: seconds by stage (`download`, `decode`, `inference`), bytes downloaded, requests."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes_downloaded: int = 0
    requests: Requests = field(default_factory=Requests)


@dataclass(frozen=True)
class Report:
    """Either an analysis or an error, what it took, and what the rollout made of an analysis."""

    result: Analysis | VaultMLError
    costs: Costs
    trial: Trial | None = None

    def to_json(self) -> str:
        """Return the report as one line of JSON; an error travels as its class and its sentence."""
        if isinstance(self.result, Analysis):
            result = {"analysis": self.result.to_json()}
        else:
            result = {"error": _public_name(type(self.result)), "sentence": str(self.result)}
        costs = {
            "seconds": self.costs.seconds,
            "bytes": self.costs.bytes_downloaded,
            "requests": self.costs.requests.to_json(),
        }
        trial = None
        if self.trial is not None:
            comparison = self.trial.comparison
            trial = {
                "rollout": self.trial.rollout.to_json(),
                "comparison": None if comparison is None else comparison.to_json(),
            }
        return json.dumps(result | {"costs": costs, "trial": trial}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Return the report that `to_json` wrote; of what it cannot have written, that a worker failed.

        A worker decodes files of strangers: whatever it says must cost its recording, not the main process.
        """
        try:
            return _report(json.loads(text))
        # ValueError: no JSON. The others: not of this form, or deeper than anything of it.
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            return cls(Unforeseen(f"A worker's answer is no report ({type(error).__name__})."), Costs())


def _report(fields: dict[str, Any]) -> Report:
    took = fields["costs"]
    seconds = {str(stage): float(spent) for stage, spent in took["seconds"].items()}
    costs = Costs(seconds, int(took["bytes"]), Requests.from_json(took["requests"]))
    if "analysis" in fields:
        return Report(Analysis.from_json(fields["analysis"]), costs, _trial(fields["trial"]))
    kind = _TOLD_BY_WORKERS.get(fields["error"])
    if kind is None:
        return Report(
            Unforeseen(f"A worker's answer is an error of another kind: {str(fields['error'])[:80]}."), costs
        )
    return Report(kind(str(fields["sentence"])), costs)


def _trial(fields: dict[str, str | None] | None) -> Trial | None:
    if fields is None:
        return None
    comparison = fields["comparison"]
    return Trial(
        Rollout.from_json(fields["rollout"] or ""),
        None if comparison is None else Comparison.from_json(comparison),
    )


def _public_name(kind: type[VaultMLError]) -> str:
    """Return the nearest class of consumer/errors.py: a module may refine one of them for itself."""
    return next(base.__name__ for base in kind.__mro__ if base.__module__ == errors.__name__)


class Stopwatch:
    """Adds up seconds by stage while a recording is worked on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` for that stage, also when it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count that many seconds for a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
