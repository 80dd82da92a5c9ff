"""TLS and the PROXY protocol in front of a connection: its time runs from the moment it is accepted.

A server of asyncio's with `ssl` tells nobody of a socket before its handshake is over: thousands of silent ones would
be open beside every limit. Here sockets are accepted one by one, their connection is made at once on a transport that
can only be ended, and takes the real one when TLS is agreed on.

Where a proxy stands in front, its header comes before all else, and only addresses that are named may send one. Until
it is read the connection is one of at most `HEADERS_AWAITED`; then it is made, with the address that was carried.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import structlog

from broker import proxy_protocol
from broker.proxy_protocol import Network, ProxyProtocolError

log = structlog.get_logger(__name__)

SHUTDOWN_WITHIN_S = 1.0
ACCEPT_AGAIN_S = 0.5  # when the system has no file for another socket
HEADERS_AWAITED = 2_000  # at once
REFUSALS_LOGGED_PER_S = 5


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
    """Accepts from a listening socket, whose owner it becomes, and gives each connection a protocol by `factory`.

    `context` None is plain text. With `proxies` a connection begins with a PROXY header, and only from those networks.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext | None,
        factory: Callable[[], Securable],
        *,
        handshake_within_s: float,
        proxies: Sequence[Network] = (),
    ) -> None:
        self._proxies = tuple(proxies)
        self._headers: set[asyncio.Task[None]] = set()
        self._refused = 0  # since `_refused_since`
        self._refused_since = 0.0
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
        for waiting in self._headers:
            waiting.cancel()

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
            if self._proxies:
                self._await_header(accepted)
            else:
                self._try(accepted, None)
            await asyncio.sleep(0)  # `sock_accept` does not wait while others queue: everybody else has a turn

    def _try(self, accepted: socket.socket, carried: tuple[str, int] | None) -> None:
        try:
            self._begin(accepted, carried)
        except Exception:  # of one connection: the door stays open for the others
            log.exception("connection_failed")
            accepted.close()

    def _await_header(self, accepted: socket.socket) -> None:
        if len(self._headers) >= HEADERS_AWAITED:
            self._refuse(accepted, "too many connections have not sent their header")
            return
        waiting = asyncio.create_task(self._read_header(accepted), name="PROXY header")
        self._headers.add(waiting)
        waiting.add_done_callback(self._headers.discard)

    async def _read_header(self, accepted: socket.socket) -> None:
        """Read exactly the header, then begin: what follows it belongs to TLS or to the client."""
        try:
            proxy_protocol.check_trusted(accepted.getpeername()[0], self._proxies)
            async with asyncio.timeout(self._within_s):
                buffer = b""
                while wanted := proxy_protocol.missing(buffer):
                    data = await asyncio.get_running_loop().sock_recv(accepted, wanted)
                    if not data:
                        if not buffer:  # a look whether anybody listens
                            accepted.close()
                            return
                        raise ProxyProtocolError("the connection ended in the header")  # noqa: TRY301
                    buffer += data
            carried = proxy_protocol.parse(buffer).source
        except TimeoutError:
            self._refuse(accepted, "no whole header in time")
        except (ProxyProtocolError, OSError) as error:
            self._refuse(accepted, str(error))
        except asyncio.CancelledError:
            accepted.close()
            raise
        else:
            self._try(accepted, carried)

    def _refuse(self, accepted: socket.socket, problem: str) -> None:
        """Close without a word; a sample is logged."""
        now = asyncio.get_running_loop().time()
        if now - self._refused_since >= 1.0:
            self._refused_since, self._refused = now, 0
        self._refused += 1
        if self._refused <= REFUSALS_LOGGED_PER_S:
            peer = "gone"
            with contextlib.suppress(OSError):
                peer = str(accepted.getpeername()[0])
            log.warning("proxy_header_refused", peer=peer, problem=problem)
        accepted.close()

    def _begin(self, accepted: socket.socket, carried: tuple[str, int] | None) -> None:
        inner = self._factory()
        pending = _Pending(accepted, carried)
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
                ssl_handshake_timeout=self._within_s if self._context else None,
                ssl_shutdown_timeout=SHUTDOWN_WITHIN_S if self._context else None,
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

    def __init__(self, accepted: socket.socket, carried: tuple[str, int] | None) -> None:
        super().__init__()
        self.socket = accepted
        self.task: asyncio.Task[None] | None = None
        self.begun = False  # a task that is cancelled before it begins would not close the socket
        self._closing = False
        self._peer: Any = carried
        if carried is None:
            with contextlib.suppress(OSError):  # gone already; the handshake will say so
                self._peer = accepted.getpeername()

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
