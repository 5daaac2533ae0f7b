"""The Vault client: fetches a recording into a private temporary file, the best way that works.

Three ways, in this order: the signed link of the event (if it leads to Vault or to SIGNED_URL_HOSTS), a link
that Vault signs for us (`GET storage`), the recording from Vault itself (`GET storage/blob`). Vault's keys
go to Vault's own address only. Routes and headers: docs/messages.md.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import requests
import structlog
import tenacity

from consumer.egress import Guard, GuardedSession, host_of, leads_to, place_of
from consumer.errors import (
    MayHeal,
    RecordingError,
    RecordingTooLarge,
    RecordingUnavailable,
    UrlForbidden,
    VaultAway,
)
from consumer.events import RecordingEvent
from consumer.links import mask_links
from consumer.media import FileMedia
from consumer.temporary import private_file
from consumer.transfer import (
    Interrupted,
    ask,
    check_status,
    full_disk_is_an_outage,
    read_answer,
    redirect_target,
    save_recording,
)

MAX_REDIRECTS = 5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class VaultSettings:
    """Where Vault is, our account, and how much patience we have.

    Args:
        api_url: VAULT_API_URL, with or without `/api`.
        access_key, secret_key: of the Vault account.
        ca_file: certificates to trust beside the usual ones; PEM.
        signed_url_hosts: to where links in events may lead, beside Vault itself: `host:port`, or `host` for
            the usual ports of http and https.
        connect_timeout_seconds, read_timeout_seconds: for one connection and for one silence on it.
        ping_deadline_seconds: for one ping, however slowly its answer drips.
        download_deadline_seconds: for everything that `fetch` does but its pings.
        max_recording_bytes: a larger recording is not fetched.
    """

    api_url: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    ca_file: Path | None = None
    signed_url_hosts: tuple[str, ...] = ()
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    ping_deadline_seconds: float = 10.0
    download_deadline_seconds: float = 120.0
    max_recording_bytes: int = 2 * 1024**3


class _NoSuchApi(VaultAway):
    """Something answers there, but not Vault's API."""


