"""How a broker by TCP or Unix socket is reached: address, TLS, the gate's credentials, a PROXY header before all."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from broker.tcp.link import Login, TcpLink

BACKLOG_RETRY_S = 0.01
TLS_SHUTDOWN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """One address of a broker: `path` of a Unix socket, else `host` and `port`. `tls` checks certificate and name."""

    host: str = "127.0.0.1"
    port: int = 1883
    path: Path | None = None
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    keep_alive_s: int = 0  # more than 0 only for a broker that refuses it
    proxy_protocol: bool = False

    @property
    def address(self) -> str:
        """Where the broker is, for messages."""
        if self.path is not None:
            return str(self.path)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def login(self) -> Login:
        """What the gate says of itself in each CONNECT."""
        return Login(username=self.username, password=self.password, keep_alive_s=self.keep_alive_s)


async def open_link(dial: Dial, link: TcpLink, before_tls: bytes = b"") -> None:
    """Connect `link`. `before_tls` goes out ahead of the handshake. Raises OSError, ssl.SSLError among them."""
    loop = asyncio.get_running_loop()
    if dial.path is not None:
        await _open_unix(dial.path, link)
    elif dial.tls is None:
        await loop.create_connection(lambda: link, dial.host, dial.port)
    elif not before_tls:
        await loop.create_connection(
            lambda: link, dial.host, dial.port, ssl=dial.tls, ssl_shutdown_timeout=TLS_SHUTDOWN_S
        )
    else:
        connected = await _connected(dial.host, dial.port)
        try:
            await loop.sock_sendall(connected, before_tls)
            await loop.create_connection(
                lambda: link,
                sock=connected,
                ssl=dial.tls,
                server_hostname=dial.host,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        except BaseException:
            connected.close()
            raise


async def _open_unix(path: Path, link: TcpLink) -> None:
    # Connected by hand: asyncio takes a connect(2) that failed for a full backlog for one that is under way.
    connecting = socket.socket(socket.AF_UNIX)
    try:
        connecting.setblocking(False)
        while (code := connecting.connect_ex(str(path))) == errno.EAGAIN:  # noqa: ASYNC110  # where TCP waits
            await asyncio.sleep(BACKLOG_RETRY_S)
        if code:
            raise OSError(code, os.strerror(code))  # noqa: TRY301
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=connecting)
    except BaseException:
        connecting.close()
        raise


async def _connected(host: str, port: int) -> socket.socket:
    """Return a TCP socket that is connected to the first address of the name that answers."""
    loop = asyncio.get_running_loop()
    problem: OSError = OSError(errno.EHOSTUNREACH, f"`{host}` has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connecting = socket.socket(family, kind, protocol)
        connecting.setblocking(False)
        try:
            await loop.sock_connect(connecting, address)
        except OSError as error:
            connecting.close()
            problem = error
            continue
        except BaseException:
            connecting.close()
            raise
        return connecting
    raise problem
