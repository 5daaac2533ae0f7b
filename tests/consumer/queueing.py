"""A simulated Triton: a queue before servers of one speed, and pods that keep to a pace; simulated time."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from consumer.pace import CALM_SECONDS, Pace
from consumer.tally import FrameTimes, Requests

FRAMES = 5


@dataclass
class SimulatedPod:
    """A pod with a backlog that does not end, or a fixed window instead of a pace."""

    workers: int
    in_flight: int = 2
    fixed_window: int | None = None
    starts_at: float = 0.0
    done: int = 0
    rejections: int = 0
    windows: list[tuple[float, float]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pace = Pace(workers=self.workers, in_flight=self.in_flight)
        self.running = 0

    def has_room(self, now: float) -> bool:
        if self.fixed_window is not None:
            return self.running < self.fixed_window
        # The simulation has no spare: a task begins when a worker takes it.
        return self.running < self.workers and self.pace.has_room(now)

    def mean_window(self, after: float) -> float:
        seen = [window for at, window in self.windows if at >= after]
        return sum(seen) / len(seen)

    def mean_latency(self, after: float) -> float:
        seen = [latency for at, latency in self.latencies if at >= after]
        return sum(seen) / len(seen)


class Simulation:
    """Closed loop: each recording is prepared for a while, then makes one request of FRAMES frames.

    Args:
        pods: that share the server.
        service_seconds: what one request takes a server, give or take a tenth.
        servers: requests that are worked on at a time.
        prepare_seconds: download and decoding of a recording.
        queue_size: more are rejected.
    """

    def __init__(
        self,
        pods: list[SimulatedPod],
        *,
        service_seconds: float,
        servers: int,
        prepare_seconds: float = 0.02,
        queue_size: int = 256,
        seed: int = 0,
    ) -> None:
        self.pods, self.service_seconds, self.servers = pods, service_seconds, servers
        self.prepare_seconds, self.queue_size = prepare_seconds, queue_size
        self.random = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = iter(range(10**9))
        self._queue: deque[Callable[[], None]] = deque()
        self._busy = 0
        self._tickets = iter(range(10**9))
        for pod in pods:
            self._at(pod.starts_at, partial(self._fill, pod))
        self._at(CALM_SECONDS, self._calm)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.now = until

    def _calm(self) -> None:
        for pod in self.pods:
            if pod.fixed_window is None:
                pod.pace.calm(self.now)
        self._at(self.now + CALM_SECONDS, self._calm)

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _fill(self, pod: SimulatedPod) -> None:
        while pod.has_room(self.now):
            ticket = next(self._tickets)
            pod.pace.begin(ticket, self.now)
            pod.running += 1
            wait = self.prepare_seconds * self.random.uniform(0.5, 1.5)
            self._at(self.now + wait, partial(self._send, pod, ticket))
        pod.pace.more_waits()

    def _send(self, pod: SimulatedPod, ticket: int) -> None:
        sent_at = self.now

        def serve() -> None:
            self._busy += 1
            seconds = self.service_seconds * self.random.uniform(0.9, 1.1)
            self._at(self.now + seconds, lambda: self._answer(pod, ticket, sent_at))

        if self._busy < self.servers:
            serve()
        elif len(self._queue) >= self.queue_size:
            pod.rejections += 1
            self._end(pod, ticket, Requests(rejections=1))
        else:
            self._queue.append(serve)

    def _answer(self, pod: SimulatedPod, ticket: int, sent_at: float) -> None:
        self._busy -= 1
        if self._queue:
            self._queue.popleft()()
        seconds = self.now - sent_at
        pod.done += 1
        pod.latencies.append((self.now, seconds))
        self._end(pod, ticket, Requests({FRAMES: FrameTimes(1, seconds, seconds)}))

    def _end(self, pod: SimulatedPod, ticket: int, requests: Requests) -> None:
        pod.running -= 1
        pod.pace.end(ticket, requests, "1", self.now)
        pod.windows.append((self.now, pod.pace.window))
        self._at(self.now + (0.5 if requests.rejections else 0.0), lambda: self._fill(pod))