class VaultClient:
    """Fetches recordings from one Vault. One per process; not for several threads at a time."""

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        self._host = host_of(settings.api_url)
        self._guard = Guard(self._host)
        self._session = GuardedSession(self._guard, settings.ca_file)
        self._base: str | None = None
        self._keys = {
            "X-Kerberos-Storage-AccessKey": settings.access_key.encode(),
            "X-Kerberos-Storage-SecretAccessKey": settings.secret_key.encode(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ping(self) -> None:
        """Return if Vault answers and knows our keys; finds out whether its API lies under `/api`.

        Raises:
            VaultAway: it does not answer, or refuses our keys.
        """
        refusals: list[VaultAway] = []
        for base in [self._base] if self._base else _bases(self._settings.api_url):
            problem = self._ping(base)
            if problem is None:
                self._base = base
                return
            refusals.append(problem)
        # Where nothing is found under one base, what the other one says is what matters.
        raise max(refusals, key=lambda refusal: not isinstance(refusal, _NoSuchApi))

    @contextmanager
    def fetch(self, event: RecordingEvent, directory: Path) -> Iterator[FileMedia]:
        """Give the recording of an event as a private file in `directory`, which is gone at the end.

        Raises:
            VaultAway: Vault is away for every recording.
            Outage: there is no room on the disk.
            RecordingUnavailable, SignedUrlExpired: it may come with a later try.
            RecordingRefused, RecordingTooLarge, UrlForbidden: it will not.
        """
        with full_disk_is_an_outage():
            file = private_file(directory)
        with file:
            self._download(event, file)
            file.flush()
            # The file has no name: nobody else can open it, and it goes with this process, however that ends.
            yield FileMedia(Path(f"/proc/self/fd/{file.fileno()}"), event.key)

    def _download(self, event: RecordingEvent, file: BinaryIO) -> None:
        if self._base is None:
            self.ping()
        seconds = self._settings.download_deadline_seconds
        failures: list[RecordingError] = []
        with self._guard.deadline(seconds) as passed:
            for way in self._ways(event):
                try:
                    _with_quick_retries(way, file, passed)
                    return
                except RecordingTooLarge:
                    raise
                except RecordingError as error:
                    _log.debug("a way to the recording failed", key=event.key, error=str(error))
                    failures.append(error)
                if passed.is_set():
                    break
        self.ping()
        if passed.is_set():
            raise RecordingUnavailable(
                f"The download was not finished within {seconds:g} s: try again later."
            )
        # The event's own link may be stale: what Vault itself says, it says last.
        heals = (failure for failure in failures[-2:] if isinstance(failure, MayHeal))
        forbidden = (failure for failure in failures[-2:] if isinstance(failure, UrlForbidden))
        raise next(heals, None) or next(forbidden, None) or failures[-1]

    def _ways(self, event: RecordingEvent) -> Iterator[Callable[[BinaryIO], None]]:
        hosts = {place_of(self._settings.api_url), *self._settings.signed_url_hosts}
        if event.signed_url:
            if leads_to(event.signed_url, hosts):
                yield lambda file: self._follow(event.signed_url, file, hosts)
            else:
                _log.debug("the event's link is not followed", host=place_of(event.signed_url))
        yield lambda file: self._follow(self._signed_link(event), file, None)
        yield lambda file: self._blob(event, file)

    def _signed_link(self, event: RecordingEvent) -> str:
        with self._api("/storage", event) as response:
            check_status(response, "Vault (GET storage)")
            try:
                link = json.loads(read_answer(response))["data"]
            except (ValueError, KeyError, TypeError, RecursionError):
                link = None
        if not isinstance(link, str) or not link:
            raise RecordingUnavailable("Vault (GET storage) answered without a link to the recording.")
        return link

    def _blob(self, event: RecordingEvent, file: BinaryIO) -> None:
        with self._api("/storage/blob", event) as response:
            target = redirect_target(response)
            if target is None:
                self._save(response, file, "Vault (GET storage/blob)")
                return
        self._follow(target, file, None)

    def _follow(self, link: str, file: BinaryIO, hosts: Collection[str] | None) -> None:
        """Fetch what a link leads to; every hop must lead to one of `hosts` (None: to any)."""
        for _ in range(MAX_REDIRECTS + 1):
            if not link.lower().startswith(("http://", "https://")):
                raise UrlForbidden("A link to the recording is neither http:// nor https://: not followed.")
            if hosts is not None and not leads_to(link, hosts):
                raise UrlForbidden(
                    f"The event's link leads on to {place_of(link)}: add it to SIGNED_URL_HOSTS to follow it."
                )
            with self._ask("GET", link) as response:
                target = redirect_target(response)
                if target is None:
                    self._save(response, file, f"The signed link to {host_of(link)}")
                    return
            link = target
        raise RecordingUnavailable(f"A link to the recording is redirected more than {MAX_REDIRECTS} times.")

    def _api(self, route: str, event: RecordingEvent) -> AbstractContextManager[requests.Response]:
        """Ask Vault with the keys; they go nowhere else, since redirects are not followed with them."""
        # As bytes: Go takes UTF-8 in headers, http.client would only take Latin-1.
        headers = {**self._keys, "X-Kerberos-Storage-FileName": event.key.encode()}
        if event.source:
            headers["X-Kerberos-Storage-Provider"] = event.source.encode()
        return self._ask("GET", f"{self._base}{route}", headers)

    def _ask(
        self,
        method: str,
        url: str,
        headers: dict[str, bytes] | None = None,
        read_seconds: float | None = None,
    ) -> AbstractContextManager[requests.Response]:
        timeout = (
            self._settings.connect_timeout_seconds,
            read_seconds or self._settings.read_timeout_seconds,
        )
        return ask(self._session, method, url, headers=headers, timeout_seconds=timeout)

    def _save(self, response: requests.Response, file: BinaryIO, who: str) -> None:
        save_recording(response, file, who=who, max_bytes=self._settings.max_recording_bytes)

    def _answer_to_ping(self, base: str) -> tuple[int, str, str | None]:
        """Return status and kind of the answer, and where it leads on to."""
        seconds = self._settings.ping_deadline_seconds
        with (
            self._guard.deadline(seconds) as passed,
            self._ask("POST", f"{base}/ping", self._keys, seconds) as response,
        ):
            answer = response.status_code, response.headers.get("Content-Type", ""), redirect_target(response)
        if passed.is_set():  # headers that are cut off look complete
            raise RecordingUnavailable(f"it took longer than {seconds:g} s.")
        return answer

    def _ping(self, base: str) -> VaultAway | None:
        """Return why this base does not answer as Vault does, or None."""
        try:
            status, kind, target = self._answer_to_ping(base)
        except RecordingError as error:
            return VaultAway(f"Vault does not answer at {base}: {error}")
        if target is not None:
            return VaultAway(
                f"{base}/ping leads on to another place: set VAULT_API_URL to {mask_links(target)}."
            )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return VaultAway(
                f"Vault at {base} refuses our keys ({status}): check VAULT_ACCESS_KEY and VAULT_SECRET_KEY."
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) or kind.startswith("text/html"):
            return _NoSuchApi(f"There is no Vault API at {base} (POST ping: {status}): check VAULT_API_URL.")
        if status != HTTPStatus.OK:
            return VaultAway(f"Vault at {base} answers its ping with {status}: look at its logs.")
        return None


def _with_quick_retries(way: Callable[[BinaryIO], None], file: BinaryIO, passed: threading.Event) -> None:
    """Go one way, again at once where the connection broke; a longer patience is the service's affair."""
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Interrupted),
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_when_event_set(passed),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=1.0),
        sleep=tenacity.sleep_using_event(passed),
        reraise=True,
    ):
        with attempt:
            way(file)
            if passed.is_set():  # a body without a length looks complete when its connection is ended
                raise RecordingUnavailable("The download was ended by its deadline.")


def _bases(api_url: str) -> list[str]:
    """Return where the API may lie: today's Vault has it under `/api`, older ones may not."""
    base = api_url.rstrip("/")
    return [base] if base.endswith("/api") else [f"{base}/api", base]
