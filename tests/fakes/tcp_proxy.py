"""TCP proxies that make a link slow, break it, or swallow what is sent: what a network does on a bad day.

All proxies share one thread with one asyncio loop. What a link is like can be changed at any time, from any
thread, also for the connections that are open.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_CHUNK_BYTES = 16_384
_QUEUED_CHUNKS = 64
_BLACK_HOLE_POLL_SECONDS = 0.05
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: close() sends RST instead of FIN (socket(7))."""


@dataclass(frozen=True)
class Link:
    """What a link is like.

    Args:
        latency_seconds: added to each piece, one way.
        bytes_per_second: for each connection and direction; None does not limit.
        black_hole: nothing arrives; it goes on where it was once that is over, as TCP sends again.
        reset_share: of new connections that are broken off at once, 0 to 1.
    """

    latency_seconds: float = 0.0
    bytes_per_second: float | None = None
    black_hole: bool = False
    reset_share: float = 0.0


SOUND = Link()


class TcpProxy:
    """One way to one server: connections to `port` of 127.0.0.1 lead to `target_port`.

    Args:
        loop: where it runs; made by `ProxyLoop`.
        port: where it listens.
        target_port: of 127.0.0.1; where nobody listens, connections are reset.
    """

    def __init__(self, loop: "ProxyLoop", port: int, target_port: int) -> None:
        self.link = SOUND
        """What the link is like now; set it to change it."""
        self.hits = 0
        """Connections and pieces that met it when it was not sound."""
        self.port, self._target_port, self._loop = port, target_port, loop
        self._open: set[asyncio.StreamWriter] = set()
        self._rng = random.Random(port)
        loop.call(self._listen())

    def reset_all(self) -> None:
        """Break every open connection off hard."""
        self._loop.call(self._reset_all())

    async def _listen(self) -> None:
        await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_CHUNK_BYTES)

    async def _reset_all(self) -> None:
        for writer in list(self._open):
            self.hits += 1
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The loop's end cancels this; asyncio would write a traceback of it.
        with contextlib.suppress(asyncio.CancelledError), self._kept(writer):
            if self._rng.random() < self.link.reset_share:
                self.hits += 1
                return
            try:
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", self._target_port, limit=_CHUNK_BYTES
                )
            except OSError:
                return
            with self._kept(far_writer):
                pumps = [
                    asyncio.create_task(self._pump(reader, far_writer)),
                    asyncio.create_task(self._pump(far_reader, writer)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    @contextlib.contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        _without_delay(writer)
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            _reset(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until it ends, each piece as late as the link says; raises where it breaks."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(_QUEUED_CHUNKS)

        async def take() -> None:
            data: bytes | OSError = b"first"
            while data and not isinstance(data, OSError):
                try:
                    data = await reader.read(_CHUNK_BYTES)
                except OSError as error:
                    data = error
                await pieces.put((loop.time() + self.link.latency_seconds, data))

        taking = asyncio.create_task(take())
        try:
            while True:
                due, data = await pieces.get()
                self.hits += self.link is not SOUND
                await asyncio.sleep(max(0.0, due - loop.time()))
                while self.link.black_hole:
                    await asyncio.sleep(_BLACK_HOLE_POLL_SECONDS)
                if isinstance(data, OSError):
                    raise data
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
                if self.link.bytes_per_second:
                    await asyncio.sleep(len(data) / self.link.bytes_per_second)
        finally:
            taking.cancel()


class ProxyLoop:
    """The thread that proxies run in, as a context manager; its end breaks all connections off."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the loop and wait until it is done."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _without_delay(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    writer.transport.abort()
