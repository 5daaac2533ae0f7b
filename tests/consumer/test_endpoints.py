"""What the endpoints promise to Kubernetes and Prometheus."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from consumer.endpoints import Endpoints, Health
from consumer.errors import SetupError
from consumer.metrics import Metrics


class Clock:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(["contract", "vault"], beat_limit_seconds=30.0, clock=clock, secrets=["the-vaults-secret"])


@pytest.fixture
def endpoints(health: Health) -> Iterator[Endpoints]:
    with Endpoints(health, Metrics(CollectorRegistry()).registry, port=0, host="127.0.0.1") as running:
        yield running


def ask(endpoints: Endpoints, path: str, method: str = "GET") -> tuple[int, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{endpoints.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_healthz_is_fine_while_the_loop_turns(endpoints: Endpoints, health: Health, clock: Clock) -> None:
    clock.now += 29.0
    assert ask(endpoints, "/healthz")[0] == 200
    health.beat()
    clock.now += 29.0
    status, body = ask(endpoints, "/healthz")
    assert (status, json.loads(body)) == (200, {"alive": True, "beat_age_seconds": 29.0})


def test_healthz_fails_when_the_loop_is_stuck_and_heals_with_it(
    endpoints: Endpoints, health: Health, clock: Clock
) -> None:
    clock.now += 30.0
    status, body = ask(endpoints, "/healthz")
    assert (status, json.loads(body)["alive"]) == (503, False)
    health.beat()
    assert ask(endpoints, "/healthz")[0] == 200


def test_readyz_fails_until_every_check_holds_and_says_why(endpoints: Endpoints, health: Health) -> None:
    health.set_ready("contract", True, "yolo 1")
    status, body = ask(endpoints, "/readyz")
    assert status == 503
    assert json.loads(body) == {
        "ready": False,
        "checks": {
            "contract": {"ok": True, "detail": "yolo 1"},
            "vault": {"ok": False, "detail": "not checked yet"},
        },
    }
    health.set_ready("vault", True)
    assert ask(endpoints, "/readyz")[0] == 200


def test_a_pod_that_begins_to_stop_is_not_ready_any_more(endpoints: Endpoints, health: Health) -> None:
    health.set_ready("contract", True)
    health.set_ready("vault", True)
    health.set_ready("running", False, "stopping")
    assert ask(endpoints, "/readyz")[0] == 503


def test_without_any_check_a_pod_is_not_ready() -> None:
    assert not Health().ready


def test_readiness_is_not_liveness(endpoints: Endpoints) -> None:
    assert ask(endpoints, "/readyz")[0] == 503
    assert ask(endpoints, "/healthz")[0] == 200


def test_no_detail_shows_a_secret(endpoints: Endpoints, health: Health) -> None:
    health.set_ready(
        "vault", False, "the-vaults-secret refused at https://minio/k.mp4?X-Amz-Signature=0123abcd"
    )
    body = ask(endpoints, "/readyz")[1]
    assert "the-vaults-secret" not in body
    assert "0123abcd" not in body


def test_metrics_can_be_scraped(endpoints: Endpoints) -> None:
    status, body = ask(endpoints, "/metrics")
    assert status == 200
    assert "vault_ml_in_flight" in {family.name for family in text_string_to_metric_families(body)}


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/../etc/passwd", "/favicon.ico"])
def test_another_path_is_not_found(path: str, endpoints: Endpoints) -> None:
    assert ask(endpoints, path)[0] == 404


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_another_method_is_not_allowed(path: str, method: str, endpoints: Endpoints) -> None:
    assert ask(endpoints, path, method)[0] == 405


def test_a_connection_that_says_nothing_does_not_keep_a_probe_waiting(endpoints: Endpoints) -> None:
    with (
        socket.create_connection(("127.0.0.1", endpoints.port)),
        socket.create_connection(("127.0.0.1", endpoints.port)) as half,
    ):
        half.sendall(b"GET /healthz HT")
        assert ask(endpoints, "/healthz")[0] == 200


def test_requests_leave_no_line_in_the_log(endpoints: Endpoints, capfd: pytest.CaptureFixture[str]) -> None:
    ask(endpoints, "/healthz")
    with socket.create_connection(("127.0.0.1", endpoints.port)) as rude:
        rude.sendall(b"\x00\x01 not HTTP\r\n\r\n")
        rude.recv(1_000)
    ask(endpoints, "/nothing")
    assert capfd.readouterr() == ("", "")


def test_a_port_in_use_is_told_with_the_variables_name(endpoints: Endpoints, health: Health) -> None:
    second = Endpoints(health, CollectorRegistry(), port=endpoints.port, host="127.0.0.1")
    with pytest.raises(SetupError, match=rf"^HTTP_PORT is {endpoints.port}, "):
        second.start()


def test_after_stop_the_port_is_free_again(health: Health) -> None:
    with Endpoints(health, CollectorRegistry(), port=0, host="127.0.0.1") as first:
        port = first.port
    with Endpoints(health, CollectorRegistry(), port=port, host="127.0.0.1") as second:
        assert ask(second, "/healthz")[0] == 200


def test_by_default_every_address_is_listened_on_as_probes_come_from_the_node(health: Health) -> None:
    with Endpoints(health, CollectorRegistry(), port=0) as running:
        assert ask(running, "/healthz")[0] == 200
        assert running._server is not None
        assert running._server.server_address[0] == "0.0.0.0"
