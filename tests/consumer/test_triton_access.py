"""A Triton that wants to know who asks lets us in, and where it does not the sentence says what to set."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from consumer.detector import TritonDetector, TritonEndpoint
from consumer.errors import TritonAway
from consumer.rollout import Rollout
from consumer.triton_access import ProtocolKey, TritonAccess
from modelops.embedded import EmbeddedTriton
from tests import planted
from tests.authorities import Authority
from tests.planted import Planted
from tests.secured_triton import ACCESS_KEY, RESTRICTED, SERVER_NAME, over_tls

CAT = Planted(("cat",), [(8, 8, 40, 40, 0.9, 0)])


@dataclass(frozen=True)
class Secured:
    """Two servers with TLS: one that takes anybody, one that wants a client certificate and a key."""

    open: EmbeddedTriton
    strict: EmbeddedTriton
    authority: Authority
    strangers: Authority

    @property
    def access(self) -> TritonAccess:
        """What the strict one wants."""
        return TritonAccess(
            tls=True,
            ca_file=self.authority.ca_file,
            certificate=self.authority.pair("consumer"),
            server_name=SERVER_NAME,
            key=ProtocolKey("token", ACCESS_KEY),
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    authority, strangers = Authority(directory), Authority(directory, "strangers-ca")
    own = authority.pair("server", SERVER_NAME)
    repository = planted.write_repository(directory / "repository", {1: CAT}, Rollout(1, 1))
    strict = [*over_tls(own, clients_ca=authority.ca_file), *RESTRICTED]
    with (
        EmbeddedTriton.start(repository, model_config_name="", extra_arguments=over_tls(own)) as open_server,
        EmbeddedTriton.start(repository, model_config_name="", extra_arguments=strict) as strict_server,
    ):
        yield Secured(open_server, strict_server, authority, strangers)


def look(server: EmbeddedTriton, access: TritonAccess) -> int:
    """Ask all that a consumer asks: contract, rollout, frames; return how many frames were answered."""
    endpoint = TritonEndpoint(server.grpc_url, planted.NAME, timeout_seconds=10.0, access=access)
    picture = np.full((planted.HEIGHT * 3 // 2, planted.WIDTH), 128, np.uint8)
    with TritonDetector(endpoint) as detector:
        return len(list(detector.detect([picture] * 3)))


def refusal(server: EmbeddedTriton, access: TritonAccess) -> str:
    with pytest.raises(TritonAway) as caught:
        look(server, access)
    return str(caught.value)


def test_over_tls_a_consumer_is_answered(secured: Secured) -> None:
    assert look(secured.open, replace(secured.access, certificate=None, key=None)) == 3


def test_with_a_client_certificate_and_a_key_a_consumer_is_answered(secured: Secured) -> None:
    assert look(secured.strict, secured.access) == 3


def test_in_the_clear_the_sentence_asks_for_tls(secured: Secured) -> None:
    said = refusal(secured.open, TritonAccess())
    assert said.endswith("Does it speak TLS? Then set TRITON_CA_FILE, or TRITON_TLS=true.")


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(secured: Secured) -> None:
    said = refusal(secured.open, replace(secured.access, ca_file=secured.strangers.ca_file))
    assert "has a certificate that is not trusted" in said
    assert said.endswith("name its authority in TRITON_CA_FILE.")


def test_without_an_authority_a_private_one_is_not_trusted(secured: Secured) -> None:
    said = refusal(secured.open, replace(secured.access, ca_file=None))
    assert said.endswith("name its authority in TRITON_CA_FILE.")


def test_a_certificate_for_another_name_is_said(secured: Secured) -> None:
    said = refusal(secured.open, replace(secured.access, server_name=None))
    assert said.endswith("set TRITON_SERVER_NAME to a name that it is for.")


def test_without_a_client_certificate_the_sentence_asks_for_one(secured: Secured) -> None:
    said = refusal(secured.strict, replace(secured.access, certificate=None))
    assert said.endswith("Does it ask who we are? Then set TRITON_CERTIFICATE_FILE and TRITON_KEY_FILE.")


def test_a_strangers_certificate_does_not_get_in(secured: Secured) -> None:
    said = refusal(secured.strict, replace(secured.access, certificate=secured.strangers.pair("stranger")))
    assert said.endswith("Does it trust the authority of TRITON_CERTIFICATE_FILE?")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (None, "restricts its protocols and was given no key: set TRITON_ACCESS_KEY=token=VALUE."),
        (
            ProtocolKey("token", "a-guess"),
            "refuses the key that was given: set TRITON_ACCESS_KEY=token=VALUE.",
        ),
        (ProtocolKey("other", ACCESS_KEY), "refuses the key that was given"),
    ],
    ids=["none", "wrong", "under another name"],
)
def test_a_restricted_protocol_asks_for_its_key(
    secured: Secured, key: ProtocolKey | None, sentence: str
) -> None:
    said = refusal(secured.strict, replace(secured.access, key=key))
    assert sentence in said
    assert "guess" not in said


def test_tls_to_a_server_without_it_is_said(secured: Secured, triton: EmbeddedTriton) -> None:
    said = refusal(triton, secured.access)
    assert "does not speak TLS" in said
