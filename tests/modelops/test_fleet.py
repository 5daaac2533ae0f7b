"""Which pods are asked, and with which key."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import SetupError
from consumer.triton_access import ProtocolKey
from modelops.addresses import Address, resolve
from modelops.admin_key import read_admin_key
from modelops.embedded import EmbeddedTriton
from modelops.fleet import Fleet, Pod
from modelops.ports import LOOPBACK, free_ports
from modelops.repository import Repository
from tests.modelops.pods_of_one_repository import CAT, DOG, addresses, publish, tritons

KEY = ProtocolKey("admin", "let-me-in")


Answers = list[tuple[Any, ...]]


def answers(*found: tuple[str, int]) -> Callable[..., Answers]:
    """A getaddrinfo that gives these addresses."""

    def getaddrinfo(_host: str, _port: int, **_options: object) -> Answers:
        kind = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kind[":" in host], socket.SOCK_STREAM, 6, "", (host, port)) for host, port in found]

    return getaddrinfo


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


def test_every_address_behind_a_name_is_a_pod_and_none_is_asked_twice() -> None:
    found = answers(("10.0.0.2", 8001), ("10.0.0.3", 8001), ("10.0.0.2", 8001))
    assert list(map(str, resolve(["triton:8001", "again:8001"], found))) == ["10.0.0.2:8001", "10.0.0.3:8001"]


def test_ipv6_addresses_are_written_as_grpc_reads_them() -> None:
    assert list(map(str, resolve(["[::1]:8001"]))) == ["[::1]:8001"]


def test_the_consumers_way_to_write_the_name_is_understood() -> None:
    assert resolve([f"dns:///{LOOPBACK}:8001"]) == (Address(LOOPBACK, 8001),)


def test_a_dual_stack_name_is_asked_by_the_family_that_listens(listening: int) -> None:
    found = answers(("::1", listening), (LOOPBACK, listening))
    assert resolve(["triton:8001"], found) == (Address(LOOPBACK, listening),)


def test_a_pod_that_does_not_listen_is_not_left_out_for_its_family(listening: int) -> None:
    found = answers(("::1", listening), (LOOPBACK, listening), ("127.0.0.2", listening))
    assert len(resolve(["triton:8001"], found)) == 3


@pytest.mark.parametrize(
    "name", ["triton", "triton:", ":8001", "triton:0", "triton:70000", "http://triton:8001", "a b:1", ""]
)
def test_what_is_no_address_is_said_in_one_sentence(name: str) -> None:
    with pytest.raises(SetupError, match=r"is no address of a Triton: write HOST:PORT"):
        resolve([name])


def test_a_name_that_nobody_knows_is_said() -> None:
    def unknown(*_: object, **__: object) -> Answers:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(SetupError, match=r"The name triton is not known \(Name or service not known\)"):
        resolve(["triton:8001"], unknown)


def test_the_key_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("admin=let-me-in\n")
    assert read_admin_key({}) is None
    assert read_admin_key({"TRITON_ADMIN_KEY": "admin=let-me-in"}) == KEY
    assert read_admin_key({"TRITON_ADMIN_KEY_FILE": str(tmp_path / "key")}) == KEY
    assert "let-me-in" not in repr(KEY)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TRITON_ADMIN_KEY": "let-me-in"}, "TRITON_ADMIN_KEY will not do: write NAME=VALUE"),
        ({"TRITON_ADMIN_KEY": "admin=let me in"}, "TRITON_ADMIN_KEY will not do"),
        ({"TRITON_ADMIN_KEY": "a=b", "TRITON_ADMIN_KEY_FILE": "c"}, "are both set"),
        ({"TRITON_ADMIN_KEY_FILE": "no/such/file"}, "no/such/file, which cannot be read: No such file"),
    ],
)
def test_a_key_that_will_not_do_is_said_without_showing_it(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence) as caught:
        read_admin_key(variables)
    assert "let" not in str(caught.value)


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    directory = tmp_path_factory.mktemp("restricted") / "repository"
    publish(Repository.open(directory), "yolo", CAT, DOG)
    with tritons([directory], "--grpc-restricted-protocol=model-repository:admin=let-me-in") as servers:
        yield servers[0]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (None, "it was given none: set TRITON_ADMIN_KEY=admin=VALUE or TRITON_ADMIN_KEY_FILE"),
        (ProtocolKey("admin", "wrong"), "it refuses the one that was given"),
        (ProtocolKey("other", "let-me-in"), "it refuses the one that was given"),
    ],
)
def test_a_restricted_triton_is_not_changed_without_its_key(
    restricted: EmbeddedTriton, key: ProtocolKey | None, sentence: str
) -> None:
    with Fleet(addresses([restricted]), key) as fleet:
        (answer,) = fleet.each(Pod.check)
    assert answer.failure is not None
    assert sentence in answer.failure
    assert "wrong" not in answer.failure


def test_a_restricted_triton_loads_with_its_key(restricted: EmbeddedTriton) -> None:
    with Fleet(addresses([restricted]), KEY) as fleet:
        (pod,) = fleet.pods
        pod.check()
        pod.load_versions("yolo", [1], load_seconds=60, seen_seconds=10)
        assert pod.versions("yolo")[1].ready


def test_what_no_pod_can_see_is_said(restricted: EmbeddedTriton) -> None:
    with Fleet(addresses([restricted]), KEY) as fleet:
        (pod,) = fleet.pods
        with pytest.raises(SetupError, match="does not see version 2: is this the repository that it reads"):
            pod.load_versions("yolo", [1, 2], load_seconds=60, seen_seconds=0)
        with pytest.raises(SetupError, match="does not see what is on disk of 'yolo-rollout'"):
            pod.load_parameters("yolo-rollout", {"vaultml_rollout": "{}"}, load_seconds=60, seen_seconds=0)


def test_a_port_where_nobody_listens_is_said() -> None:
    (port,) = free_ports(1)
    with Fleet([Address(LOOPBACK, port)]) as fleet:
        (answer,) = fleet.each(Pod.check)
    assert answer.failure is not None
    assert "It does not answer (UNAVAILABLE" in answer.failure
