"""TLS in front of a connection: the socket counts, and its time runs, from the moment it is accepted.

A server of asyncio's with `ssl` tells nobody of a socket before its handshake is over: thousands of silent ones would
be open beside every limit. Here sockets are accepted one by one, their connection is made at once on a transport that
can only be ended, and takes the real one when TLS is agreed on.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog

log = structlog.get_logger(__name__)

SHUTDOWN_WITHIN_S = 1.0
ACCEPT_AGAIN_S = 0.5  # when the system has no file for another socket


class Securable(Protocol):
    """A protocol that is made before its transport is ready for it; no byte reaches it until then."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def secured(self, transport: asyncio.Transport) -> None:
        """Use this transport from now on, which tells its protocol of everything else."""


class TlsServer:
    """Accepts from a listening socket, whose owner it becomes, and gives each connection a protocol by `factory`."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        factory: Callable[[], Securable],
        *,
        handshake_within_s: float,
    ) -> None:
        self._listening = listening
        self._context = context
        self._factory = factory
        self._within_s = handshake_within_s
        self._task = asyncio.create_task(self._accept(), name="accepting TLS")
        self._handshakes: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Stop accepting; connections that exist go on."""
        self._task.cancel()
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("accept_failed", problem=str(error))
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            accepted.setblocking(False)
            try:
                self._begin(accepted)
            except Exception:  # of one connection: the door stays open for the others
                log.exception("connection_failed")
                accepted.close()
            await asyncio.sleep(0)  # `sock_accept` does not wait while others queue: everybody else has a turn

    def _begin(self, accepted: socket.socket) -> None:
        inner = self._factory()
        pending = _Pending(accepted)
        inner.connection_made(pending)
        if pending.is_closing():
            accepted.close()
            return
        pending.task = asyncio.create_task(self._shake_hands(inner, pending), name="TLS handshake")
        self._handshakes.add(pending.task)
        pending.task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, inner: Securable, pending: _Pending) -> None:
        try:
            if pending.is_closing():
                pending.socket.close()
                raise ConnectionAbortedError
            pending.begun = True
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Secured(inner),
                pending.socket,
                ssl=self._context,
                ssl_handshake_timeout=self._within_s,
                ssl_shutdown_timeout=SHUTDOWN_WITHIN_S,
            )
        except OSError as error:  # ssl.SSLError among them
            inner.connection_lost(error)
        except asyncio.CancelledError:
            inner.connection_lost(None)
            raise


class _Secured(asyncio.Protocol):
    """Hands the transport over as soon as TLS is agreed on."""

    def __init__(self, inner: Securable) -> None:
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        real = cast("asyncio.Transport", transport)
        real.set_protocol(cast("asyncio.Protocol", self._inner))
        self._inner.secured(real)


class _Pending(asyncio.Transport):
    """The transport of a connection whose handshake is under way: it can be ended."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__()
        self.socket = accepted
        self.task: asyncio.Task[None] | None = None
        self.begun = False  # a task that is cancelled before it begins would not close the socket
        self._closing = False
        self._peer: Any = None
        try:
            self._peer = accepted.getpeername()
        except OSError:  # gone already; the handshake will say so
            self._peer = None

    def abort(self) -> None:
        self._closing = True
        if self.task is not None and self.begun:
            self.task.cancel()

    def close(self) -> None:
        self.abort()

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it: nothing may go out in the clear."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._peer, "socket": self.socket}.get(name, default)
