"""One recording under a rollout: which version answers, what is compared with it, and what if one fails."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from consumer.agreement import compare_frame, total
from consumer.analysis import Analysis
from consumer.breaker import Breaker
from consumer.comparison import Comparison, Side, Trial, comparison_id
from consumer.detector import TritonDetector
from consumer.errors import ContractError, InferenceFailed, ModelChanged, TritonAway, VaultMLError
from consumer.look import Look, Looked, Seen, look_once
from consumer.media import Media
from consumer.report import Stopwatch
from consumer.rollout import Assignment, Rollout, assign
from consumer.second_look import BEHIND

_log = structlog.get_logger("vault-ml.trial")

PAUSED = "paused"
"""Why a recording was not compared whose candidate was not asked."""

TRIES = 3
"""With versions that turn out not to be served; after each the rollout is read anew."""


def look_at_file(media: Media, detector: TritonDetector, look: Look, stopwatch: Stopwatch) -> Analysis:
    """Look at a local recording with the live version, or with the one that `look` names.

    Raises:
        RecordingError, ContractError, TritonAway: as `look_at_event`.
    """
    if media.size_bytes == 0:
        return Analysis.skipped("zero_bytes")

    def assigned(rollout: Rollout) -> Assignment:
        return Assignment(rollout.live if look.version is None else look.version)

    return _look(media, detector, look, stopwatch, assigned, breaker=Breaker()).looked.analysis


def look_at_event(
    media: Media,
    detector: TritonDetector,
    look: Look,
    stopwatch: Stopwatch,
    breaker: Breaker,
    *,
    source: str,
    key: str,
) -> tuple[Analysis, Trial | None]:
    """Look at an event's recording with the versions that the rollout has for it.

    It keeps the version that it starts with for all its frames. Where that one is no longer served, it begins
    again with the rollout as it is then. Where a canary's candidate fails, the live version answers; a
    candidate that has failed too often is not asked.

    Args:
        media: the recording.
        detector: knows the rollout.
        look: how it is looked at.
        stopwatch: counts the time by stage.
        breaker: says when a candidate is not to be asked.
        source, key: of the event.

    Raises:
        RecordingError: what is wrong with the recording, or with the server's answer to it.
        ContractError: also where the rollout names a version that is not served.
        TritonAway: see `TritonDetector.detect`.
    """
    if media.size_bytes == 0:
        return Analysis.skipped("zero_bytes"), None

    def assigned(rollout: Rollout) -> Assignment:
        return assign(rollout, source, key)

    outcome = _look(media, detector, look, stopwatch, assigned, breaker=breaker)
    if outcome.canary_failed is not None:
        _log.warning(
            "canary failed, the live version answers",
            key=key,
            version=outcome.assignment.version,
            why=str(outcome.canary_failed),
        )
    comparison = _comparison(outcome, detector, source, key)
    if comparison is not None and not outcome.paused:
        breaker.note(outcome.rollout, _failure_of_candidate(outcome, comparison))
    return outcome.looked.analysis, Trial(outcome.rollout, comparison)


@dataclass(frozen=True)
class _Outcome:
    """What was seen, in which state of the rollout; and why it was not a canary's candidate that answered.

    paused: the candidate was not asked, as it had failed too often.
    """

    looked: Looked
    rollout: Rollout
    assignment: Assignment
    canary_failed: VaultMLError | None = None
    paused: bool = False


def _look(
    media: Media,
    detector: TritonDetector,
    look: Look,
    stopwatch: Stopwatch,
    assigned: Callable[[Rollout], Assignment],
    *,
    breaker: Breaker,
) -> _Outcome:
    def once(version: int, compared: int | None = None) -> Looked:
        return look_once(media, detector, look, stopwatch, version=version, compared=compared)

    rollout = detector.rollout()
    missing: ModelChanged | None = None
    for _ in range(TRIES):
        assignment = assigned(rollout)
        paused = assignment.mode is not None and breaker.is_open(rollout)
        canary = assignment.mode == "canary" and not paused
        try:
            if paused:
                return _Outcome(once(rollout.live), rollout, assignment, paused=True)
            return _Outcome(once(assignment.version, assignment.compared), rollout, assignment)
        except ModelChanged as error:
            missing, rollout = error, detector.read_rollout()
            if canary and assigned(rollout) == assignment:
                return _Outcome(once(rollout.live), rollout, assignment, error)
        except (ContractError, InferenceFailed, TritonAway) as error:
            if not canary:
                raise
            return _Outcome(once(rollout.live), rollout, assignment, error)
    who = (
        f"generation {rollout.generation} of the rollout names it"
        if look.version is None
        else "it was asked for"
    )
    raise ContractError(
        f"{missing} But {who}: load it with 'vault-ml model load', or name another version."
    ) from missing


def _failure_of_candidate(outcome: _Outcome, comparison: Comparison) -> str | None:
    """Return why the candidate failed; None for what is no fault of it or costs nobody any time."""
    if outcome.canary_failed is not None:
        return outcome.canary_failed.reason
    if comparison.mode == "canary" or comparison.failed == BEHIND:
        return None
    return comparison.failed


def _comparison(outcome: _Outcome, detector: TritonDetector, source: str, key: str) -> Comparison | None:
    assignment, looked = outcome.assignment, outcome.looked
    if assignment.compared is None or assignment.mode is None:
        return None
    answered, compared = (
        detector.version(str(version)) for version in (assignment.version, assignment.compared)
    )
    of_answered = Seen(looked.analysis.frames, looked.seconds)
    of_compared = looked.compared or Seen()
    failed = of_compared.failed if outcome.canary_failed is None else outcome.canary_failed.reason
    if outcome.paused:
        failed = PAUSED
    if failed is not None:
        of_answered = of_compared = Seen()
    canary = assignment.mode == "canary"
    live, candidate = (compared, answered) if canary else (answered, compared)
    of_live, of_candidate = (of_compared, of_answered) if canary else (of_answered, of_compared)
    agreement = total(
        compare_frame(one.detections, other.detections, set(live.labels) & set(candidate.labels))
        for one, other in zip(of_live.frames, of_candidate.frames, strict=True)
    )
    return Comparison(
        id=comparison_id(source, key, assignment.generation, live, candidate),
        source=source,
        key=key,
        mode=assignment.mode,
        generation=assignment.generation,
        model=looked.analysis.model_name,
        live=Side(
            int(live.version),
            live.digest,
            agreement.reference_boxes,
            dict(agreement.reference_labels),
            of_live.seconds,
        ),
        candidate=Side(
            int(candidate.version),
            candidate.digest,
            agreement.other_boxes,
            dict(agreement.other_labels),
            of_candidate.seconds,
        ),
        frames=agreement.frames,
        matched=agreement.matched,
        iou_sum=agreement.iou_sum,
        score_drift_sum=agreement.score_drift_sum,
        failed=failed,
    )
