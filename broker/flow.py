"""The two streams of an open connection: chunks of each side through its checks, in portions, and backpressure.

Whoever is slow is felt by the other side: a full link stops the client, a client that does not read stops the link,
and what costs more than a turn of the loop should goes on in the next one.
"""

from __future__ import annotations

import asyncio
import select
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

import structlog

from authsvc.core.reasons import Reason
from authsvc.sessions import Session, Will
from broker.inbound import Inbound
from broker.limits import Limits
from broker.outbound import Outbound
from broker.terms import Terms
from broker.upstream import Link
from broker.wire import MalformedPacket
from broker.wire.reason_codes import PACKET_TOO_LARGE

log = structlog.get_logger(__name__)


class Hold:
    """Why nothing is read just now: from the client, or from the upstream. Bits of a number."""

    UPSTREAM: Final = 1  # the link has enough
    ADMISSION: Final = 2  # too much came before the CONNACK
    TURN: Final = 4  # packets wait for the next turn of the loop
    CLIENT: Final = 8  # the client does not take what it is sent


class Flow(asyncio.Protocol):
    """What a `ClientConnection` does with bytes while it is open."""

    __slots__ = (
        "_answers",
        "_heard_at",
        "_holds",
        "_keep_alive",
        "_link_holds",
        "_loop",
        "_stopped",
        "_timer",
        "inbound",
        "limits",
        "link",
        "peer",
        "session",
        "terms",
        "transport",
    )

    link: Link
    inbound: Inbound
    terms: Terms  # from the CONNECT on

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.limits = limits
        self.transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self.peer = "unix"
        self._loop = loop
        self._holds = self._link_holds = 0
        self._stopped = False  # packets wait for the upstream, and nobody has called for them
        self._heard_at = 0.0  # when the client's last whole packet came
        self._keep_alive = 0.0  # seconds without one that end the connection; 0: any number
        self._timer: asyncio.TimerHandle | None = None  # of the keep-alive; of the last words, once it is over
        self._answers: bytearray | None = None  # while a chunk of the client is handled

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether packets pass: after the CONNACK, before the end."""

    @property
    @abstractmethod
    def outbound(self) -> Outbound:
        """The packets of the upstream."""

    @property
    @abstractmethod
    def is_ended(self) -> bool:
        """Whether the connection is over."""

    @abstractmethod
    def end(self, reason: Reason, will: Will, *, in_order: bool = False, code: int | None = None) -> None:
        """End the connection."""

    @abstractmethod
    def broke_protocol(self, problem: MalformedPacket) -> None:
        """End the connection of a client that sent what it must not."""

    def eof_received(self) -> bool:
        return False

    # --- from the client -------------------------------------------------------------------------------------

    def client_sent(self, data: bytes) -> None:
        """Take a chunk of the client's."""
        inbound = self.inbound
        self._answers = bytearray()
        try:
            if inbound.feed(data):
                self._heard_at = self._loop.time()
        except Exception as problem:  # noqa: BLE001  # an accident never looks like a yes: it ends the connection
            self._inbound_failed(problem)
            return
        self._flush()
        if inbound.rest and self.is_open and not self._holds & Hold.TURN:
            self.hold(Hold.TURN)
            self._loop.call_soon(self._go_on)
        self._check_buffer()

    def _go_on(self) -> None:
        if not self.is_open:
            return
        if self.waits_for_upstream:
            self._stopped = True
            return
        self._answers = bytearray()
        try:
            self.inbound.go_on()
        except Exception as problem:  # noqa: BLE001
            self._inbound_failed(problem)
            return
        self._flush()
        if self.inbound.rest:
            self._loop.call_soon(self._go_on)
        else:
            self.release(Hold.TURN)
        self._check_buffer()

    def _inbound_failed(self, problem: Exception) -> None:
        if isinstance(problem, MalformedPacket):
            self.broke_protocol(problem)
        else:
            log.error("packet_failed", peer=self.peer, exc_info=problem)
            self.end(Reason.PROTOCOL_ERROR, Will.SEND)

    def write(self, data: bytes) -> None:
        """Send to the client; answers to packets of one chunk go out together, at the end of the chunk."""
        if self._answers is not None:
            self._answers += data
        elif self.transport is not None:
            self.transport.write(data)

    def send(self, packet: bytes, shorter: Callable[[], bytes]) -> None:
        """Send a packet that is no PUBLISH: as it is, or as `shorter` makes it where the client takes no more.

        One that does not fit either way is not sent (MQTT 5.0, MQTT-3.1.2-24), and without it the client cannot go on.
        """
        limit = self.terms.max_to_client
        if len(packet) > limit and len(packet := shorter()) > limit:
            log.info("client_takes_too_little", peer=self.peer, limit=limit)
            self.end(Reason.PROTOCOL_ERROR, Will.SEND, code=PACKET_TOO_LARGE)
            return
        self.write(packet)

    def _flush(self) -> None:
        answers, self._answers = self._answers, None
        if answers and self.transport is not None:
            self.transport.write(bytes(answers))

    def _check_buffer(self) -> None:
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() > self.limits.max_client_buffer_bytes:
            log.info("client_too_slow", peer=self.peer)
            self.end(Reason.CONNECTION_LOST, Will.SEND)

    def nothing_buffered(self, transport: asyncio.Transport) -> bool:
        """Whether what is written now goes out alone.

        Behind TLS what the kernel did not take is nobody's to see: there a socket that takes more stands for it.
        """
        if self._answers or self._link_holds & Hold.CLIENT or transport.get_write_buffer_size():
            return False
        if transport.get_extra_info("sslcontext") is None:
            return True
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLOUT)
        return bool(poll.poll(0))

    # --- keep-alive ------------------------------------------------------------------------------------------

    def _watch_keep_alive(self) -> None:
        self._heard_at = self._loop.time()
        if self._keep_alive:
            self._timer = self._loop.call_later(self._keep_alive, self._check_keep_alive)

    def _check_keep_alive(self) -> None:
        now = self._loop.time()
        if self._holds:  # we do not read: the client cannot be heard
            self._heard_at = now
        left = self._heard_at + self._keep_alive - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_keep_alive)
        else:
            self.end(Reason.KEEP_ALIVE_EXPIRED, Will.SEND)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- from the upstream -----------------------------------------------------------------------------------

    def upstream_received(self, data: bytes) -> None:
        if not self.is_open:
            self._answer_to_farewell(data)
            return
        outbound = self.outbound
        try:
            outbound.feed(data)
        except Exception as problem:  # noqa: BLE001
            self._outbound_failed(problem)
            return
        if outbound.rest and not self._link_holds & Hold.TURN:
            self._hold_link(Hold.TURN)
            self._loop.call_soon(self._deliver_more)
        self._check_buffer()

    def _answer_to_farewell(self, data: bytes) -> None:
        """Let the farewell have what it waits for; to the client nothing goes any more."""
        if self.session is None or self.outbound.swallow is None:
            return
        try:
            self.outbound.feed(data)
            while self.outbound.rest:
                self.outbound.go_on()
        except Exception as problem:  # noqa: BLE001
            self._outbound_failed(problem)

    def _deliver_more(self) -> None:
        if self.is_ended:
            return
        try:
            self.outbound.go_on()
        except Exception as problem:  # noqa: BLE001
            self._outbound_failed(problem)
            return
        if self.outbound.rest:
            self._loop.call_soon(self._deliver_more)
        else:
            self._release_link(Hold.TURN)
        self._check_buffer()

    def _outbound_failed(self, problem: Exception) -> None:
        if isinstance(problem, MalformedPacket):
            log.warning("upstream_protocol_error", peer=self.peer, problem=str(problem))
        else:
            log.error("delivery_failed", peer=self.peer, exc_info=problem)
        self.end(Reason.BROKER_UNAVAILABLE, Will.SEND)

    def abort(self) -> None:
        """Close the client's socket now, whatever is buffered."""
        if self.transport is not None:
            self.transport.abort()

    # --- backpressure ----------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client is slow: the broker feels it, where it can."""
        if self.is_open:
            self._hold_link(Hold.CLIENT)

    def resume_writing(self) -> None:
        if self.is_open:
            self._release_link(Hold.CLIENT)

    def pause_client(self) -> None:
        self.hold(Hold.UPSTREAM)

    def resume_client(self) -> None:
        self.release(Hold.UPSTREAM)
        if self._stopped:
            self._stopped = False
            self._loop.call_soon(self._go_on)

    @property
    def waits_for_upstream(self) -> bool:
        """Whether the upstream has enough for now."""
        return bool(self._holds & Hold.UPSTREAM)

    def hold(self, why: int) -> None:
        """Read nothing from the client until `release` with the same reason."""
        if not self._holds and self.transport is not None and not self.is_ended:
            self.transport.pause_reading()
        self._holds |= why

    def release(self, why: int) -> None:
        """Read again, if nothing else holds."""
        if self._holds & why:
            self._holds &= ~why
            if not self._holds:
                self._heard_at = self._loop.time()
                if self.transport is not None and not self.is_ended:
                    self.transport.resume_reading()

    def _hold_link(self, why: int) -> None:
        if not self._link_holds:
            self.link.pause()
        self._link_holds |= why

    def _release_link(self, why: int) -> None:
        if self._link_holds & why:
            self._link_holds &= ~why
            if not self._link_holds and self.is_open:
                self.link.resume()
