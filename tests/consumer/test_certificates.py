"""A certificate that cannot work is found before anybody is asked, and said in one sentence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer import certificates
from consumer.certificates import ClientCertificate
from tests.authorities import Authority

NOW = datetime.now(UTC)
PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def problem(pair: ClientCertificate, *, password_name: str | None = "THE_PASSWORD") -> str | None:
    return certificates.problem(
        pair, certificate_name="THE_CERTIFICATE", key_name="THE_KEY", password_name=password_name
    )


def test_a_certificate_and_its_key_are_fine(authority: Authority) -> None:
    assert problem(authority.pair("fine")) is None


def test_an_encrypted_key_is_fine_with_its_password(authority: Authority) -> None:
    assert problem(authority.pair("encrypted", key_password=PASSWORD)) is None


def test_a_password_that_is_not_needed_does_no_harm(authority: Authority) -> None:
    pair = authority.pair("plain")
    assert problem(ClientCertificate(pair.certificate_file, pair.key_file, PASSWORD)) is None


def test_an_encrypted_key_without_its_password_is_said(authority: Authority) -> None:
    pair = authority.pair("locked", key_password=PASSWORD)
    closed = ClientCertificate(pair.certificate_file, pair.key_file)
    assert str(problem(closed)).endswith("is encrypted with a password: set THE_PASSWORD.")
    assert str(problem(closed, password_name=None)).endswith("store it without one.")


def test_a_wrong_password_is_said_and_not_shown(authority: Authority) -> None:
    pair = authority.pair("locked", key_password=PASSWORD)
    said = str(problem(ClientCertificate(pair.certificate_file, pair.key_file, "a guess")))
    assert "which THE_PASSWORD does not open" in said
    assert "guess" not in said


def test_a_key_of_another_certificate_is_said(authority: Authority) -> None:
    one, other = authority.pair("one"), authority.pair("other")
    mixed = ClientCertificate(one.certificate_file, other.key_file)
    assert "does not belong to the certificate in THE_CERTIFICATE" in str(problem(mixed))


def test_a_certificate_that_has_ended_is_said_with_the_day(authority: Authority) -> None:
    ended = NOW - timedelta(days=1)
    pair = authority.pair("ended", not_before=NOW - timedelta(days=9), not_after=ended)
    assert f"whose validity ended on {ended:%Y-%m-%d}: renew it." in str(problem(pair))


def test_a_certificate_that_begins_later_is_said(authority: Authority) -> None:
    begins = NOW + timedelta(days=1)
    pair = authority.pair("later", not_before=begins, not_after=NOW + timedelta(days=9))
    assert f"whose validity begins on {begins:%Y-%m-%d}: look at the clock." in str(problem(pair))


@pytest.mark.parametrize("part", ["certificate_file", "key_file"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "which cannot be read (No such file or directory)"), (b"words", "in PEM form: mount it.")],
    ids=["missing", "something else"],
)
def test_a_file_that_is_not_what_it_should_be_is_said(
    authority: Authority, tmp_path: Path, part: str, content: bytes | None, sentence: str
) -> None:
    good = authority.pair("good")
    files = {"certificate_file": good.certificate_file, "key_file": good.key_file}
    files[part] = tmp_path / "file.pem"
    if content is not None:
        files[part].write_bytes(content)
    said = str(problem(ClientCertificate(files["certificate_file"], files["key_file"])))
    assert sentence in said
    assert said.startswith("THE_CERTIFICATE" if part == "certificate_file" else "THE_KEY")
