"""A backlog is worked off in all partitions at once: none stands still while others move."""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tests.worlds import World

PARTITIONS = 6
OF_EACH = 40


def partition_of(source: str) -> int:
    return int(source.split("/")[1])


def test_in_a_backlog_every_partition_has_its_turn(world: World, clip: Path) -> None:
    world = replace(world, partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        events = [world.store(f"cam-{partition}/{n}.mp4", clip) for n in range(OF_EACH)]
        world.send(*events, partition=partition)
    with world.pod(WORKERS="2"):
        records = world.results(PARTITIONS * OF_EACH, seconds=180.0)
    places = defaultdict(list)
    for place, record in enumerate(records):
        places[partition_of(record.headers["vault-ml-source"])].append(place)
    assert {partition: len(found) for partition, found in places.items()} == dict.fromkeys(
        range(PARTITIONS), OF_EACH
    )
    gaps = {
        partition: max(after - before for before, after in pairwise([-1, *found]))
        for partition, found in sorted(places.items())
    }
    # Two in line for each worker, and what a transaction puts together partition by partition.
    assert max(gaps.values()) <= 5 * PARTITIONS
