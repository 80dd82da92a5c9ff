"""One upstream connection to a broker by TCP or Unix socket: bytes through, backpressure both ways."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.listeners import KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES
from broker.upstream import HELLO, Hello, LinkOwner

CLOSE_WITHIN_S = 2.0  # the broker's own end of file after ours; then the connection is reset
LONGEST_CONNACK = 65_536  # an answer of MQTT 5.0 has properties: a reason in words, user properties


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a broker asks of the gate itself: credentials, and a keep-alive of at least that many seconds if not 0.

    The gate sends no PINGREQ of its own on a client's link: a keep-alive is for brokers that refuse 0.
    """

    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    keep_alive_s: int = 0


NOBODY = Login()


def _connect(upstream_id: str, hello: Hello, login: Login, *, clean: bool) -> bytes:
    """Return the CONNECT: no will, nothing of the client's credentials, and no topic alias offered to the broker."""
    return wire.codec_of(hello.level).encode_connect(
        client_id=upstream_id,
        clean_session=clean,
        keep_alive_s=login.keep_alive_s,
        username=login.username,
        password=login.password,
        session_expiry_s=hello.session_expiry_s,
        receive_maximum=hello.receive_maximum,
        maximum_packet_size=hello.maximum_packet_size,
        request_response_information=hello.request_response_information,
        request_problem_information=hello.request_problem_information,
    )


class TcpLink(asyncio.Protocol):
    """A session of the broker behind (`broker.upstream.Link`). `begin` goes out before the CONNECT (PROXY protocol)."""

    __slots__ = (
        "_closed",
        "_codec",
        "_deadline",
        "_early",
        "_ending",
        "_full",
        "_gone",
        "_hello",
        "_leaving",
        "_open",
        "_owner",
        "_paused",
        "_transport",
        "answer",
        "connack",
        "session_present",
        "upstream_id",
    )

    connack: wire.Connack  # once `answer` is there
    used: bool = True

    def __init__(
        self,
        owner: LinkOwner,
        upstream_id: str,
        *,
        clean: bool,
        gone: Callable[[TcpLink], None],
        hello: Hello = HELLO,
        login: Login = NOBODY,
        begin: bytes = b"",
    ) -> None:
        self.upstream_id = upstream_id
        self.session_present = False
        self.answer: asyncio.Future[wire.Connack] = asyncio.get_running_loop().create_future()
        self._owner = owner
        self._gone = gone
        self._codec = wire.codec_of(hello.level)
        self._hello = begin + _connect(upstream_id, hello, login, clean=clean)
        self._transport: asyncio.Transport | None = None
        self._early = b""  # until the owner has the link
        self._open = False
        self._paused = False
        self._full = False  # the broker does not take what is written
        self._leaving = False
        self._deadline: asyncio.TimerHandle | None = None
        self._closed = False
        self._ending: asyncio.Future[None] | None = None  # while somebody waits for the end

    # --- the gate's side -------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send whole packets."""
        if self._transport is not None and not self._leaving:
            self._transport.write(data)

    def pause(self) -> None:
        """Read no more from the broker, which then feels it."""
        self._paused = True
        if self._transport is not None and self._open and not self._leaving:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self._transport is not None and self._open and not self._leaving:
            self._transport.resume_reading()

    def subscribed(self, filters: Sequence[tuple[str, int]]) -> None:  # noqa: ARG002
        """Take what comes from now on without making the broker wait; it keeps retained messages itself."""
        if self._transport is not None:
            acknowledge_at_once(self._transport.get_extra_info("socket"))

    def close(self) -> None:
        """Send what was written and an end of file, and wait for the broker's.

        Deliveries not read yet would turn a plain close into a reset, and a reset may cost the broker what it has
        not read: so they are read and dropped.
        """
        if self._transport is None or self._leaving:
            return
        self._leaving = True
        if self._transport.is_closing():
            return
        self._deadline = asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, self._transport.abort)
        with contextlib.suppress(OSError, RuntimeError):
            self._transport.write_eof()
        self._transport.resume_reading()

    def abort(self) -> None:
        """End now."""
        self._leaving = True
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        if not self._closed:
            if self._ending is None:
                self._ending = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ending)  # others may wait for it too

    def opened(self) -> None:
        """Give the link to its owner: from the next turn of the loop on it is called."""
        asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._open = True
        if self._closed:
            self._owner.upstream_closed(self._problem(None))
            return
        if self._full:
            self._owner.pause_client()
        early, self._early = self._early, b""
        if early and not self._leaving:
            self._owner.upstream_received(early)
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- the broker's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        prepare_socket(transport.get_extra_info("socket"))
        self._transport.write(self._hello)
        self._hello = b""

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._leaving:
            return
        if self._open:
            self._owner.upstream_received(data)
            return
        self._early += data
        if self.answer.done():
            return
        try:
            end = wire.frame(self._early, 0, LONGEST_CONNACK)
            if end == wire.NEED_MORE:
                return
            head, self._early = self._early[:end], self._early[end:]
            answer = self._codec.connack(head)
        except wire.MalformedPacket:
            self.answer.set_exception(UpstreamUnavailable("the broker did not answer with a CONNACK"))
            return
        self.session_present = answer.session_present
        if self._transport is not None:
            self._transport.pause_reading()  # until the owner has the link
        self.connack = answer
        self.answer.set_result(answer)

    def pause_writing(self) -> None:
        """The broker is slow: its client waits."""
        self._full = True
        if self._open:
            self._owner.pause_client()

    def resume_writing(self) -> None:
        """The broker takes more."""
        self._full = False
        if self._open:
            self._owner.resume_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport = None  # uvloop's raises for whoever uses it from now on: a farewell that is under way
        if not self.answer.done():
            self.answer.set_exception(UpstreamUnavailable("the broker ended the connection before its CONNACK"))
            self.answer.exception()  # nobody may be waiting any more
        self._closed = True
        if self._ending is not None:
            self._ending.set_result(None)
        self._gone(self)
        if self._open:
            self._owner.upstream_closed(self._problem(exc))

    def _problem(self, exc: Exception | None) -> Exception | None:
        if self._leaving:
            return None
        return UpstreamUnavailable(f"the broker ended the connection: {exc or 'end of file'}")


def prepare_socket(connection: socket.socket | None) -> None:
    """Set no delay and keep-alive where the socket is TCP."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def acknowledge_at_once(connection: socket.socket | None) -> None:
    """Have the kernel acknowledge what comes when it comes, until data is sent again soon after some has come.

    After an exchange like SUBSCRIBE and SUBACK it holds acknowledgements back for 40 ms, to send them along with data.
    A broker that leaves Nagle's algorithm on, as Mosquitto does, holds its deliveries back until they come.
    """
    if connection is not None and connection.family != socket.AF_UNIX and hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
