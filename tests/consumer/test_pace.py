"""The pace of a pod: as many requests at Triton as it can take, found by latency and by rejections."""

import pytest

from consumer.pace import AFTER_LATENCY, STALLED_SECONDS, TOLERANCE, Pace
from consumer.tally import FrameTimes, Requests
from tests.consumer.queueing import SimulatedPod, Simulation

SERVICE_SECONDS = 0.05
MINUTES = 60.0


def answered(seconds: float, *, held_back: bool = False) -> Requests:
    return Requests({5: FrameTimes(1, seconds, seconds)}, held_back=held_back)


def one_round(pace: Pace, now: float, requests: Requests) -> float:
    """Begin as many recordings as may run, end them all, and return the time then."""
    tickets: list[int] = []
    while pace.has_room(now) and len(tickets) < 100:
        tickets.append(int(now * 1000) * 100 + len(tickets))
        pace.begin(tickets[-1], now)
    pace.more_waits()
    for ticket in tickets:
        pace.end(ticket, requests, "1", now + 0.5)
    return now + 1.0


def throughput(pod: SimulatedPod, *, servers: int, prepare_seconds: float) -> int:
    simulation = Simulation(
        [pod], service_seconds=SERVICE_SECONDS, servers=servers, prepare_seconds=prepare_seconds
    )
    simulation.run(5 * MINUTES)
    return pod.done


def test_it_begins_with_one_request_and_goes_on_with_one_for_each_worker() -> None:
    pace = Pace(workers=4, in_flight=2)
    assert pace.has_room(0.0)
    assert pace.begin(1, 0.0) == 1
    assert not pace.has_room(0.0)
    pace.more_waits()
    pace.end(1, answered(0.1), "1", 1.0)
    assert pace.window == 4


def test_it_grows_by_one_in_a_round_up_to_its_limit_while_more_could_be_done() -> None:
    pace, now, windows = Pace(workers=2, in_flight=3), 0.0, []
    for _ in range(8):
        now = one_round(pace, now, answered(0.1, held_back=True))
        windows.append(pace.window)
    assert windows == [2, 3, 4, 5, 6, 6, 6, 6]


def test_it_does_not_grow_where_nobody_asks_for_more() -> None:
    pace = Pace(workers=4, in_flight=2)
    for ticket in range(20):
        pace.begin(ticket, float(ticket))
        pace.end(ticket, answered(0.1), "1", ticket + 0.5)
    assert pace.window == 1


def test_requests_are_shared_among_the_recordings_and_never_more_than_the_window() -> None:
    pace, now = Pace(workers=4, in_flight=4), 0.0
    for _ in range(30):
        window, granted, ticket = int(pace.window), list[int](), int(now) * 100
        while len(granted) < 4 and pace.has_room(now):
            granted.append(pace.begin(ticket + len(granted), now))
        assert sum(granted) <= window
        assert len(granted) == min(4, window)
        for number in range(len(granted)):
            pace.end(ticket + number, answered(0.1, held_back=True), "1", now + 0.5)
        now += 1.0
    assert pace.window == 16


def test_a_spare_waits_for_the_next_worker_only_when_all_of_them_may_work() -> None:
    pace = Pace(workers=2, in_flight=2)
    one_round(pace, 0.0, answered(0.1))
    assert [pace.has_room(1.0) and bool(pace.begin(ticket, 1.0)) for ticket in range(4)] == [
        True, True, True, False,
    ]  # fmt: skip


def test_rejections_and_latency_over_its_minimum_shrink_the_window_once_in_a_round_trip() -> None:
    pace, now = Pace(workers=8, in_flight=1), 0.0
    now = one_round(pace, now, answered(0.1))
    assert pace.window == 8
    under_way = range(8)
    for ticket in under_way:
        pace.begin(ticket, now)
    for ticket in under_way:
        pace.end(ticket, Requests(rejections=1), "1", now + 1)
    assert pace.window == 4, "those that were under way say nothing about the new window"
    now = one_round(pace, now + 2, answered(0.1 * TOLERANCE * 2))
    assert pace.window == pytest.approx(4 * AFTER_LATENCY)


def test_a_slow_request_of_more_frames_is_no_queue() -> None:
    pace = Pace(workers=8, in_flight=1)
    now = one_round(pace, 0.0, answered(0.1))
    now = one_round(pace, now, Requests({16: FrameTimes(2, 4.0, 2.0)}))
    assert pace.window == 8


def test_another_version_of_the_model_has_its_own_minimum() -> None:
    pace, now = Pace(workers=8, in_flight=1), 0.0
    now = one_round(pace, now, answered(0.1))
    for ticket in range(8):
        pace.begin(ticket, now)
    for ticket in range(8):
        pace.end(ticket, answered(1.0), "2", now + 1)
    assert pace.window >= 8


