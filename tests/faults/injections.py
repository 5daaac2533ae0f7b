"""Injections: how each kind of fault is done to the processes and links of a run, and undone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.brokers.cluster import ClusterBroker
from tests.fakes.tcp_proxy import Link
from tests.faults.consumers import Consumer
from tests.faults.lanes import SIDES
from tests.faults.schedule import Fault
from tests.faults.surroundings import Surroundings
from tests.faults.vault import Trouble

SLOW = Link(latency_seconds=0.15, bytes_per_second=50_000)
_RESETS = Link(reset_share=0.6)
_BLACK_HOLE = Link(black_hole=True)
CLOCK_STEP_SECONDS = 3600


@dataclass(frozen=True)
class Injection:
    """What one fault does now.

    Args:
        target: what it is done to, for people; two faults have no target in common at a time.
        detail: more of it.
        begin: do it; returns False where there is nothing to do it to now.
        end: undo it; neither waits.
        keep_up: called again and again between them.
        took: whether anything met it; asked before `end`.
        over: whether what was hit is back; asked again and again after `end`.
    """

    target: str
    begin: Callable[[], object]
    end: Callable[[], object] = lambda: None
    keep_up: Callable[[], object] = lambda: None
    took: Callable[[], bool] = lambda: True
    over: Callable[[], bool] = lambda: True
    detail: str = ""


def injection_of(fault: Fault, world: Surroundings) -> Injection:
    """Return what a fault of the plan does to this world; its choice decides to what."""
    return MAKERS[fault.kind](fault, world)


def _consumer(fault: Fault, world: Surroundings) -> Consumer:
    return world.consumers[int(fault.choice * len(world.consumers))]


def _worker_killed(fault: Fault, world: Surroundings) -> Injection:
    consumer = _consumer(fault, world)

    def kill() -> bool:
        workers = consumer.workers()
        if workers:
            workers[int(fault.choice * 1000) % len(workers)].kill()
        return bool(workers)

    return Injection(consumer.name, kill)


def _of_a_consumer(act: Callable[[Consumer], bool]) -> Callable[[Fault, Surroundings], Injection]:
    """Return the maker of what ends a consumer; over when it is ready again."""

    def make(fault: Fault, world: Surroundings) -> Injection:
        consumer = _consumer(fault, world)
        before = consumer.starts
        return Injection(
            consumer.name,
            lambda: act(consumer),
            over=lambda: consumer.starts > before and consumer.ready,
        )

    return make


def _consumer_frozen(fault: Fault, world: Surroundings) -> Injection:
    consumer = _consumer(fault, world)
    return Injection(consumer.name, consumer.freeze, consumer.thaw)


def _consumer_joins(_fault: Fault, world: Surroundings) -> Injection:
    guest = world.guest
    return Injection(
        guest.name, guest.start, guest.dismiss, took=lambda: guest.ready, over=lambda: not guest.alive
    )


def _broker(fault: Fault, world: Surroundings) -> ClusterBroker:
    return world.cluster.brokers[int(fault.choice * len(world.cluster.brokers))]


def _broker_killed(fault: Fault, world: Surroundings) -> Injection:
    broker = _broker(fault, world)
    return Injection("brokers", broker.kill, broker.spawn, over=world.cluster.in_sync)


def _broker_frozen(fault: Fault, world: Surroundings) -> Injection:
    broker = _broker(fault, world)
    return Injection("brokers", broker.freeze, broker.thaw, over=world.cluster.in_sync)


def _triton_killed(_fault: Fault, world: Surroundings) -> Injection:
    return Injection("triton", world.kill_triton, world.start_triton)


def _vault_paused(_fault: Fault, world: Surroundings) -> Injection:
    return Injection("vault", world.vault.pause, world.vault.resume)


def _vault_trouble(name: Trouble) -> Callable[[Fault, Surroundings], Injection]:
    def make(_fault: Fault, world: Surroundings) -> Injection:
        return Injection("vault", lambda: world.vault.trouble(name), lambda: world.vault.trouble(""))

    return make


def _link(link: Link, *, one_side: bool = False) -> Callable[[Fault, Surroundings], Injection]:
    """Return the maker of a bad link of one consumer; what is open breaks where new connections do."""

    def make(fault: Fault, world: Surroundings) -> Injection:
        consumer = _consumer(fault, world)
        lane = consumer.lane
        sides = SIDES if not one_side else (SIDES[int(fault.choice * 1000) % len(SIDES)],)
        before = lane.hits(sides)

        def begin() -> None:
            lane.become(link, sides)
            if link.reset_share:
                for proxy in lane.proxies(sides):
                    proxy.reset_all()

        return Injection(
            f"links of {consumer.name}",
            begin,
            lane.heal,
            took=lambda: lane.hits(sides) > before,
            detail=", ".join(sides),
        )

    return make


def _disk_full(fault: Fault, world: Surroundings) -> Injection:
    consumer = _consumer(fault, world)
    return Injection(
        f"disk of {consumer.name}",
        consumer.fill_disk,
        consumer.empty_disk,
        # A download that ends makes room for the next one, and a consumer that is started has a new disk.
        keep_up=consumer.fill_disk,
        took=lambda: consumer.disk_is_full,
    )


def _clock_stepped(fault: Fault, world: Surroundings) -> Injection:
    step = CLOCK_STEP_SECONDS if fault.choice < 0.5 else -CLOCK_STEP_SECONDS
    clock = world.clocked.clock
    assert clock is not None
    words = f"{step:+d} s"
    return Injection(
        f"clock of {world.clocked.name}", lambda: clock.step(step), lambda: clock.step(0), detail=words
    )


MAKERS: Mapping[str, Callable[[Fault, Surroundings], Injection]] = {
    "worker_killed": _worker_killed,
    "consumer_killed": _of_a_consumer(Consumer.kill),
    "consumer_replaced": _of_a_consumer(lambda consumer: consumer.kill(replace=True)),
    "consumer_restarted": _of_a_consumer(Consumer.terminate),
    "consumer_frozen": _consumer_frozen,
    "consumer_joins": _consumer_joins,
    "broker_killed": _broker_killed,
    "broker_frozen": _broker_frozen,
    "triton_killed": _triton_killed,
    "vault_paused": _vault_paused,
    "vault_500s": _vault_trouble("500s"),
    "vault_some_500s": _vault_trouble("some 500s"),
    "vault_resets": _vault_trouble("resets"),
    "link_slow": _link(SLOW),
    "link_resets": _link(_RESETS),
    "link_black_hole": _link(_BLACK_HOLE, one_side=True),
    "disk_full": _disk_full,
    "clock_stepped": _clock_stepped,
}
"""By the name of the kind."""
