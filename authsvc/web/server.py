"""A uvicorn server for the application, to be run as a task inside the loop that the rest of the service lives in.

llhttp refuses a request that carries both Content-Length and Transfer-Encoding. What uvicorn does not bound with
httptools, the size of a request's head and the time that a client takes for it, and for a body that nobody reads,
`BoundedProtocol` does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from authsvc.web.joined import JoinedWrites

MAX_HEAD_BYTES = 64 * 1024  # request line and headers; an honest one is under 2 KiB
HEAD_TIMEOUT_S = 10  # from the connection, or the first byte of a further request, to the end of the head
TAIL_TIMEOUT_S = 5  # from an answer to the end of the body that it did not wait for
KEEP_ALIVE_S = 20  # an idle connection is closed after it: later than clients do (httpx: 5 s), or requests get lost
MAX_CONCURRENCY = 512  # connections and tasks, each; beyond it uvicorn answers 503
GRACEFUL_SHUTDOWN_S = 3  # within the five seconds that a clean end may take
BACKLOG = 512


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with a bound on the size of a request's head and on the time for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._tail_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joined = JoinedWrites(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]  # all of a transport that uvicorn uses
        self._begin_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_tail()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():  # nearly every head comes in one piece
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:  # one endless header never reaches `on_header`
                self._refuse()
            elif self._head_timer is None:
                self._begin_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._joined.offer(self.scope)  # type: ignore[arg-type]  # a mapping, said by its keys
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > 2 * MAX_HEAD_BYTES:  # counted twice at most: here and as data
            raise ValueError("head too large")  # uvicorn answers 400 and closes
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._end_tail()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._joined.flush()
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and self._tail_timer is None:
            # Refused before it was read, for want of a secret say: what still comes must not hold the connection.
            self._tail_timer = self.loop.call_later(TAIL_TIMEOUT_S, self.transport.close)

    def _end_tail(self) -> None:
        if self._tail_timer is not None:
            self._tail_timer.cancel()
            self._tail_timer = None

    def _begin_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._refuse)

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to whoever runs it, and may have been given its socket."""

    def __init__(self, config: uvicorn.Config, *, sock: socket.socket | None = None) -> None:
        super().__init__(config)
        self._sock = sock

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets is None and self._sock is not None:
            sockets = [self._sock]
        await super().serve(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    sock: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
) -> uvicorn.Server:
    """Return a server that is not started: ``await server.serve()`` runs it, ``server.should_exit = True`` ends it.

    It listens on `sock`, bound by the caller (so that a port in use is the caller's to report), or opens `host` and
    `port`, and speaks TLS with a `tls` context. It logs no access: a path may name keys, and what is worth keeping is
    in the log of the service.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        loop="none",  # it lives in the loop of the service
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # nobody is trusted to say where a request comes from
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
        limit_concurrency=MAX_CONCURRENCY,
        backlog=BACKLOG,
    )
    if tls is not None:
        config.load()
        config.ssl = tls
    return Server(config, sock=sock)
