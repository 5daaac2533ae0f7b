"""The Vault client finds the best way to a recording, and tells an outage from a lost recording."""

import json
import resource
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import (
    DiskFull,
    Outage,
    RecordingError,
    RecordingRefused,
    RecordingTooLarge,
    RecordingUnavailable,
    VaultAway,
    VaultMLError,
)
from consumer.events import RecordingEvent
from consumer.vault import VaultClient, VaultSettings
from tests.fakes import faulty_vault
from tests.fakes.faulty_vault import Fault, FaultyVault

KEY = "youruser/1630643468_6-967003_highway4_200-200-400-400_24_769.mp4"
EVENT = RecordingEvent({}, KEY, "storj")
CHUNK = b"\0" * 1000
KEYS: dict[str, Any] = {"access_key": "the-access-key", "secret_key": "the-secret-key"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return faulty_vault.clip(tmp_path)


@pytest.fixture
def vault(clip: Path) -> Iterator[FaultyVault]:
    with FaultyVault(
        recordings={KEY: clip}, access_key="the-access-key", secret_key="the-secret-key"
    ) as vault:
        yield vault


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Path]:
    """A directory that must be empty again at the end."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    yield directory
    assert list(directory.iterdir()) == []


def _client(vault: FaultyVault, **more: Any) -> VaultClient:  # noqa: ANN401  # handed on
    return VaultClient(
        VaultSettings(**{"api_url": vault.url, "access_key": "the-access-key", "secret_key": "the-secret-key",
                         "read_timeout_seconds": 10.0, **more})
    )  # fmt: skip


def _fetch(vault: FaultyVault, downloads: Path, event: RecordingEvent = EVENT, **more: Any) -> bytes:  # noqa: ANN401  # handed on
    with _client(vault, **more) as client, client.fetch(event, downloads) as media, media.open() as file:
        return file.read()


def _failure(
    vault: FaultyVault,
    downloads: Path,
    event: RecordingEvent = EVENT,
    **more: Any,  # noqa: ANN401  # handed on
) -> VaultMLError:
    with pytest.raises((RecordingError, Outage)) as failure:
        _fetch(vault, downloads, event, **more)
    # Nothing secret may be read in an error, not even in what it was made from.
    told = repr(failure.value) + repr(failure.value.__cause__)
    assert "the-secret-key" not in told
    assert "s=" not in told
    return failure.value


def _linked(vault: FaultyVault, lifetime_seconds: float = 600.0) -> RecordingEvent:
    return RecordingEvent({}, KEY, "storj", signed_url=vault.signed_url(KEY, lifetime_seconds))


# The three ways.


def test_the_events_own_link_is_the_first_way(vault: FaultyVault, downloads: Path, clip: Path) -> None:
    assert _fetch(vault, downloads, _linked(vault)) == clip.read_bytes()
    assert vault.requests == {"POST /ping": 1, "GET /storage/signed": 1}


def test_without_a_link_vault_is_asked_for_one(vault: FaultyVault, downloads: Path, clip: Path) -> None:
    assert _fetch(vault, downloads) == clip.read_bytes()
    assert vault.requests == {"POST /ping": 1, "GET /storage": 1, "GET /storage/signed": 1}


def test_an_expired_link_falls_to_the_next_way(vault: FaultyVault, downloads: Path, clip: Path) -> None:
    assert _fetch(vault, downloads, _linked(vault, -60)) == clip.read_bytes()
    assert vault.requests["GET /storage"] == 1
    assert vault.requests["GET /storage/signed"] == 2


@pytest.mark.parametrize(
    "fault",
    [
        faulty_vault.link_to(""),
        faulty_vault.answer(b'{"data": 7}'),
        faulty_vault.answer(b'{"data"'),
        faulty_vault.answer(b"[]"),
        faulty_vault.answer(b"<html>Sign in</html>", Content_Type="text/html"),
        faulty_vault.link_to("ftp://store.example.com/x?s=1"),
        faulty_vault.link_to("http://[::bad/x?s=1"),
        faulty_vault.link_to("https://no-such-host.invalid/x?s=1"),
        faulty_vault.link_to("not a link"),
        faulty_vault.status(404),
        faulty_vault.status(500),
        faulty_vault.redirect("https://no-such-host.invalid/"),
        faulty_vault.endless(),
        faulty_vault.endless(500),
    ],
    ids=["empty", "number", "broken", "list", "page", "ftp", "bad url", "no host", "no link", "404", "500",
         "redirect", "endless", "endless 500"],
)  # fmt: skip
def test_where_vault_gives_no_link_the_blob_is_the_last_way(
    vault: FaultyVault, downloads: Path, clip: Path, fault: Fault
) -> None:
    vault.faults["GET /storage"] = fault
    assert _fetch(vault, downloads) == clip.read_bytes()
    assert vault.requests["GET /storage/blob"] == 1


def test_a_blob_that_is_redirected_is_followed_without_the_keys(
    vault: FaultyVault, downloads: Path, clip: Path
) -> None:
    vault.faults["GET /storage"] = faulty_vault.status(404)
    vault.faults["GET /storage/blob"] = faulty_vault.redirect(vault.signed_url(KEY), 307)
    assert _fetch(vault, downloads) == clip.read_bytes()
    asked, headers = vault.seen[-1]
    assert asked.startswith("GET /api/storage/signed")
    assert not [name for name in headers if name.lower().startswith("x-kerberos")]


# How Vault is asked.


@pytest.mark.parametrize("prefix", ["/api", ""], ids=["with /api", "without"])
@pytest.mark.parametrize("said", ["origin", "url", "with a slash"])
def test_the_api_is_found_with_and_without_api_in_its_url(
    clip: Path, downloads: Path, prefix: str, said: str
) -> None:
    with FaultyVault(recordings={KEY: clip}, prefix=prefix, **KEYS) as vault:
        url = {"origin": vault.origin, "url": vault.url, "with a slash": vault.origin + "/"}[said]
        assert _fetch(vault, downloads, api_url=url) == clip.read_bytes()


def test_keys_and_names_travel_in_vaults_headers(vault: FaultyVault, downloads: Path) -> None:
    _fetch(vault, downloads)
    headers = next(headers for asked, headers in vault.seen if asked == "GET /api/storage")
    assert headers["X-Kerberos-Storage-FileName"] == KEY
    assert headers["X-Kerberos-Storage-Provider"] == "storj"
    assert headers["X-Kerberos-Storage-AccessKey"] == "the-access-key"
    assert headers["X-Kerberos-Storage-SecretAccessKey"] == "the-secret-key"


def test_an_event_without_source_names_no_provider(vault: FaultyVault, downloads: Path) -> None:
    _fetch(vault, downloads, RecordingEvent({}, KEY))
    headers = next(headers for asked, headers in vault.seen if asked == "GET /api/storage")
    assert "X-Kerberos-Storage-Provider" not in headers


@pytest.mark.parametrize("key", ["youruser/Ångström_日本.mp4", "youruser/a b+c%20d.mp4", "x" * 2000 + ".mp4"])
def test_any_key_that_an_event_can_have_reaches_vault(
    vault: FaultyVault, downloads: Path, clip: Path, key: str
) -> None:
    vault.add(key, clip)
    assert _fetch(vault, downloads, RecordingEvent({}, key, "störj")) == clip.read_bytes()


# The file.


def test_the_file_is_private_and_gone_afterwards(vault: FaultyVault, downloads: Path) -> None:
    with _client(vault) as client:
        with client.fetch(EVENT, downloads) as media:
            assert stat.S_IMODE(media.path.stat().st_mode) & 0o077 == 0
            assert media.name == KEY
            assert list(downloads.iterdir()) == [], "it has no name, so a kill -9 leaves nothing behind"
            with media.open() as one, media.open() as other:
                one.seek(100)
                assert other.tell() == 0, "each reader has a place of its own"
            assert media.size_bytes == media.path.stat().st_size
        assert not media.path.exists()


def test_the_file_is_gone_when_the_work_on_it_fails(vault: FaultyVault, downloads: Path) -> None:
    with _client(vault) as client, pytest.raises(ZeroDivisionError), client.fetch(EVENT, downloads):
        raise ZeroDivisionError


def test_a_failed_download_never_leaves_the_bytes_of_another_recording(
    vault: FaultyVault, downloads: Path, clip: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.mp4"
    short.write_bytes(clip.read_bytes()[:100])
    vault.add("short.mp4", short)
    # The first way brings much and breaks off; the way that works brings little.
    vault.faults["GET /storage/signed"] = faulty_vault.cut_off(b"\1" * 200_000)
    assert _fetch(vault, downloads, RecordingEvent({}, "short.mp4")) == short.read_bytes()


def test_a_recording_of_zero_bytes_is_a_file_of_zero_bytes(
    vault: FaultyVault, downloads: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.mp4").touch()
    vault.add("empty.mp4", tmp_path / "empty.mp4")
    assert _fetch(vault, downloads, RecordingEvent({}, "empty.mp4")) == b""


def test_a_full_disk_is_an_outage(vault: FaultyVault, downloads: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        failure = _failure(vault, downloads)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert type(failure) is DiskFull
    assert "make room" in str(failure)
    assert f"TMPDIR, {tempfile.gettempdir()}" in str(failure)


def test_a_temporary_directory_that_is_not_there_is_an_outage_that_no_room_would_mend(
    vault: FaultyVault, downloads: Path
) -> None:
    failure = _failure(vault, downloads / "not-mounted")
    assert type(failure) is DiskFull
    assert "No such file or directory" in str(failure)
    assert "mount a directory that we may write to" in str(failure)
    assert "make room" not in str(failure)


# What is too much, too little, too slow.


@pytest.mark.parametrize(
    "fault",
    [
        faulty_vault.answer(b"\0" * 50_001),
        faulty_vault.endless(),
        faulty_vault.endless(200, Content_Length="9" * 30),
        faulty_vault.endless(200, Content_Length="-1"),
        faulty_vault.bomb(50_000_000),
    ],
    ids=["declared", "endless", "absurd length", "negative length", "compressed"],
)
def test_a_recording_that_is_too_large_is_not_fetched(
    vault: FaultyVault, downloads: Path, fault: Fault
) -> None:
    vault.faults["GET /storage/signed"] = fault
    failure = _failure(vault, downloads, max_recording_bytes=50_000)
    assert type(failure) is RecordingTooLarge
    assert "MAX_RECORDING_BYTES" in str(failure)
    assert vault.requests["GET /storage/blob"] == 0


def test_a_recording_of_exactly_the_limit_is_fetched(vault: FaultyVault, downloads: Path, clip: Path) -> None:
    size = clip.stat().st_size
    assert len(_fetch(vault, downloads, max_recording_bytes=size)) == size


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_breaks_off_is_noticed_and_fetched_again(
    vault: FaultyVault, downloads: Path, clip: Path, chunked: bool
) -> None:
    vault.faults["GET /storage/signed"] = [faulty_vault.cut_off(clip.read_bytes()[:70_000], chunked=chunked)]
    assert _fetch(vault, downloads) == clip.read_bytes()
    assert vault.requests["GET /storage/blob"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        faulty_vault.cut_off(b"\0" * 1000),
        faulty_vault.cut_off(b"\0" * 1000, chunked=True),
        faulty_vault.reset,
    ],
    ids=["length", "chunked", "reset"],
)
def test_a_body_that_always_breaks_off_may_heal(vault: FaultyVault, downloads: Path, fault: Fault) -> None:
    vault.faults["GET /storage/signed"] = vault.faults["GET /storage/blob"] = fault
    failure = _failure(vault, downloads)
    assert isinstance(failure, RecordingUnavailable)
    assert "broke off" in str(failure)
    assert vault.requests["GET /storage/blob"] == 3


@pytest.mark.timeout(60)  # without the deadline, these last for ever
@pytest.mark.parametrize(
    "fault",
    [
        faulty_vault.drip_body,
        faulty_vault.drip_body_without_length,
        faulty_vault.drip_headers,
        faulty_vault.continue_for_ever,
    ],
    ids=["body", "body without length", "headers", "100 Continue"],
)
def test_a_dripping_download_ends_at_the_deadline(vault: FaultyVault, downloads: Path, fault: Fault) -> None:
    vault.faults["GET /storage/signed"] = vault.faults["GET /storage/blob"] = fault
    failure = _failure(vault, downloads, download_deadline_seconds=0.5)
    assert type(failure) is RecordingUnavailable
    assert "not finished within 0.5 s" in str(failure)


@pytest.mark.timeout(60)  # without the deadline, these last for ever
@pytest.mark.parametrize(
    "fault",
    [faulty_vault.drip_headers, faulty_vault.continue_for_ever, faulty_vault.silence],
    ids=["headers", "100 Continue", "silence"],
)
def test_a_ping_that_drips_is_a_vault_that_is_away(vault: FaultyVault, fault: Fault) -> None:
    vault.faults["POST /ping"] = fault
    with _client(vault, ping_deadline_seconds=0.5) as client, pytest.raises(VaultAway) as failure:
        client.ping()
    assert "does not answer" in str(failure.value)


@pytest.mark.timeout(60)  # without a limit, these fill the memory
@pytest.mark.parametrize(
    "fault", [faulty_vault.flood_of_headers, faulty_vault.endless_header], ids=["many", "long"]
)
def test_headers_without_end_are_not_read_to_the_end(
    vault: FaultyVault, downloads: Path, fault: Fault
) -> None:
    vault.faults["GET /storage/signed"] = vault.faults["GET /storage/blob"] = fault
    failure = _failure(vault, downloads)
    assert isinstance(failure, RecordingUnavailable)
    assert "failed or broke off" in str(failure)


def test_silence_ends_at_the_read_time_out(vault: FaultyVault, downloads: Path) -> None:
    vault.faults["GET /storage/signed"] = vault.faults["GET /storage/blob"] = faulty_vault.silence
    failure = _failure(vault, downloads, read_timeout_seconds=0.3)
    assert isinstance(failure, RecordingUnavailable)
    assert "did not answer in time" in str(failure)


def test_the_client_goes_on_after_a_deadline(vault: FaultyVault, downloads: Path, clip: Path) -> None:
    with _client(vault, download_deadline_seconds=0.5) as client:
        vault.faults["GET /storage/signed"] = vault.faults["GET /storage/blob"] = faulty_vault.drip_body
        with pytest.raises(RecordingUnavailable), client.fetch(EVENT, downloads):
            pass
        vault.faults.clear()
        with client.fetch(EVENT, downloads) as media:
            assert media.size_bytes == clip.stat().st_size


@pytest.mark.parametrize(
    "fault",
    [
        faulty_vault.answer(b"<!DOCTYPE html><p>Sign in", Content_Type="text/html; charset=utf-8"),
        faulty_vault.answer(b"  <html>"),
        faulty_vault.answer(b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>'),
        faulty_vault.answer(b'{"message": "try later"}', Content_Type="application/json"),
        faulty_vault.endless(Content_Type="text/html"),
    ],
    ids=["html", "html by content", "xml", "json", "endless html"],
)
def test_a_page_is_not_taken_for_a_recording(vault: FaultyVault, downloads: Path, fault: Fault) -> None:
    vault.faults["GET /storage/signed"] = vault.faults["GET /storage/blob"] = fault
    failure = _failure(vault, downloads)
    assert isinstance(failure, RecordingUnavailable)
    assert "instead of a recording" in str(failure)


# An outage, or this recording.


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 431])
def test_a_recording_that_is_refused_while_the_ping_is_fine_never_heals(
    vault: FaultyVault, downloads: Path, code: int
) -> None:
    vault.faults["GET /storage"] = vault.faults["GET /storage/blob"] = faulty_vault.status(code)
    failure = _failure(vault, downloads)
    assert type(failure) is RecordingRefused
    assert str(code) in str(failure)


def test_a_recording_that_is_not_stored_is_refused(vault: FaultyVault, downloads: Path) -> None:
    assert type(_failure(vault, downloads, RecordingEvent({}, "gone.mp4"))) is RecordingRefused


@pytest.mark.parametrize("code", [204, 206, 302, 408, 429, 500, 502, 503, 504])
def test_a_recording_that_vault_cannot_give_now_may_heal(
    vault: FaultyVault, downloads: Path, code: int
) -> None:
    vault.faults["GET /storage"] = vault.faults["GET /storage/blob"] = faulty_vault.status(code)
    assert isinstance(_failure(vault, downloads), RecordingUnavailable)


def test_a_store_that_is_away_may_heal_though_vault_has_no_blob_route(
    vault: FaultyVault, downloads: Path
) -> None:
    vault.faults["GET /storage/signed"] = faulty_vault.status(503)
    vault.faults["GET /storage/blob"] = faulty_vault.status(404)
    assert isinstance(_failure(vault, downloads), RecordingUnavailable)


def test_what_vault_says_counts_more_than_the_events_stale_link(vault: FaultyVault, downloads: Path) -> None:
    event = RecordingEvent({}, "gone.mp4", signed_url=vault.signed_url("gone.mp4"))
    vault.faults["GET /storage/signed"] = faulty_vault.status(503)
    assert type(_failure(vault, downloads, event)) is RecordingRefused


@pytest.mark.parametrize(
    "fault",
    [
        faulty_vault.status(401),
        faulty_vault.status(403),
        faulty_vault.status(404),
        faulty_vault.status(500),
        faulty_vault.status(503),
        faulty_vault.reset,
        faulty_vault.answer(b"<html>", Content_Type="text/html"),
        faulty_vault.redirect("https://vault.example.com/api/ping?s=1"),
    ],
    ids=["401", "403", "404", "500", "503", "reset", "page", "redirect"],
)
@pytest.mark.parametrize("recording", [401, 404, 500])
def test_a_ping_that_fails_makes_it_an_outage(
    vault: FaultyVault, downloads: Path, fault: Fault, recording: int
) -> None:
    with _client(vault) as client:
        client.ping()
        vault.faults["GET /storage"] = vault.faults["GET /storage/blob"] = faulty_vault.status(recording)
        vault.faults["POST /ping"] = fault
        with pytest.raises(VaultAway), client.fetch(EVENT, downloads):
            pass


def test_a_vault_that_is_not_there_is_away(clip: Path, downloads: Path) -> None:
    with FaultyVault(recordings={KEY: clip}) as vault:
        url = vault.url
    with VaultClient(VaultSettings(url, "a", "s")) as client, pytest.raises(VaultAway) as failure:
        client.ping()
    assert "does not answer" in str(failure.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"secret_key": "another-key"}, "check VAULT_ACCESS_KEY"),
        ({"api_url": "{origin}/nowhere/api"}, "check VAULT_API_URL"),
        ({"api_url": "{origin}/nowhere"}, "check VAULT_API_URL"),
    ],
    ids=["keys", "path", "path without api"],
)
def test_an_outage_of_our_own_making_says_which_setting_to_check(
    vault: FaultyVault, settings: dict[str, str], says: str
) -> None:
    told = {name: value.replace("{origin}", vault.origin) for name, value in settings.items()}
    with _client(vault, **told) as client, pytest.raises(VaultAway) as failure:
        client.ping()
    assert says in str(failure.value)
    assert "another-key" not in str(failure.value)


def test_a_ping_that_is_redirected_says_where_to(vault: FaultyVault) -> None:
    vault.faults["POST /ping"] = faulty_vault.redirect("https://vault.example.com/api/ping?token=1")
    with _client(vault) as client, pytest.raises(VaultAway) as failure:
        client.ping()
    assert "https://vault.example.com/api" in str(failure.value)
    assert "token=1" not in str(failure.value)


def test_settings_do_not_show_their_keys() -> None:
    shown = repr(VaultSettings("https://vault.example.com", "the-access-key", "the-secret-key"))
    assert "the-secret-key" not in shown
    assert "the-access-key" not in shown


def test_the_standin_answers_as_vault_does(vault: FaultyVault) -> None:
    """What docs/messages.md says of the routes, without our client in between."""
    import requests

    keys = {
        "X-Kerberos-Storage-FileName": KEY,
        "X-Kerberos-Storage-Provider": "storj",
        "X-Kerberos-Storage-AccessKey": "the-access-key",
        "X-Kerberos-Storage-SecretAccessKey": "the-secret-key",
    }
    wrong = {**keys, "X-Kerberos-Storage-SecretAccessKey": "wrong"}
    link = requests.get(f"{vault.url}/storage", headers=keys, timeout=5).json()["data"]
    assert (
        requests.get(link, timeout=5).content
        == requests.get(f"{vault.url}/storage/blob", headers=keys, timeout=5).content
    )
    assert requests.get(link.replace("s=", "s=0"), timeout=5).status_code == 403
    assert requests.get(f"{vault.url}/health", timeout=5).status_code == 200
    assert requests.post(f"{vault.url}/ping", headers=keys, timeout=5).status_code == 200
    assert requests.post(f"{vault.url}/ping", headers=wrong, timeout=5).status_code == 401
    assert requests.get(f"{vault.url}/storage", headers=wrong, timeout=5).status_code == 401
    assert requests.get(f"{vault.url}/elsewhere", headers=keys, timeout=5).status_code == 404
    nameless = {name: value for name, value in keys.items() if not name.endswith("FileName")}
    assert requests.get(f"{vault.url}/storage", headers=nameless, timeout=5).status_code == 400
    assert json.loads(requests.get(f"{vault.url}/storage", headers=keys, timeout=5).text).keys() == {"data"}
