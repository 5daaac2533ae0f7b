"""Links are followed to where they may lead, never with Vault's keys, and never to inside addresses."""

import base64
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from consumer.egress import Guard, GuardedSession, host_of, is_inside, is_loopback, leads_to, place_of
from consumer.errors import RecordingUnavailable, UrlForbidden, VaultAway
from consumer.events import RecordingEvent
from consumer.transfer import ask
from consumer.vault import VaultClient, VaultSettings
from tests.fakes import faulty_vault
from tests.fakes.faulty_vault import FaultyVault

KEY = "youruser/a.mp4"
EVENT = RecordingEvent({}, KEY)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return faulty_vault.clip(tmp_path)


@pytest.fixture
def vault(clip: Path) -> Iterator[FaultyVault]:
    with FaultyVault(recordings={KEY: clip}) as vault:
        yield vault


@pytest.fixture
def store(clip: Path) -> Iterator[FaultyVault]:
    """An object store: another server, under another host name."""
    with FaultyVault(recordings={KEY: clip}) as store:
        yield store


def _settings(
    vault: FaultyVault, *, hosts: tuple[str, ...] = (), ca_file: Path | None = None, deadline: float = 60.0
) -> VaultSettings:
    return VaultSettings(
        vault.url,
        vault.access_key,
        vault.secret_key,
        ca_file=ca_file,
        signed_url_hosts=hosts,
        download_deadline_seconds=deadline,
    )


def _fetch(settings: VaultSettings, event: RecordingEvent, tmp_path: Path) -> bytes:
    with VaultClient(settings) as client, client.fetch(event, tmp_path) as media:
        return media.path.read_bytes()


def _store_link(store: FaultyVault) -> str:
    return store.named_localhost(store.signed_url(KEY))


def _no_keys(server: FaultyVault) -> bool:
    names = {name.lower() for _, headers in server.seen for name in headers}
    return not any(name.startswith("x-kerberos") or name in ("authorization", "cookie") for name in names)


# Which links.


