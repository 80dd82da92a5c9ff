"""The two adapters through which amqtt reads and writes in memory: exact reads, writes of whole packets, no waiting."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from amqtt.adapters import ReaderAdapter, WriterAdapter


class MemoryReader(ReaderAdapter):  # type: ignore[misc]  # amqtt is not typed for us
    """What amqtt reads. `read` returns without a suspension when the bytes are there."""

    def __init__(self) -> None:
        self._data = b""
        self._position = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes behind those not read yet."""
        left = self._data[self._position :] if self._position < len(self._data) else b""
        self._data, self._position = left + data if left else data, 0
        self._wake()

    def feed_eof(self) -> None:
        """No more will come; what was fed can still be read."""
        self._ended = True
        self._wake()

    @property
    def idle(self) -> bool:
        """Whether everything fed was read and amqtt waits for more."""
        return self._waiter is not None and self._position >= len(self._data)

    async def read(self, n: int = -1) -> bytes:
        """Return exactly `n` bytes, or fewer at the end; all until the end when `n` is negative."""
        while True:
            start = self._position
            end = start + n
            if n >= 0 and end <= len(self._data):
                self._position = end
                return self._data[start:end]
            if self._ended:
                self._position = len(self._data)
                return self._data[start:]
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class MemoryWriter(WriterAdapter):  # type: ignore[misc]
    """What amqtt writes: each `write` is one whole packet. Nothing here waits."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self.closed = False

    def write(self, data: bytes) -> None:
        """Hand one packet to the link."""
        if not self.closed:
            self._take(data)

    async def drain(self) -> None:
        """Return at once: the link bounds what it keeps."""

    def get_peer_info(self) -> tuple[str, int]:
        """Return something: amqtt refuses a connection without a peer."""
        return "gate", 0

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Return None: TLS ends at the gate."""
        return None

    async def close(self) -> None:
        """Take no more; the end of the link is the end of `external_connected`."""
        self.closed = True
