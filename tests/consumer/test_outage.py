"""The outage gate tells an outage from one bad recording."""

import pytest

from consumer.errors import (
    ContractError,
    InferenceFailed,
    RecordingUnavailable,
    RecordingUndecodable,
    RecordingUnfinished,
    TritonAway,
    VaultAway,
    VaultMLError,
    WorkerDied,
)
from consumer.outage import DIFFERENT_RECORDINGS_IN_A_ROW, OutageGate


@pytest.mark.parametrize("error", [VaultAway("x"), TritonAway("x"), ContractError("x")])
def test_what_every_recording_needs_being_away_closes_the_gate_at_once(error: VaultMLError) -> None:
    gate = OutageGate()
    assert gate.failed("a", error, now=100.0)
    assert gate.closed
    assert gate.cause is error
    assert not gate.probe_due(100.0)
    assert gate.probe_due(101.0)


@pytest.mark.parametrize("kind", [RecordingUnavailable, InferenceFailed])
def test_different_recordings_failing_in_a_row_are_an_outage(kind: type[VaultMLError]) -> None:
    gate = OutageGate()
    verdicts = [gate.failed(f"recording {n}", kind("x"), 0.0) for n in range(DIFFERENT_RECORDINGS_IN_A_ROW)]
    assert verdicts == [False, False, True]
    assert gate.closed


def test_one_recording_failing_again_and_again_is_not_an_outage() -> None:
    gate = OutageGate()
    assert not any(gate.failed("the same", RecordingUnavailable("x"), float(n)) for n in range(20))
    assert not gate.closed


@pytest.mark.parametrize("error", [RecordingUnfinished("x"), RecordingUndecodable("x")])
def test_a_recording_at_fault_itself_shows_that_all_else_works(error: VaultMLError) -> None:
    gate = OutageGate()
    gate.failed("a", VaultAway("x"), 0.0)
    assert not gate.failed("b", error, 10.0)
    assert not gate.closed


def test_a_success_in_between_breaks_the_row() -> None:
    gate = OutageGate()
    gate.failed("a", RecordingUnavailable("x"), 0.0)
    gate.failed("b", RecordingUnavailable("x"), 0.0)
    gate.answered(1.0, inferred=True)
    assert not gate.failed("c", RecordingUnavailable("x"), 2.0)


def test_waits_between_probes_grow_and_stay_bounded() -> None:
    gate = OutageGate(longest_wait_seconds=8.0)
    now, waits = 0.0, []
    for _ in range(12):
        gate.failed("a", TritonAway("x"), now)
        waited = 0.0
        while not gate.probe_due(now + waited):
            waited += 0.01
        waits.append(waited)
        now += waited
    assert waits[0] <= 0.51
    assert 3.9 <= waits[-1] <= 8.01
    assert max(waits) <= 8.01


def test_failures_that_were_under_way_when_it_closed_do_not_lengthen_the_wait() -> None:
    one, many = OutageGate(), OutageGate()
    one.failed("a", VaultAway("x"), 0.0)
    for name in "abcdefgh":
        many.failed(name, VaultAway("x"), 0.0)
    assert one.probe_due(0.6)
    assert many.probe_due(0.6)


def test_the_clock_of_the_deadlines_stands_still_while_it_is_closed() -> None:
    gate = OutageGate()
    gate.failed("a", VaultAway("x"), 10.0)
    assert gate.seconds_closed(15.0) == 5.0
    gate.answered(20.0, inferred=True)
    assert gate.seconds_closed(50.0) == 10.0
    gate.failed("a", VaultAway("x"), 60.0)
    gate.answered(61.0, inferred=True)
    assert gate.seconds_closed(70.0) == 11.0


def test_an_answer_of_vault_alone_does_not_end_an_outage_of_triton() -> None:
    gate = OutageGate()
    gate.failed("a", TritonAway("x"), 0.0)
    gate.failed("b", RecordingUndecodable("x"), 1.0)
    gate.answered(2.0, inferred=False)
    assert gate.closed
    gate.answered(3.0, inferred=True)
    assert not gate.closed


def test_workers_that_die_on_different_recordings_are_an_outage_and_no_answer() -> None:
    gate = OutageGate()
    gate.failed("a", VaultAway("x"), 0.0)
    gate.failed("b", WorkerDied("x"), 10.0)
    assert gate.closed
    fresh = OutageGate()
    assert [fresh.failed(name, WorkerDied("x"), 0.0) for name in "abc"] == [False, False, True]


def test_recordings_that_fail_while_others_do_not_cannot_close_the_gate_again() -> None:
    gate = OutageGate()
    bad = ("a", "b", "c", "d")
    for name in bad:
        gate.failed(name, RecordingUnavailable("x"), 0.0)
    assert gate.closed
    gate.answered(10.0, inferred=True)
    assert not any(gate.failed(name, RecordingUnavailable("x"), 20.0) for name in bad * 5)
    assert not gate.closed
    assert gate.seconds_closed(1000.0) == 10.0, "so their deadlines run"


def test_an_outage_of_days_ends_like_one_of_minutes() -> None:
    gate = OutageGate()
    now = 0.0
    while now < 3 * 86_400:
        gate.failed("a", VaultAway("x"), now)
        now += 31.0
    assert gate.probe_due(now)
    gate.answered(now, inferred=True)
    assert not gate.closed


def test_where_few_recordings_come_the_third_one_given_up_after_the_other_shows_the_outage() -> None:
    gate = OutageGate()
    for n, name in enumerate("ab"):
        assert not gate.failed(name, RecordingUnavailable("x"), 600.0 * n)
        gate.gave_up(name)
        gate.forget(name)
    assert gate.failed("c", RecordingUnavailable("x"), 1200.0)
    gate.answered(1300.0, inferred=True)
    assert not gate.closed
    assert not gate.failed("d", RecordingUnavailable("x"), 1400.0)
    assert not gate.failed("e", RecordingUnavailable("x"), 1400.0), "a and b are out of the row"


def test_a_recording_that_got_an_outcome_otherwise_counts_in_no_row() -> None:
    gate = OutageGate()
    for name in "abcd":
        assert not gate.failed(name, RecordingUnavailable("x"), 0.0)
        gate.forget(name)
