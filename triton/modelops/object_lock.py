"""The lock of a repository in an object store: numbered objects, each created by a conditional put.

The highest number holds. A holder that was killed cannot release; once its time has run out, whoever comes
creates the next number, and the store lets only one of them do so. A holder that was merely slow notices:
it changes nothing more after its own time has run out.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from consumer.errors import SetupError
from modelops.object_store import ObjectStore

LEASE_SECONDS = 120.0
"""How long a holder may work without having renewed its lock."""

_GRACE_SECONDS = 60.0
"""How far the clocks of two machines may be apart."""


@dataclass(frozen=True)
class _Held:
    """What a lock object says; times are ISO 8601, UTC."""

    holder: str
    pid: int
    host: str
    since: str
    expires: str
    released: bool = False

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "_Held":
        return cls(**json.loads(content))

    def is_over(self, now: datetime) -> bool:
        return self.released or self.stale_at <= now

    @property
    def stale_at(self) -> datetime:
        return datetime.fromisoformat(self.expires) + timedelta(seconds=_GRACE_SECONDS)


class ObjectLock:
    """Keeps two publishers apart; `hold` it, and `check` it before every change."""

    def __init__(
        self,
        store: ObjectStore,
        directory: str,
        where: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._directory, self._where = store, directory, where
        self._lease_seconds, self._now = lease_seconds, now
        self._valid_until = 0.0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Take the lock, keep it while the block runs, give it back.

        Raises:
            SetupError: another process holds it; says which one, since when, and when that will be over.
        """
        now = self._now()
        held = _Held(uuid4().hex, os.getpid(), socket.gethostname(), _text(now), _text(self._expiry(now)))
        started = time.monotonic()
        key = self._take(held, now)
        self._valid_until = started + self._lease_seconds
        done = threading.Event()
        renewing = threading.Thread(
            target=self._renew, args=(key, held, done), name="repository-lock", daemon=True
        )
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._valid_until = 0.0
            # A lock that cannot be given back runs out by itself.
            with contextlib.suppress(OSError):
                if self._is_ours(key):
                    self._store.put(key, replace(held, released=True).to_json())

    def check(self) -> None:
        """Check that the lock is still ours.

        Raises:
            SetupError: it could not be renewed in time, and may be another's by now.
        """
        if time.monotonic() >= self._valid_until:
            raise SetupError(
                f"The lock of {self._where} could not be renewed for {self._lease_seconds:.0f} seconds and "
                "may be another's by now: run this again."
            )

    def is_held(self) -> bool:
        """Whether anybody holds it now."""
        numbers = self._numbers()
        if not numbers:
            return False
        held = self._read(self._key(numbers[-1]))
        return held is not None and not held.is_over(self._now())

    def _take(self, held: _Held, now: datetime) -> str:
        numbers = self._numbers()
        if numbers:
            holder = self._read(self._key(numbers[-1]))
            if holder is not None and not holder.is_over(now):
                raise SetupError(self._taken(holder))
        number = max(numbers, default=0) + 1
        key = self._key(number)
        created = self._store.create(key, held.to_json())
        # Between the list and the put, a faster one may have come, gone, and cleared this number away.
        if not created or self._numbers()[-1] != number:
            if created:
                self._store.delete(key)
            raise SetupError(self._taken(self._read(self._key(self._numbers()[-1]))))
        if self._store.create(key, held.to_json()):
            self._store.delete(key)
            raise SetupError(
                f"The store of {self._where} writes objects that it was asked to write only if they are not "
                "there (If-None-Match), so two publishers would not be kept apart: use a newer release of it."
            )
        for older in numbers:
            self._store.delete(self._key(older))
        return key

    def _renew(self, key: str, held: _Held, done: threading.Event) -> None:
        while not done.wait(self._lease_seconds / 4):
            started = time.monotonic()
            # A failed renewal is tried again; `check` stops the work when it has failed for too long.
            with contextlib.suppress(OSError):
                if not self._is_ours(key):
                    self._valid_until = 0.0
                    return
                renewed = replace(held, expires=_text(self._expiry(self._now())))
                self._store.put(key, renewed.to_json())
                self._valid_until = started + self._lease_seconds

    def _is_ours(self, key: str) -> bool:
        numbers = self._numbers()
        return bool(numbers) and self._key(numbers[-1]) == key

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self._store.names(self._directory))
        return sorted(int(name) for name in names if name.isdecimal())

    def _key(self, number: int) -> str:
        return f"{self._directory}/{number:06d}.json"

    def _read(self, key: str) -> _Held | None:
        try:
            return _Held.from_json(self._store.get(key))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise SetupError(f"{key} is not a lock of a model repository ({error}): remove it.") from error

    def _taken(self, holder: _Held | None) -> str:
        who, until = "a process that has only just begun", "until it is done"
        if holder is not None:
            who = f"process {holder.pid} on {holder.host}, since {holder.since}"
            until = f"until it is done, or if it was killed until {_text(holder.stale_at)}"
        return f"Another process changes {self._where} ({who}): wait {until}, then run this again."

    def _expiry(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._lease_seconds)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
