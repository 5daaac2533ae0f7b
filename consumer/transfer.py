"""Transfer: one HTTP request of the Vault client, from asking to a file, with its failures in our words.

Nothing of a network error's own text is kept: it holds the URL, and with it the signature.
"""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import urljoin

import requests
import urllib3

from consumer.egress import GuardedSession, host_of
from consumer.errors import (
    DiskFull,
    RecordingRefused,
    RecordingTooLarge,
    RecordingUnavailable,
    SignedUrlExpired,
    UrlForbidden,
)

MAX_ANSWER_BYTES = 65536
"""Of an answer that is not a recording: a link and a few words."""
_CHUNK_BYTES = 1 << 20
_HEALING_STATUS = frozenset({408, 421, 423, 425, 429})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"{")


class Interrupted(RecordingUnavailable):
    """The connection broke off: worth another try at once."""


@contextmanager
def ask(
    session: GuardedSession,
    method: str,
    url: str,
    *,
    headers: dict[str, bytes] | None = None,
    timeout_seconds: tuple[float, float],
) -> Iterator[requests.Response]:
    """Give the answer to one request, its body not yet read; redirects are answers too.

    Args:
        session: carries the request.
        method, url, headers: what is asked.
        timeout_seconds: to connect, and for one silence.

    Raises:
        Interrupted, RecordingUnavailable: no connection, no answer in time, or a body that breaks off.
        UrlForbidden: not a URL, or it leads to an inside address.
    """
    host = host_of(url)
    if not host:
        raise UrlForbidden("A link to the recording is not a valid URL: not followed.")
    try:
        with session.fetch(method, url, headers=headers, timeout=timeout_seconds) as response:
            yield response
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        raise RecordingUnavailable(f"{host} did not answer in time.") from None
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        # Both libraries keep the cause in their words only.
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = f"The certificate of {host} is not trusted: name its CA in VAULT_CA_FILE."
        else:
            why = f"{host} does not speak TLS as we do: is it http:// rather than https://?"
        raise RecordingUnavailable(why) from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
        raise UrlForbidden("A link to the recording is not a valid URL: not followed.") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        kind = type(error).__name__
        raise Interrupted(f"The connection to {host} failed or broke off ({kind}).") from None


def redirect_target(response: requests.Response) -> str | None:
    """Return where an answer leads on to, or None when it does not."""
    target = response.headers.get("Location")
    if target is None or response.status_code not in (301, 302, 303, 307, 308):
        return None
    try:
        return urljoin(response.url, target)
    except ValueError:
        raise UrlForbidden("A redirect leads to something that is not a URL: not followed.") from None


def check_status(response: requests.Response, who: str) -> None:
    """Return if the answer is a 200; `who` begins the sentence of the error.

    Raises:
        SignedUrlExpired: a 403 that says so.
        RecordingRefused: any other 4xx that is not about load or time.
        RecordingUnavailable: everything else.
    """
    status = response.status_code
    if status == HTTPStatus.OK:
        return
    if status == HTTPStatus.FORBIDDEN and b"expired" in read_answer(response).lower():
        raise SignedUrlExpired(f"{who} has expired (403): the next try asks Vault for a new link.")
    if 400 <= status < 500 and status not in _HEALING_STATUS:
        raise RecordingRefused(
            f"{who} refuses this recording with {status}: see whether it is still stored, and for whom."
        )
    raise RecordingUnavailable(f"{who} answered with {status} instead of the recording.")


def read_answer(response: requests.Response) -> bytes:
    """Return the body of an answer that is not a recording, at most MAX_ANSWER_BYTES of it."""
    answer = b""
    for chunk in _chunks(response):
        answer += chunk
        if len(answer) >= MAX_ANSWER_BYTES:
            break
    return answer[:MAX_ANSWER_BYTES]


def save_recording(response: requests.Response, file: BinaryIO, *, who: str, max_bytes: int) -> None:
    """Write the body of an answer into a file, from the file's beginning; never more than the limit.

    Raises:
        RecordingTooLarge: it says so, or more bytes come than allowed.
        RecordingUnavailable: it is a page or a message.
        DiskFull: there is no room for it.
        RecordingRefused, SignedUrlExpired: see check_status.
    """
    check_status(response, who)
    too_large = RecordingTooLarge(
        f"The recording is larger than {max_bytes} bytes: raise MAX_RECORDING_BYTES to look at it."
    )
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:
        raise too_large
    written = 0
    with full_disk_is_an_outage():
        file.seek(0)
        file.truncate()
    for chunk in _chunks(response):
        if written == 0 and _is_page(response, chunk):
            raise RecordingUnavailable(f"{who} answered with a page or a message instead of a recording.")
        written += len(chunk)
        if written > max_bytes:
            raise too_large
        with full_disk_is_an_outage():
            file.write(chunk)
    with full_disk_is_an_outage():
        file.flush()


def _chunks(response: requests.Response) -> Iterator[bytes]:
    # read1 gives what has come; read would wait for a full chunk, however slowly it drips.
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        yield chunk


def _is_page(response: requests.Response, chunk: bytes) -> bool:
    kind = response.headers.get("Content-Type", "").lower()
    return kind.startswith("text/html") or chunk[:64].lstrip().lower().startswith(_PAGE_STARTS)


@contextmanager
def full_disk_is_an_outage() -> Iterator[None]:
    """Turn a failure to write into an outage: the next recording would meet it too.

    Raises:
        DiskFull: there is no room, no such directory, or no right to write there; says what to do.
        OSError: this process has too many files open, which is not the disk's fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise
        remedy = "make room there" if error.errno in _NO_ROOM else "mount a directory that we may write to"
        raise DiskFull(
            f"A recording cannot be written to TMPDIR, {tempfile.gettempdir()} ({error.strerror}): {remedy}."
        ) from None
