"""Several real Tritons that read one repository, as the pods behind a headless name do; and tiny versions."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modelops.addresses import Address
from modelops.config_pbtxt import Served
from modelops.embedded import EmbeddedTriton
from modelops.ports import free_ports
from modelops.repository import Candidate, Repository
from tests import planted
from tests.planted import Planted

CAT = Planted(("cat", "dog"), [(8, 8, 40, 40, 0.9, 0)])
DOG = Planted(("cat", "dog"), [(50, 10, 90, 60, 0.8, 1)])
COW = Planted(("cow",), [(8, 8, 40, 40, 0.7, 0), (50, 10, 90, 60, 0.6, 0)])


def publish(repository: Repository, name: str, *versions: Planted, broken: bool = False) -> list[int]:
    """Publish versions of a model: the first is served, the others wait on the shelf; returns their numbers.

    broken: what they answer is not what their golden.npz says.
    """
    served = Served(name, planted.HEIGHT, planted.WIDTH, planted.MAX_DETECTIONS, 8)
    return [
        repository.publish(
            Candidate(
                served,
                planted.model(version),
                tuple(version.labels),
                version.digest,
                golden=golden(CAT if broken else version),
            )
        ).version
        for version in versions
    ]


def golden(version: Planted) -> bytes:
    """Content of a golden.npz of one grey frame."""
    frames = np.full((1, planted.HEIGHT * 3 // 2, planted.WIDTH), 128, np.uint8)
    stream = io.BytesIO()
    np.savez(stream, frames=frames, rows=planted.rows_of(version))
    return stream.getvalue()


@contextlib.contextmanager
def tritons(directories: list[Path], *arguments: str) -> Iterator[list[EmbeddedTriton]]:
    """Start a Triton on each directory, without models, all on one port of addresses of their own."""
    (port,) = free_ports(1)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                EmbeddedTriton.start(
                    directory,
                    models=[],
                    address=f"127.0.0.{2 + number}",
                    grpc_port=port,
                    extra_arguments=arguments,
                )
            )
            for number, directory in enumerate(directories)
        ]


def addresses(servers: list[EmbeddedTriton]) -> list[Address]:
    """Return where they listen for gRPC."""
    return [Address(server.address, server.grpc_port) for server in servers]
