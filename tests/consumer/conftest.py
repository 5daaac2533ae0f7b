"""What the tests of the pod share: a clip, a Vault, and a world with topics of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelops.embedded import EmbeddedTriton
from tests import clips
from tests.brokers.kafka import KafkaBroker
from tests.fakes.faulty_vault import FaultyVault
from tests.worlds import World


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound little recording."""
    return clips.write(tmp_path_factory.mktemp("clips") / "sound.mp4")


@pytest.fixture
def vault() -> Iterator[FaultyVault]:
    """A Vault that does as Vault does, until a test tells it to misbehave."""
    with FaultyVault() as standin:
        yield standin


@pytest.fixture
def world(kafka: KafkaBroker, triton: EmbeddedTriton, vault: FaultyVault, tmp_path: Path) -> World:
    """Topics of its own on the shared broker, the shared Triton, a Vault of its own."""
    return World(kafka, triton.grpc_url, vault, tmp_path)