def test_a_server_that_became_slower_is_known_for_what_it_is_after_some_minutes() -> None:
    pod = SimulatedPod(8)
    simulation = Simulation([pod], service_seconds=SERVICE_SECONDS, servers=8)
    simulation.run(5 * MINUTES)
    assert pod.mean_window(4 * MINUTES) > 7
    simulation.service_seconds *= 10
    simulation.run(15 * MINUTES)
    assert pod.mean_window(14 * MINUTES) > 7


def test_a_recording_that_hangs_in_its_download_does_not_fill_a_small_window() -> None:
    pace = Pace(workers=4, in_flight=1)
    pace.begin(1, 0.0)
    assert not pace.has_room(STALLED_SECONDS - 1)
    assert pace.has_room(STALLED_SECONDS + 1)


def test_after_an_outage_it_begins_anew_with_one_request() -> None:
    pace = Pace(workers=8, in_flight=1)
    now = one_round(pace, 0.0, answered(0.1))
    pace.lost(now)
    assert pace.window == 1
    now = one_round(pace, now + 1, answered(0.1))
    assert pace.window == 4


def test_the_last_stage_is_a_rejection_of_a_request_that_was_alone() -> None:
    pace = Pace(workers=8, in_flight=1)
    now = one_round(pace, 0.0, answered(0.1))
    stages = []
    for ticket in range(5):
        pace.begin(ticket, now)
        stages.append(pace.at_its_narrowest(ticket))
        pace.end(ticket, Requests(rejections=1), "1", now + 0.5)
        now += 1
    assert stages[0] is False
    assert stages[-1] is True
    assert pace.window == 1


@pytest.mark.parametrize("prepare_seconds", [0.005, 0.05, 0.2])
@pytest.mark.parametrize("servers", [1, 4, 16])
def test_it_gets_through_as_much_as_the_best_fixed_window(servers: int, prepare_seconds: float) -> None:
    adapting = SimulatedPod(16)
    adapted = throughput(adapting, servers=servers, prepare_seconds=prepare_seconds)
    best = max(
        throughput(SimulatedPod(16, fixed_window=window), servers=servers, prepare_seconds=prepare_seconds)
        for window in (1, 2, 4, 8, 16)
    )
    assert adapted > 0.9 * best
    assert adapting.mean_latency(MINUTES) < TOLERANCE * SERVICE_SECONDS


def test_it_does_not_swing_from_rail_to_rail() -> None:
    pod = SimulatedPod(16)
    throughput(pod, servers=4, prepare_seconds=0.005)
    settled = [window for at, window in pod.windows if at > MINUTES]
    assert min(settled) > 4
    assert max(settled) < 20


@pytest.mark.parametrize("late_by_seconds", [0.0, 100.0])
def test_two_pods_share_a_server_fairly_also_when_one_comes_late(late_by_seconds: float) -> None:
    first, second = SimulatedPod(16), SimulatedPod(16, starts_at=late_by_seconds)
    simulation = Simulation([first, second], service_seconds=SERVICE_SECONDS, servers=4)
    simulation.run(10 * MINUTES)
    before = first.done, second.done
    simulation.run(30 * MINUTES)
    shares = first.done - before[0], second.done - before[1]
    assert 0.75 < shares[0] / shares[1] < 1.33
    assert sum(shares) > 0.97 * 20 * MINUTES * 4 / SERVICE_SECONDS
    assert first.mean_latency(10 * MINUTES) < TOLERANCE * SERVICE_SECONDS


def test_many_pods_do_not_take_their_own_queue_for_the_minimum() -> None:
    pods = [SimulatedPod(8, starts_at=5.0 * number) for number in range(12)]
    simulation = Simulation(pods, service_seconds=SERVICE_SECONDS, servers=4)
    simulation.run(30 * MINUTES)
    # With one request each there are 12 for 4 servers: the least that they can learn is three times as long.
    assert pods[0].mean_latency(20 * MINUTES) < 3 * TOLERANCE * SERVICE_SECONDS


def test_a_short_queue_is_kept_to_by_its_rejections() -> None:
    pods = [SimulatedPod(16), SimulatedPod(16)]
    simulation = Simulation(pods, service_seconds=SERVICE_SECONDS, servers=2, queue_size=4)
    simulation.run(10 * MINUTES)
    done, rejected = sum(pod.done for pod in pods), sum(pod.rejections for pod in pods)
    assert done > 0.9 * 10 * MINUTES * 2 / SERVICE_SECONDS
    assert rejected < 0.15 * done
