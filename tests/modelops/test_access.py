"""Who changes models gets into a Triton with TLS, client certificates and restricted protocols too."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from consumer.triton_access import ProtocolKey, TritonAccess
from modelops.addresses import Address
from modelops.embedded import EmbeddedTriton
from modelops.fleet import Fleet, Pod
from modelops.repository import Repository
from tests import planted
from tests.authorities import Authority
from tests.modelops.pods_of_one_repository import CAT, DOG, publish, tritons
from tests.modelops.test_rollout_cli import Operator
from tests.secured_triton import ACCESS_KEY, ADMIN_KEY, RESTRICTED, SERVER_NAME, over_tls


@dataclass(frozen=True)
class Guarded:
    """Two pods of one repository, each with the certificate of the name that is before both."""

    directory: Path
    servers: list[EmbeddedTriton]
    access: TritonAccess
    environ: dict[str, str]

    @property
    def addresses(self) -> list[Address]:
        return [Address(server.address, server.grpc_port, SERVER_NAME) for server in self.servers]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    authority = Authority(directory)
    publish(Repository.open(directory / "repository"), "yolo", CAT, DOG)
    own, ours = authority.pair("server", SERVER_NAME), authority.pair("operator")
    strict = [*over_tls(own, clients_ca=authority.ca_file), *RESTRICTED]
    access = TritonAccess(
        tls=True, ca_file=authority.ca_file, certificate=ours, key=ProtocolKey("token", ACCESS_KEY)
    )
    with tritons([directory / "repository"] * 2, *strict) as servers:
        urls = [f"{server.address}:{server.grpc_port}" for server in servers]
        environ = {
            "TRITON_URL": ",".join(urls),
            "TRITON_CA_FILE": str(authority.ca_file),
            "TRITON_CERTIFICATE_FILE": str(ours.certificate_file),
            "TRITON_KEY_FILE": str(ours.key_file),
            "TRITON_SERVER_NAME": SERVER_NAME,
            "TRITON_ACCESS_KEY": f"token={ACCESS_KEY}",
        }
        yield Guarded(directory / "repository", servers, access, environ)


def test_each_pod_is_asked_by_its_address_and_shows_the_certificate_of_the_name(fleet: Guarded) -> None:
    frames = np.full((1, planted.HEIGHT * 3 // 2, planted.WIDTH), 128, np.uint8)
    with Fleet(fleet.addresses, ProtocolKey("admin", ADMIN_KEY), fleet.access) as pods:
        for answer in pods.each(Pod.check):
            assert answer.failure is None
        for pod in pods.pods:
            pod.load_versions("yolo", [1], load_seconds=60, seen_seconds=10)
            assert pod.rows("yolo", 1, frames, 10.0).shape[0] == 1


def test_a_configured_name_wins_over_that_of_the_address(fleet: Guarded) -> None:
    named = replace(fleet.access, server_name="another.example.com")
    with Fleet(fleet.addresses, ProtocolKey("admin", ADMIN_KEY), named) as pods:
        failures = [answer.failure for answer in pods.each(Pod.check)]
    assert (
        failures
        == ["It has a certificate for another name: set TRITON_SERVER_NAME to a name that it is for."] * 2
    )


def test_what_is_missing_is_said_of_each_pod(fleet: Guarded) -> None:
    admin = ProtocolKey("admin", ADMIN_KEY)
    for access, key, sentence in (
        (TritonAccess(), admin, "Does it speak TLS?"),
        (replace(fleet.access, certificate=None), admin, "Does it ask who we are?"),
        (replace(fleet.access, key=None), admin, "set TRITON_ACCESS_KEY=token=VALUE."),
        (fleet.access, None, "set TRITON_ADMIN_KEY=admin=VALUE"),
    ):
        with Fleet(fleet.addresses, key, access) as pods:
            for answer in pods.each(Pod.check):
                assert sentence in str(answer.failure)


def test_the_commands_of_a_rollout_get_in_with_the_consumers_settings(fleet: Guarded) -> None:
    operator = Operator(fleet.directory)
    operator.environ |= fleet.environ
    operator("load", "yolo", "2")
    assert "yolo" in operator("list")
    operator("unload", "yolo", "2")
    operator("load", "yolo", "2")
    operator("promote", "yolo", "2")
    operator("rollback", "yolo")


def test_a_setting_of_access_that_will_not_do_is_said_before_anybody_is_asked(fleet: Guarded) -> None:
    operator = Operator(fleet.directory)
    operator.environ |= fleet.environ | {"TRITON_KEY_FILE": fleet.environ["TRITON_CERTIFICATE_FILE"]}
    said = operator("load", "yolo", "2", status=2)
    assert said.startswith("TRITON_KEY_FILE is ")