def test_a_link_of_an_event_to_an_unknown_host_is_ignored(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    event = RecordingEvent({}, KEY, signed_url=_store_link(store))
    assert _fetch(_settings(vault), event, tmp_path) == clip.read_bytes()
    assert store.seen == []


@pytest.mark.parametrize(
    ("link", "hosts"),
    [
        ("https://s3.example/x", {"s3.example"}),
        ("http://s3.example/x", {"s3.example"}),
        ("https://s3.example/x", {"s3.example:443"}),
        ("https://S3.example.:443/x", {"s3.example"}),
        ("http://minio:9000/x", {"minio:9000"}),
    ],
)
def test_a_host_is_known_at_its_usual_port_and_at_the_one_that_is_named(link: str, hosts: set[str]) -> None:
    assert leads_to(link, hosts)


@pytest.mark.parametrize(
    ("link", "hosts"),
    [
        ("http://vault.example:6379/x", {"vault.example"}),
        ("http://vault.example/x", {place_of("https://vault.example/api")}),
        ("https://vault.example:8443/x", {place_of("https://vault.example/api")}),
        ("http://s3.example:443/x", {"s3.example"}),
        ("ftp://s3.example/x", {"s3.example:21"}),
        ("//s3.example/x", {"s3.example:443"}),
        ("https:///x", {"", ":443"}),
    ],
)
def test_a_known_host_is_not_known_at_other_ports_nor_vault_in_the_clear(link: str, hosts: set[str]) -> None:
    assert not leads_to(link, hosts)


def test_a_link_of_an_event_to_a_known_host_is_followed_without_keys(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    host = place_of(_store_link(store))
    event = RecordingEvent({}, KEY, signed_url=_store_link(store))
    assert _fetch(_settings(vault, hosts=(host,)), event, tmp_path) == clip.read_bytes()
    assert len(store.seen) == 1
    assert _no_keys(store)
    assert vault.requests["GET /storage"] == 0


def test_a_known_host_with_a_port_is_not_known_at_another(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    event = RecordingEvent({}, KEY, signed_url=_store_link(store))
    assert _fetch(_settings(vault, hosts=("localhost:9",)), event, tmp_path) == clip.read_bytes()
    assert store.seen == []


def test_a_link_of_an_event_does_not_lead_on_to_an_unknown_host(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    vault.faults["GET /storage/signed"] = [faulty_vault.redirect(_store_link(store))]
    event = RecordingEvent({}, KEY, signed_url=vault.signed_url(KEY))
    assert _fetch(_settings(vault), event, tmp_path) == clip.read_bytes()
    assert store.seen == []
    assert vault.requests["GET /storage"] == 1


def test_a_link_that_vault_gave_is_followed_to_any_host_without_keys(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    vault.faults["GET /storage"] = faulty_vault.link_to(_store_link(store))
    assert _fetch(_settings(vault), EVENT, tmp_path) == clip.read_bytes()
    assert len(store.seen) == 1
    assert _no_keys(store)
    assert vault.requests["GET /storage/blob"] == 0


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_of_such_a_link_is_followed_without_keys(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path, code: int
) -> None:
    vault.faults["GET /storage/signed"] = faulty_vault.redirect(_store_link(store), code)
    assert _fetch(_settings(vault), EVENT, tmp_path) == clip.read_bytes()
    assert len(store.seen) == 1
    assert _no_keys(store)


def test_redirects_in_a_circle_come_to_an_end(vault: FaultyVault, tmp_path: Path) -> None:
    vault.faults["GET /storage/signed"] = faulty_vault.redirect("/api/storage/signed?again=1")
    vault.faults["GET /storage/blob"] = faulty_vault.status(404)
    with pytest.raises(RecordingUnavailable, match="redirected more than"):
        _fetch(_settings(vault), EVENT, tmp_path)


def test_vaults_keys_go_to_no_other_host_when_the_api_itself_redirects(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path
) -> None:
    for route in ("/storage", "/storage/blob"):
        vault.faults[f"GET {route}"] = faulty_vault.redirect(store.named_localhost(store.url + route), 307)
    with pytest.raises(RecordingUnavailable):
        _fetch(_settings(vault), EVENT, tmp_path)
    vault.faults["POST /ping"] = faulty_vault.redirect(store.named_localhost(store.url + "/ping"), 307)
    with VaultClient(_settings(vault)) as client, pytest.raises(VaultAway):
        client.ping()
    assert _no_keys(store)


# Which addresses.


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0",
     "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254",
     "100.100.100.200", "168.63.129.16", "224.0.0.1", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
     "fd00:100::100:200", "fd00:42::42", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:ffff::7f00:1"],
)  # fmt: skip
def test_an_address_of_this_machine_its_link_or_its_cloud_is_inside(address: str) -> None:
    assert is_inside(address)
    with pytest.raises(UrlForbidden):
        Guard("203.0.113.7").check("links.example.com", address)


@pytest.mark.parametrize(
    "address", ["10.0.0.8", "192.168.1.9", "172.16.0.1", "203.0.113.7", "fd12::1", "2001:db8::1"]
)
def test_an_address_of_the_network_is_not_inside(address: str) -> None:
    assert not is_inside(address)
    Guard("203.0.113.7").check("links.example.com", address)


def test_where_vault_itself_is_links_may_lead_too() -> None:
    Guard("127.0.0.1").check("localhost", "127.0.0.1")
    Guard("127.0.0.1").check("localhost", "::1")
    Guard("169.254.10.1").check("store.local", "169.254.10.1")
    with pytest.raises(UrlForbidden):
        Guard("127.0.0.1").check("metadata", "169.254.169.254")
    with pytest.raises(UrlForbidden):
        Guard("169.254.10.1").check("metadata", "169.254.169.254")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST.", "[::ffff:127.0.0.1]", "2130706433"])
def test_an_inside_address_is_not_even_knocked_at(store: FaultyVault, name: str) -> None:
    url = store.signed_url(KEY).replace("127.0.0.1", name)
    with (
        GuardedSession(Guard("203.0.113.7")) as session,
        pytest.raises(UrlForbidden),
        ask(session, "GET", url, timeout_seconds=(5, 5)),
    ):
        pass
    assert store.seen == []


def test_a_name_that_changes_its_address_meanwhile_is_caught_at_the_connection(store: FaultyVault) -> None:
    class Fooled(Guard):
        def check_name(self, host: str) -> None:
            """Find nothing wrong, as with a name that led elsewhere a moment ago."""

    with (
        GuardedSession(Fooled("203.0.113.7")) as session,
        pytest.raises(UrlForbidden),
        ask(session, "GET", store.signed_url(KEY), timeout_seconds=(5, 5)),
    ):
        pass
    assert store.seen == []


def test_vaults_link_to_a_metadata_service_is_not_followed(
    vault: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    vault.faults["GET /storage"] = faulty_vault.link_to("http://169.254.169.254/latest/meta-data/")
    assert _fetch(_settings(vault), EVENT, tmp_path) == clip.read_bytes()
    vault.faults["GET /storage/blob"] = faulty_vault.status(404)
    with pytest.raises(UrlForbidden, match=r"169\.254\.169\.254"):
        _fetch(_settings(vault), EVENT, tmp_path)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Vault.Example.com./x", "vault.example.com"),
        ("http://user:pw@host:8080/x", "host"),
        ("http://[::1]:80/", "::1"),
        ("http://evil\\@host/", "evil"),
        ("http://host:99999/", ""),
        ("http://[::bad/", ""),
        ("http:///x", ""),
    ],
)
def test_the_host_of_a_url_is_read_as_requests_reads_it(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1\\@evil.invalid/x?s=1",
        "http://evil.invalid#@127.0.0.1/",
        "http://127.0.0.1@evil.invalid/x",
    ],
)
def test_a_link_that_hides_its_host_is_not_taken_for_vaults(
    vault: FaultyVault, tmp_path: Path, clip: Path, link: str
) -> None:
    assert _fetch(_settings(vault), RecordingEvent({}, KEY, signed_url=link), tmp_path) == clip.read_bytes()
    assert _no_keys_but_for_the_api(vault)


def _no_keys_but_for_the_api(vault: FaultyVault) -> bool:
    return all(
        asked.split("?")[0] in ("POST /api/ping", "GET /api/storage")
        for asked, headers in vault.seen
        if "X-Kerberos-Storage-SecretAccessKey" in headers
    )


# Nothing from the surroundings.


def test_no_login_is_taken_from_netrc(
    vault: FaultyVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    _fetch(_settings(vault), EVENT, tmp_path)
    assert not any("Authorization" in headers for _, headers in vault.seen)


def test_cookies_are_not_kept(vault: FaultyVault, tmp_path: Path) -> None:
    vault.faults["GET /storage"] = faulty_vault.answer(b"{}", Set_Cookie="session=1; Path=/")
    _fetch(_settings(vault), EVENT, tmp_path)
    assert vault.seen[-1][0] == "GET /api/storage/blob"
    assert not any("Cookie" in headers for _, headers in vault.seen)


def test_this_machine_is_not_asked_for_through_a_proxy(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, store.origin)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    _fetch(_settings(vault), EVENT, tmp_path)
    assert store.seen == []


def test_another_host_is_asked_for_through_the_environments_proxy(
    store: FaultyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", store.origin)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with (
        GuardedSession(Guard("vault.invalid")) as session,
        ask(session, "GET", "http://store.invalid/a.mp4", timeout_seconds=(5, 5)) as response,
    ):
        assert response.status_code == 404
    assert [asked for asked, _ in store.seen] == ["GET http://store.invalid/a.mp4"]


def test_an_inside_address_is_refused_through_a_proxy_too(
    store: FaultyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", store.origin)
    with (
        GuardedSession(Guard("vault.invalid")) as session,
        pytest.raises(UrlForbidden),
        ask(session, "GET", "http://169.254.169.254/latest/", timeout_seconds=(5, 5)),
    ):
        pass
    assert store.seen == []


@pytest.mark.parametrize(
    ("host", "loopback"), [("localhost", True), ("a.localhost", True), ("127.0.0.2", True), ("::1", True),
                           ("localhost.example.com", False), ("10.0.0.1", False), ("", False)],
)  # fmt: skip
def test_this_machine_is_known_by_its_names(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# TLS, with real certificates.


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_vault(clip: Path, ca: trustme.CA) -> Iterator[FaultyVault]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(tls)
    with FaultyVault(recordings={KEY: clip}, tls=tls) as vault:
        yield vault


def test_a_vault_with_a_private_ca_is_trusted_when_told_so(
    tls_vault: FaultyVault, ca: trustme.CA, tmp_path: Path, clip: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    assert _fetch(_settings(tls_vault, ca_file=ca_file), EVENT, tmp_path) == clip.read_bytes()
    assert tls_vault.requests["GET /storage/signed"] == 1


def test_a_vault_with_an_unknown_ca_is_away_and_gets_no_keys(tls_vault: FaultyVault) -> None:
    with VaultClient(_settings(tls_vault)) as client, pytest.raises(VaultAway, match="VAULT_CA_FILE"):
        client.ping()
    assert tls_vault.seen == []


def test_https_to_a_vault_that_speaks_plain_http_is_named_as_that(vault: FaultyVault) -> None:
    settings = replace(_settings(vault), api_url=vault.url.replace("http://", "https://"))
    with VaultClient(settings) as client, pytest.raises(VaultAway, match="does not speak TLS"):
        client.ping()


@pytest.mark.timeout(60)  # without the deadline, it lasts for ever
def test_the_deadline_reaches_through_tls(tls_vault: FaultyVault, ca: trustme.CA, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    tls_vault.faults["GET /storage/signed"] = tls_vault.faults["GET /storage/blob"] = faulty_vault.drip_body
    settings = _settings(tls_vault, ca_file=ca_file, deadline=0.5)
    with pytest.raises(RecordingUnavailable):
        _fetch(settings, EVENT, tmp_path)


def test_a_login_in_a_link_stays_with_that_link(
    vault: FaultyVault, store: FaultyVault, tmp_path: Path, clip: Path
) -> None:
    link = _store_link(store).replace("http://", "http://user:pw@")
    vault.faults["GET /storage"] = faulty_vault.link_to(link)
    assert _fetch(_settings(vault), EVENT, tmp_path) == clip.read_bytes()
    ((_, headers),) = store.seen
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:pw").decode()
    assert not any("Authorization" in seen for _, seen in vault.seen)
