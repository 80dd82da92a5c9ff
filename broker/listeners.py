"""The sockets that the gate listens on: TCP, TLS and WebSocket, IPv4 and IPv6, and what holds for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from broker.proxy_protocol import Network
from broker.tls import Securable, TlsServer

BACKLOG = 4096  # connections the kernel keeps while a storm of reconnects is worked off; at most its somaxconn
KEEPALIVE_IDLE_S = 60
KEEPALIVE_INTERVAL_S = 15
KEEPALIVE_PROBES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One address to listen on. Port 0 takes a free one; `max_connections` None: only the gate's own limit."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    websocket: bool = False
    max_connections: int | None = None
    proxies: tuple[Network, ...] = ()  # who may connect, and must begin with a PROXY protocol v2 header


class ListenerUse:
    """How many connections a listener has now, and how many it may have."""

    __slots__ = ("connections", "limit", "name")

    def __init__(self, listener: Listener) -> None:
        self.name = listener.name
        self.limit = listener.max_connections or None
        self.connections = 0

    @property
    def full(self) -> bool:
        return self.limit is not None and self.connections >= self.limit


class OpenListener:
    """A listener that accepts connections; `address` is what it is bound to."""

    def __init__(self, config: Listener, server: asyncio.Server | TlsServer, address: tuple[str, int]) -> None:
        self.config = config
        self.address = address
        self._server = server

    def close(self) -> None:
        """Stop accepting; connections that exist go on."""
        self._server.close()


async def open_listener(
    config: Listener, factory: Callable[[], Securable], *, handshake_timeout_s: float
) -> OpenListener:
    """Listen on the address of `config` and give each connection a protocol from `factory`.

    Raises:
        OSError: the address is in use, not local, or not permitted; the message names it.
    """
    raise_open_file_limit()
    loop = asyncio.get_running_loop()
    listening = _bound_socket(config.host, config.port)
    name = listening.getsockname()
    server: asyncio.Server | TlsServer
    try:
        if config.tls is not None or config.proxies:
            listening.listen(BACKLOG)
            server = TlsServer(
                listening, config.tls, factory, handshake_within_s=handshake_timeout_s, proxies=config.proxies
            )
        else:
            server = await loop.create_server(
                lambda: cast("asyncio.Protocol", factory()), sock=listening, backlog=BACKLOG
            )
    except BaseException:
        listening.close()
        raise
    return OpenListener(config, server, (str(name[0]), int(name[1])))


def _bound_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket whose options the accepted connections inherit (Linux, BSD): no system call for each."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on `{host}:{port}`: {error.strerror}") from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, option):
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host not in {"::", ""} else 0)
        listening.setblocking(False)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on `{host}:{port}`: {error.strerror}") from error
    return listening


def raise_open_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: a socket is a file, and 10,000 do not fit the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # a container may forbid it; then the lower limit holds
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
