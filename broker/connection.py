"""One client connection: CONNECT, admission, then two checked streams, until it ends, once, for one reason.

    CONNECTING ──CONNECT──► ADMITTING ──CONNACK 0──► OPEN ──► ENDED        (any of them may go to ENDED directly)

Everything here is synchronous and on the loop, but for the two tasks that a connection may own: its admission, and
its farewell (will, DISCONNECT upstream, waiting until the broker has let go of the session).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntFlag
from typing import TYPE_CHECKING, cast

import structlog

from authsvc.core.credentials import ConnectRequest, WillMessage
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action, Decision, Grant, Memo
from authsvc.core.reasons import Reason, connack_code
from authsvc.sessions import Session, Will
from broker import wire
from broker.inbound import Inbound
from broker.listeners import ListenerUse
from broker.outbound import Outbound
from broker.packet_ids import OpenRequests, SessionState
from broker.upstream import Link
from broker.wills import farewell
from broker.wire import Framer, MalformedPacket, UnsupportedProtocol

if TYPE_CHECKING:
    from broker.gate import Gate

log = structlog.get_logger(__name__)

CONNECTING, ADMITTING, OPEN, ENDED = range(4)
DENIALS_RECORDED_PER_S = 50  # of one connection
EARLY_BYTES = 64 * 1024  # of a client that does not wait for its CONNACK (3.1.4 allows it); more stays in the kernel


class Hold(IntFlag):
    """Why nothing is read from the client just now."""

    UPSTREAM = 1  # the link has enough
    ADMISSION = 2  # too much came before the CONNACK
    TURN = 4  # packets wait for the next turn of the loop


class ClientConnection(asyncio.Protocol):
    """The protocol of one socket, the owner of one upstream link, and what the session registry ends and swaps."""

    __slots__ = (
        "_answers",
        "_denied",
        "_denied_since",
        "_ended",
        "_farewell",
        "_framer",
        "_heard_at",
        "_holds",
        "_keep_alive",
        "_loop",
        "_phase",
        "_timer",
        "address",
        "capabilities",
        "early_from_client",
        "early_from_upstream",
        "gate",
        "grant",
        "inbound",
        "level",
        "limits",
        "link",
        "link_closed",
        "listener",
        "outbound",
        "peer",
        "requests",
        "session",
        "state",
        "task",
        "transport",
        "upstream_id",
        "will",
    )

    grant: Grant
    link: Link
    inbound: Inbound
    outbound: Outbound
    requests: OpenRequests
    state: SessionState

    def __init__(self, gate: Gate, listener: ListenerUse) -> None:
        self.gate = gate
        self.listener = listener
        self.limits = gate.limits
        self.capabilities = gate.upstream.capabilities
        self.transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self.task: asyncio.Task[None] | None = None
        self.will: WillMessage | None = None
        self.early_from_client: bytearray | None = None  # while the admission is under way
        self.early_from_upstream: bytearray | None = None
        self.link_closed = False
        self.upstream_id = ""
        self.level = wire.MQTT_3_1_1
        self.address = self.peer = ""
        self._loop = gate.loop
        self._phase = CONNECTING
        self._framer: Framer | None = Framer(self.limits.max_packet_bytes, max_connect=self.limits.max_connect_bytes)
        self._holds = Hold(0)
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._denied = 0  # since `_denied_since`
        self._denied_since = 0.0
        self._keep_alive = 0.0
        self._ended: asyncio.Event | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._answers: bytearray | None = None  # while a chunk of the client is handled

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.address = str(name[0]) if name else "unix"
        self.peer = f"[{name[0]}]:{name[1]}" if name and ":" in name[0] else f"{name[0]}:{name[1]}" if name else "unix"
        if not self.gate.arrived(self):
            self._phase = ENDED
            transport.abort()  # type: ignore[attr-defined]
            return
        self._timer = self._loop.call_later(self.limits.connect_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._phase == OPEN:
            self._answers = bytearray()
            try:
                if self.inbound.feed(data):
                    self._heard_at = self._loop.time()
            except Exception as problem:  # noqa: BLE001  # an accident never looks like a yes: it ends the connection
                self._inbound_failed(problem)
                return
            self._flush()
            if self.inbound.more and self._phase == OPEN:
                self.hold(Hold.TURN)
                self._loop.call_soon(self._go_on)
            self._check_buffer()
        elif self._phase == CONNECTING:
            self._connecting(data)
        elif self._phase == ADMITTING:
            self._wait_with(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._phase != ENDED:
            self.end(Reason.CONNECTION_LOST, Will.SEND)
        self._stop_timer()
        self.transport = None

    def pause_writing(self) -> None:
        """The client is slow: the broker feels it, where it can."""
        if self._phase == OPEN:
            self.link.pause()

    def resume_writing(self) -> None:
        if self._phase == OPEN:
            self.link.resume()

    # --- before the session ----------------------------------------------------------------------------------

    def _connecting(self, data: bytes) -> None:
        framer = self._framer
        assert framer is not None
        try:
            buffer = framer.feed(data)
            end = framer.cut(buffer, 0) if buffer else wire.NEED_MORE
            if end == wire.NEED_MORE:
                framer.keep(buffer, 0)
                return
            connect = wire.parse_connect(buffer[:end])
        except MalformedPacket as problem:
            self.broke_protocol(problem)
            return
        except UnsupportedProtocol as problem:
            self._note_refusal(Refusal(reason=Reason.PROTOCOL_ERROR, detail=str(problem)), None)
            self._leave(problem.answer)
            return
        self.level = connect.level
        self.will = connect.will
        self._keep_alive = connect.keep_alive_s * 1.5  # MQTT-3.1.2-24
        request = ConnectRequest(
            client_id=connect.client_id,
            clean_session=connect.clean_session,
            username=connect.username,
            password=connect.password,
            will=connect.will,
            keep_alive_s=connect.keep_alive_s,
            level=connect.level,
        )
        if connect.client_id_refused:
            self.refused(Refusal(reason=Reason.CLIENT_ID_INVALID, detail="the client id is empty"), request)
            return
        self._phase = ADMITTING
        self._framer = None
        self._stop_timer()
        self.gate.connect_received(self)
        self.task = self._loop.create_task(self.gate.admission.admit(self, request), name=f"admission of {self.peer}")
        if end < len(buffer):
            self._wait_with(buffer[end:])

    def _wait_with(self, data: bytes) -> None:
        """Keep what comes before the CONNACK; it is not looked at unless the client is admitted (MQTT-3.1.4-5)."""
        early = self.early_from_client = self.early_from_client or bytearray()
        early += data
        if len(early) > EARLY_BYTES:
            self.hold(Hold.ADMISSION)

    def refused(self, refusal: Refusal, request: ConnectRequest | None) -> None:
        """Answer a CONNECT with the code of the refusal, and leave."""
        if self._phase in (OPEN, ENDED):
            self.end(refusal.reason, Will.SEND)
            return
        reason = self.gate.throttled(self, refusal.reason)
        if reason is not refusal.reason:
            refusal = Refusal(reason=reason, detail="too many failing CONNECTs from this address")
        self._note_refusal(refusal, request)
        self._leave(wire.encode_connack(connack_code(reason)))

    def _note_refusal(self, refusal: Refusal, request: ConnectRequest | None) -> None:
        self.gate.service.refuse(refusal, request=request, peer=self.peer)

    def _leave(self, answer: bytes) -> None:
        """Send the last bytes and close; abort where the client does not take them in time."""
        self._phase = ENDED
        self._stop_timer()
        self.gate.left(self)
        transport = self.transport
        if transport is not None:
            if answer:
                transport.write(answer)
            transport.close()
            self._timer = self._loop.call_later(self.limits.refusal_linger_s, transport.abort)

    def forget_link(self) -> None:
        """Forget what a link brought that was not opened."""
        self.early_from_upstream = None
        self.link_closed = False

    def _too_slow(self) -> None:
        self._note_refusal(Refusal(reason=Reason.PROTOCOL_ERROR, detail="no CONNECT in time"), None)
        self.end(Reason.PROTOCOL_ERROR, Will.NEVER)

    # --- the session -----------------------------------------------------------------------------------------

    @property
    def disconnects_on_denied_publish(self) -> bool:
        return self.gate.disconnects_on_denied_publish

    @property
    def is_open(self) -> bool:
        """Whether packets pass: after the CONNACK, before the end."""
        return self._phase == OPEN

    @property
    def is_ended(self) -> bool:
        return self._phase == ENDED

    def opened(self, session: Session, link: Link, state: SessionState, *, session_present: bool) -> None:
        """Answer CONNACK 0 and let packets pass: in one step with the opening of the session."""
        self.session = session
        self.grant = session.grant
        self.link = link
        self.state = state
        self.requests = OpenRequests()
        self.inbound = Inbound(self, Memo(self.grant, Action.PUBLISH))
        self.outbound = Outbound(self, Memo(self.grant, Action.DELIVER))
        self.task = None
        self._phase = OPEN
        # MQTT 3.1 knows no session present flag: that byte is reserved there.
        self.write(wire.encode_connack(0, session_present=session_present and self.level != wire.MQTT_3_1))
        self._heard_at = self._loop.time()
        if self._keep_alive:
            self._timer = self._loop.call_later(self._keep_alive, self._check_keep_alive)
        self.drop_uncovered()
        from_upstream, self.early_from_upstream = self.early_from_upstream, None
        from_client, self.early_from_client = self.early_from_client, None
        if from_upstream:
            self.upstream_received(bytes(from_upstream))
        if from_client and self.is_open:
            self.data_received(bytes(from_client))
        self.release(Hold.ADMISSION)

    def write(self, data: bytes) -> None:
        """Send to the client; answers to packets of one chunk go out together, at the end of the chunk."""
        if self._answers is not None:
            self._answers += data
        elif self.transport is not None:
            self.transport.write(data)

    def _flush(self) -> None:
        answers, self._answers = self._answers, None
        if answers and self.transport is not None:
            self.transport.write(bytes(answers))

    def retain(self, topic: str, payload: bytes, *, qos: int) -> None:
        """Keep a retained message in place of the broker."""
        self.gate.upstream.retain(topic, payload, qos=qos)

    def denied(self, action: Action, topic: str, decision: Decision) -> None:
        """Record what was denied; of a flood only a sample, which costs no more than it must (the rest is counted)."""
        assert self.session is not None
        now = self._loop.time()
        if now - self._denied_since >= 1.0:
            self._denied_since, self._denied = now, 0
        self._denied += 1
        if self._denied > DENIALS_RECORDED_PER_S:
            self.gate.denials_not_recorded += 1
            return
        self.gate.service.denied(self.session, action.value, topic, decision)

    def broke_protocol(self, problem: MalformedPacket) -> None:
        """End the connection of a client that sent what it must not."""
        if self._phase == CONNECTING:
            self._note_refusal(Refusal(reason=Reason.PROTOCOL_ERROR, detail=str(problem)), None)
            self._leave(b"")
            return
        log.info("protocol_error", peer=self.peer, problem=str(problem))
        self.end(Reason.PROTOCOL_ERROR, Will.SEND, in_order=True)

    def _inbound_failed(self, problem: Exception) -> None:
        if isinstance(problem, MalformedPacket):
            self.broke_protocol(problem)
        else:
            log.error("packet_failed", peer=self.peer, exc_info=problem)
            self.end(Reason.PROTOCOL_ERROR, Will.SEND)

    def disconnected(self) -> None:
        """The client said DISCONNECT: its will is dropped (MQTT-3.14.4-3), and nothing after it is read."""
        self.will = None
        self.end(Reason.DISCONNECTED, Will.NEVER, in_order=True)

    def _check_keep_alive(self) -> None:
        now = self._loop.time()
        if self._holds:  # we do not read: the client cannot be heard
            self._heard_at = now
        left = self._heard_at + self._keep_alive - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_keep_alive)
        else:
            self.end(Reason.KEEP_ALIVE_EXPIRED, Will.SEND)

    def _check_buffer(self) -> None:
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() > self.limits.max_client_buffer_bytes:
            log.info("client_too_slow", peer=self.peer)
            self.end(Reason.CONNECTION_LOST, Will.SEND)

    # --- broker.upstream.LinkOwner ---------------------------------------------------------------------------

    def upstream_received(self, data: bytes) -> None:
        if self._phase == OPEN or (self._phase == ENDED and self._farewell is not None):
            try:
                self.outbound.feed(data)
            except Exception as problem:  # noqa: BLE001
                self._outbound_failed(problem)
                return
            if self.outbound.more and self._phase == OPEN:
                self.link.pause()
                self._loop.call_soon(self._deliver_more)
            self._check_buffer()
        elif self._phase == ADMITTING:
            self.early_from_upstream = self.early_from_upstream or bytearray()
            self.early_from_upstream += data

    def _deliver_more(self) -> None:
        if self._phase == ENDED:
            return
        try:
            self.outbound.go_on()
        except Exception as problem:  # noqa: BLE001
            self._outbound_failed(problem)
            return
        if self.outbound.more:
            self._loop.call_soon(self._deliver_more)
        elif self.is_open:
            self.link.resume()
        self._check_buffer()

    def _outbound_failed(self, problem: Exception) -> None:
        if isinstance(problem, MalformedPacket):
            log.warning("upstream_protocol_error", peer=self.peer, problem=str(problem))
        else:
            log.error("delivery_failed", peer=self.peer, exc_info=problem)
        self.end(Reason.BROKER_UNAVAILABLE, Will.SEND)

    def upstream_closed(self, error: Exception | None) -> None:  # noqa: ARG002
        self.link_closed = True
        if self._phase == OPEN:
            self.end(Reason.BROKER_UNAVAILABLE, Will.SEND)

    def pause_client(self) -> None:
        self.hold(Hold.UPSTREAM)

    def resume_client(self) -> None:
        self.release(Hold.UPSTREAM)

    # --- backpressure ----------------------------------------------------------------------------------------

    def hold(self, why: Hold) -> None:
        """Read nothing from the client until `release` with the same reason."""
        if not self._holds and self.transport is not None:
            self.transport.pause_reading()
        self._holds |= why

    def release(self, why: Hold) -> None:
        """Read again, if nothing else holds."""
        if self._holds & why:
            self._holds &= ~why
            if not self._holds:
                self._heard_at = self._loop.time()
                if self.transport is not None and self._phase != ENDED:
                    self.transport.resume_reading()

    def _go_on(self) -> None:
        if self._phase != OPEN:
            return
        self._answers = bytearray()
        try:
            self.inbound.go_on()
        except Exception as problem:  # noqa: BLE001
            self._inbound_failed(problem)
            return
        self._flush()
        if self.inbound.more:
            self._loop.call_soon(self._go_on)
        else:
            self.release(Hold.TURN)
        self._check_buffer()

    # --- subscriptions ---------------------------------------------------------------------------------------

    def is_new_subscription(self, filter_: str, granted_here: int) -> bool:
        """Return whether this filter would be one more than a session may hold."""
        held = self.state.subscriptions
        if filter_ in held:
            return False
        waiting = sum(len(pending.forwarded) for pending in self.requests.pending_subscribes())
        return len(held) + waiting + granted_here >= self.limits.max_subscriptions

    def is_wanted(self, filter_: str) -> bool:
        """Return whether the filter is subscribed again by a SUBSCRIBE that still waits for its answer."""
        return any(
            filter_ not in pending.withdrawn and any(filter_ == asked for asked, _ in pending.forwarded)
            for pending in self.requests.pending_subscribes()
        )

    def unsubscribe_upstream(self, filters: Sequence[str]) -> None:
        """Take filters back in the client's name; the answer is swallowed."""
        for filter_ in filters:
            self.state.subscriptions.pop(filter_, None)
        for first in range(0, len(filters), 100):
            packet_id = self.requests.free_id(self.state)
            self.requests.unsubscribing(packet_id, own=True)
            self.link.write(wire.encode_unsubscribe(packet_id, filters[first : first + 100]))

    def drop_uncovered(self) -> None:
        """Take back every filter that the grant does not cover any more, those without a SUBACK yet included."""
        self.unsubscribe_upstream([f for f, qos in self.state.subscriptions.items() if not self._covered(f, qos)])
        for pending in self.requests.pending_subscribes():
            pending.withdrawn.update(f for f, qos in pending.forwarded if not self._covered(f, qos))

    def _covered(self, filter_: str, qos: int) -> bool:
        return self.grant.decide(Action.SUBSCRIBE, filter_, qos=qos, deliveries_checked=True).allowed

    # --- authsvc.sessions.Connection -------------------------------------------------------------------------

    def swap(self, grant: Grant) -> None:
        """Take the new grant in one step: memos emptied, filters no longer covered unsubscribed."""
        if self._phase != OPEN:
            return
        self.grant = grant
        self.inbound.memo = Memo(grant, Action.PUBLISH)
        self.outbound.memo = Memo(grant, Action.DELIVER)
        self.drop_uncovered()

    def end(self, reason: Reason, will: Will, *, in_order: bool = False) -> None:
        """End the connection now, once. `in_order` lets what is buffered towards the client go out first."""
        phase = self._phase
        if phase == ENDED:
            return
        self._phase = ENDED
        self._stop_timer()
        transport = self.transport
        if transport is not None:
            if in_order:
                self._flush()
                transport.close()
                self._timer = self._loop.call_later(self.limits.refusal_linger_s, transport.abort)
            else:
                transport.abort()
        if phase == ADMITTING and self.task is not None:
            self.task.cancel()
        if phase == OPEN:
            self._end_session(reason, will, in_order=in_order)
        self.gate.left(self)

    def _end_session(self, reason: Reason, will: Will, *, in_order: bool) -> None:
        session = self.session
        assert session is not None
        if will is Will.NEVER:
            self.will = None
        if will is Will.NEVER and not in_order:
            self.link.abort()
        self.inbound.clear()
        for pending in self.requests.pending_subscribes():  # answered or not: the upstream may hold them
            self.state.subscriptions.update(pending.forwarded)
        self._ended = asyncio.Event()
        self._farewell = self._loop.create_task(self._say_farewell(session), name=f"farewell of {session.id}")
        self.gate.leaving(self, session, self._farewell)
        self.gate.service.sessions.closed(session, reason)
        log.info("session_ended", session=session.id, client_id=session.client_id, peer=self.peer, reason=reason.value)

    async def _say_farewell(self, session: Session) -> None:
        try:
            await farewell(self)
        finally:
            assert self._ended is not None
            self._farewell = None
            self._ended.set()
            self.gate.gone(self, session)

    async def wait_ended(self) -> None:
        """Return when socket and upstream are gone and the will, if any, has been handed over."""
        if self._ended is not None:
            await self._ended.wait()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
