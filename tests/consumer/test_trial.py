"""Recordings under a rollout, on a real Triton: who answers, with whose labels, and what a trial may cost."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from consumer import detector as detector_module
from consumer import look as look_module
from consumer.analysis import Analysis
from consumer.breaker import FAILURES, Breaker
from consumer.comparison import Comparison, Trial
from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import ContractError, InferenceFailed
from consumer.look import Look
from consumer.media import FileMedia
from consumer.report import Stopwatch
from consumer.rollout import Candidate, Mode, Rollout, bucket_percent
from consumer.trial import PAUSED, look_at_event, look_at_file
from modelops.embedded import EmbeddedTriton
from tests import planted
from tests.planted import Planted

LOOK = Look(predictions=3, score_threshold=0.3, nms_iou=0.45)
EIGHTY = [f"class-{number}" for number in range(79)] + ["car"]
ONE_BOX = (10.0, 10.0, 40.0, 40.0)
CAR_OF_80, CAR_OF_3 = (*ONE_BOX, 0.9, 79), (*ONE_BOX, 0.8, 1)

FLEET = {
    1: Planted(EIGHTY, [CAR_OF_80, (50.0, 10.0, 90.0, 50.0, 0.7, 3)]),
    2: Planted(["bus", "car", "van"], [CAR_OF_3, (10.0, 45.0, 30.0, 60.0, 0.5, 0)]),
    3: Planted(["bus", "car", "van"], [CAR_OF_3], broken=True),
    4: Planted(["bus", "car", "van"], [CAR_OF_3], busy=8_000),
    5: Planted(["bus", "car", "van"], [(*ONE_BOX, 0.9, -1), (*ONE_BOX, 0.9, 3_000_000_000), CAR_OF_3]),
}
LIVE = Rollout(generation=1, live=1)


class Fleet:
    """One Triton with planted versions, whose rollout a test changes as a rollout does."""

    def __init__(self, repository: Path, server: EmbeddedTriton) -> None:
        self.repository, self.server = repository, server
        self.generation = 1

    def roll_out(self, live: int, candidate: Candidate | None = None) -> Rollout:
        self.generation += 1
        rollout = Rollout(self.generation, live, candidate=candidate)
        planted.write_companion(self.repository, FLEET, rollout)
        planted.load(self.server.http_url, "yolo-rollout")
        return rollout

    def unload(self, version: int) -> None:
        planted.remove_version(self.repository, version)
        planted.load(self.server.http_url, "yolo")

    def bring_back(self, version: int) -> None:
        planted.add_version(self.repository, version, FLEET[version])
        planted.load(self.server.http_url, "yolo")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    repository = tmp_path_factory.mktemp("fleet") / "repository"
    planted.write_repository(repository, FLEET, LIVE)
    with EmbeddedTriton.start(repository) as server:
        yield Fleet(repository, server)


@pytest.fixture
def detector(fleet: Fleet) -> Iterator[TritonDetector]:
    with TritonDetector(TritonEndpoint(fleet.server.grpc_url, "yolo")) as connected:
        yield connected


def look(
    detector: TritonDetector, clip: Path, key: str = "cam/1.mp4", breaker: Breaker | None = None
) -> tuple[Analysis, Trial]:
    analysis, trial = look_at_event(
        FileMedia(clip), detector, LOOK, Stopwatch(), breaker or Breaker(), source="", key=key
    )
    assert trial is not None
    return analysis, trial


def compared(detector: TritonDetector, clip: Path) -> tuple[Analysis, Comparison]:
    analysis, trial = look(detector, clip)
    assert trial.comparison is not None
    return analysis, trial.comparison


def labels(analysis: Analysis) -> set[str]:
    return {found.label for frame in analysis.frames for found in frame.detections}


def test_without_a_trial_the_live_version_answers_and_nothing_is_compared(
    fleet: Fleet, detector: TritonDetector, clip: Path
) -> None:
    rollout = fleet.roll_out(live=1)
    analysis, trial = look(detector, clip)
    assert (analysis.model_version, analysis.model_digest) == ("1", FLEET[1].digest)
    assert trial == Trial(rollout)


def test_labels_are_those_of_the_version_that_answered(
    fleet: Fleet, detector: TritonDetector, clip: Path
) -> None:
    fleet.roll_out(live=1)
    before, _ = look(detector, clip)
    fleet.roll_out(live=2)
    detector.read_rollout()
    after, _ = look(detector, clip)
    assert (before.model_version, labels(before)) == ("1", {"car", "class-3"})
    assert (after.model_version, labels(after)) == ("2", {"car", "bus"})


def test_a_shadow_sees_the_same_frames_and_the_live_version_answers(
    fleet: Fleet, detector: TritonDetector, clip: Path
) -> None:
    rollout = fleet.roll_out(1, Candidate(2, "shadow", 100.0))
    analysis, comparison = compared(detector, clip)
    assert (analysis.model_version, labels(analysis)) == ("1", {"car", "class-3"})
    assert (comparison.mode, comparison.generation) == ("shadow", rollout.generation)
    assert (comparison.live.version, comparison.candidate.version) == (1, 2)
    assert (comparison.live.digest, comparison.candidate.digest) == (FLEET[1].digest, FLEET[2].digest)
    assert (comparison.frames, comparison.matched) == (3, 3)
    assert (comparison.live.boxes, comparison.candidate.boxes) == (3, 3), "only `car` is known to both"
    assert comparison.live.labels == {"car": 3, "class-3": 3}
    assert comparison.candidate.labels == {"car": 3, "bus": 3}
    assert comparison.iou_sum == pytest.approx(3.0)
    assert comparison.score_drift_sum == pytest.approx(0.3)
    assert min(comparison.live.seconds, comparison.candidate.seconds) > 0
    assert comparison.failed is None


def test_a_canary_answers_and_the_live_version_sees_the_same_frames(
    fleet: Fleet, detector: TritonDetector, clip: Path
) -> None:
    fleet.roll_out(1, Candidate(2, "canary", 100.0))
    analysis, comparison = compared(detector, clip)
    assert (analysis.model_version, labels(analysis)) == ("2", {"car", "bus"})
    assert (comparison.live.version, comparison.candidate.version) == (1, 2)
    assert comparison.live.labels == {"car": 3, "class-3": 3}
    assert comparison.candidate.labels == {"car": 3, "bus": 3}
    assert comparison.matched == 3


def test_only_the_recordings_of_the_share_are_on_trial(
    fleet: Fleet, detector: TritonDetector, clip: Path
) -> None:
    fleet.roll_out(1, Candidate(2, "canary", 50.0))
    keys = [f"cam/{number}.mp4" for number in range(12)]
    versions = {key: look(detector, clip, key)[0].model_version for key in keys}
    assert versions == {key: "2" if bucket_percent("", key) < 50 else "1" for key in keys}
    assert set(versions.values()) == {"1", "2"}


def test_a_shadow_that_fails_costs_the_recording_nothing(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(1, Candidate(3, "shadow", 100.0))
    analysis, comparison = compared(detector, clip)
    assert (analysis.outcome, analysis.model_version, len(analysis.frames)) == ("done", "1", 3)
    assert comparison.failed == "inference_failed"
    assert (comparison.frames, comparison.matched, comparison.live.boxes) == (0, 0, 0)


def test_a_shadow_that_is_slow_is_not_waited_for(
    fleet: Fleet, clip: Path, detector: TritonDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "PATIENCE_SECONDS", 0.2)  # version 4 takes seconds
    fleet.roll_out(1, Candidate(4, "shadow", 100.0))
    analysis, comparison = compared(detector, clip)
    assert (analysis.outcome, analysis.model_version, len(analysis.frames)) == ("done", "1", 3)
    assert comparison.failed == "timeout"


def test_a_shadow_that_is_gone_costs_the_recording_nothing(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(1, Candidate(2, "shadow", 100.0))
    fleet.unload(2)
    try:
        analysis, comparison = compared(detector, clip)
    finally:
        fleet.bring_back(2)
    assert (analysis.outcome, analysis.model_version) == ("done", "1")
    assert comparison.failed == "model_changed"


def test_a_canary_that_fails_is_answered_by_the_live_version(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(1, Candidate(3, "canary", 100.0))
    analysis, comparison = compared(detector, clip)
    assert (analysis.outcome, analysis.model_version) == ("done", "1")
    assert labels(analysis) == {"car", "class-3"}
    assert comparison.failed == "inference_failed"


def test_a_canary_that_is_gone_is_answered_by_the_live_version(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(1, Candidate(2, "canary", 100.0))
    fleet.unload(2)
    try:
        analysis, comparison = compared(detector, clip)
    finally:
        fleet.bring_back(2)
    assert analysis.model_version == "1"
    assert comparison.failed == "model_changed"


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_candidate_that_answers_garbage_costs_no_recording(
    fleet: Fleet, clip: Path, detector: TritonDetector, mode: Mode
) -> None:
    fleet.roll_out(1, Candidate(5, mode, 100.0))
    analysis, comparison = compared(detector, clip)
    assert analysis.outcome == "done"
    assert comparison.candidate.labels == {"car": 3}, "rows of an impossible class are no detections"


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_candidate_that_goes_on_failing_is_not_asked_any_more(
    fleet: Fleet, clip: Path, detector: TritonDetector, mode: Mode
) -> None:
    fleet.roll_out(1, Candidate(3, mode, 100.0))
    breaker, failed = Breaker(), []
    for _ in range(FAILURES + 2):
        analysis, trial = look(detector, clip, breaker=breaker)
        assert (analysis.model_version, labels(analysis)) == ("1", {"car", "class-3"})
        assert trial.comparison is not None
        failed.append(trial.comparison.failed)
    assert failed == ["inference_failed"] * FAILURES + [PAUSED] * 2


def test_a_canary_that_hangs_costs_recordings_its_time_a_few_times_only(fleet: Fleet, clip: Path) -> None:
    fleet.roll_out(1, Candidate(4, "canary", 100.0))
    breaker, failed = Breaker(), []
    with TritonDetector(TritonEndpoint(fleet.server.grpc_url, "yolo", timeout_seconds=0.5)) as hurried:
        for _ in range(FAILURES + 1):
            analysis, trial = look(hurried, clip, breaker=breaker)
            assert (analysis.outcome, analysis.model_version) == ("done", "1")
            assert trial.comparison is not None
            failed.append(trial.comparison.failed)
    assert failed == ["triton_away"] * FAILURES + [PAUSED]


def test_a_live_version_that_fails_is_the_recordings_own_failure(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(3)
    with pytest.raises(InferenceFailed):
        look(detector, clip)


def test_a_recording_keeps_the_version_that_it_started_with(fleet: Fleet, detector: TritonDetector) -> None:
    fleet.roll_out(1)
    detector.read_rollout()

    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        for number in range(24):
            if number == 12:
                fleet.roll_out(2)
                assert detector.read_rollout().live == 2
            yield np.zeros((planted.HEIGHT * 3 // 2, planted.WIDTH), np.uint8)

    assert [answer.model_version for answer in detector.detect(frames())] == ["1"] * 24


def test_a_version_that_was_swapped_meanwhile_is_not_missed_by_the_recording(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(2)
    assert look(detector, clip)[0].model_version == "2"
    fleet.roll_out(1)
    fleet.unload(2)
    try:
        # What the detector holds is not old enough to be read anew, and names a version that is gone.
        assert look(detector, clip)[0].model_version == "1"
    finally:
        fleet.bring_back(2)


def test_a_rollout_that_names_a_version_nobody_serves_says_so(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(2)
    fleet.unload(2)
    try:
        with pytest.raises(ContractError, match=r"version 2 .* generation \d+ of the rollout names it.*load"):
            look(detector, clip)
    finally:
        fleet.bring_back(2)


def test_a_rollout_that_cannot_be_read_now_does_not_fail_a_recording(
    fleet: Fleet, clip: Path, detector: TritonDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = fleet.roll_out(1)
    look(detector, clip)
    monkeypatch.setattr(detector_module, "ROLLOUT_REFRESH_SECONDS", 0.0)
    planted.unload(fleet.server.http_url, "yolo-rollout")
    try:
        analysis, trial = look(detector, clip)
    finally:
        planted.load(fleet.server.http_url, "yolo-rollout")
    assert (analysis.model_version, trial.rollout) == ("1", rollout)


def test_a_change_of_the_rollout_is_seen_without_a_restart(
    fleet: Fleet, clip: Path, detector: TritonDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "ROLLOUT_REFRESH_SECONDS", 600.0)
    fleet.roll_out(1)
    look(detector, clip)
    fleet.roll_out(2)
    assert look(detector, clip)[0].model_version == "1", "not at every recording: Triton has better to do"
    monkeypatch.setattr(detector_module, "ROLLOUT_REFRESH_SECONDS", 0.0)
    assert look(detector, clip)[0].model_version == "2"


def test_a_file_is_looked_at_by_the_live_version_whatever_is_on_trial(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(1, Candidate(2, "canary", 100.0))
    assert look_at_file(FileMedia(clip), detector, LOOK, Stopwatch()).model_version == "1"


def test_a_file_is_looked_at_by_the_version_that_is_asked_for(
    fleet: Fleet, clip: Path, detector: TritonDetector
) -> None:
    fleet.roll_out(1)
    look_2 = Look(predictions=3, score_threshold=0.3, nms_iou=0.45, version=2)
    analysis = look_at_file(FileMedia(clip), detector, look_2, Stopwatch())
    assert (analysis.model_version, labels(analysis)) == ("2", {"car", "bus"})
