"""What all tests share: the real broker, the real Triton, and the rule that CI skips nothing."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.brokers import kafka as apache_kafka
from tests.brokers.kafka import KafkaBroker, User

if TYPE_CHECKING:
    from modelops.embedded import EmbeddedTriton

KAFKA_USERS = (
    User("plain-user", "plain-secret", "PLAIN"),
    User("scram-256-user", "scram-256-secret", "SCRAM-SHA-256"),
    User("scram-512-user", "scram-512-secret", "SCRAM-SHA-512"),
)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for all tests: take a topic of your own (`create_topic`) and leave it running.

    A test that kills its broker takes `own_kafka`.
    """
    yield from _broker(tmp_path_factory)


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker for one test that kills, freezes or restarts it (4 s to start)."""
    yield from _broker(tmp_path_factory)


def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    lacking = apache_kafka.missing()
    if lacking:
        pytest.skip(lacking)
    with KafkaBroker(tmp_path_factory.mktemp("kafka"), users=KAFKA_USERS) as broker:
        yield broker


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model `yolo`: a copy, so that what a test publishes stays with this run."""
    from modelops.export import ready_repository  # a second of onnxruntime, which most tests do not need

    return Path(shutil.copytree(ready_repository(), tmp_path_factory.mktemp("triton") / "model_repository"))


@pytest.fixture(scope="session")
def triton(model_repository: Path) -> "Iterator[EmbeddedTriton]":
    """One embedded Triton for all tests; a test that stops it, or loads and unloads, starts its own."""
    from modelops.embedded import EmbeddedTriton

    with EmbeddedTriton.start(model_repository) as server:
        yield server


_OWN_TRITONS = dict.fromkeys(("fleet", "pods", "restricted", "secured", "served"), "triton")
"""Fixtures of single modules that start Tritons of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the servers that they ask for, so that `-m "not kafka"` leaves them out."""
    servers = {"kafka": "kafka", "own_kafka": "kafka", "guarded": "kafka", "triton": "triton", **_OWN_TRITONS}
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in servers:
                item.add_marker(servers[fixture])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the broker's log with the failure of a test that used it."""
    report = yield
    if report.failed:
        for name in ("kafka", "own_kafka"):
            broker = getattr(item, "funcargs", {}).get(name)
            if broker is not None:
                report.sections.append((f"end of the log of {name}", broker.log_tail()))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skipped anything: there, a skip would hide what nobody looked at."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    skipped = len(reporter.stats.get("skipped", []))
    if skipped:
        reporter.write_line("")
        reporter.write_line(f"{skipped} tests were skipped; in CI a skip is a failure.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
