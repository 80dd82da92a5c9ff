"""One client connection: CONNECT, admission, then two checked streams, until it ends, once, for one reason.

    CONNECTING ──CONNECT──► ADMITTING ──CONNACK 0──► OPEN ──► ENDED        (any of them may go to ENDED directly)

Everything here is synchronous and on the loop, but for the two tasks that a connection may own: its admission, and
its farewell (will, DISCONNECT upstream, waiting until the broker has let go of the session). What comes before the
session is in `arrival`, how bytes flow in `flow`, their packets in `inbound`, `outbound` and `subscriptions`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import structlog

from authsvc.core.credentials import ConnectRequest, WillMessage
from authsvc.core.facts import Refusal
from authsvc.core.policy import Action, Decision, Grant, Memo
from authsvc.core.reasons import Reason
from authsvc.logs import is_heard
from authsvc.sessions import Session, Will
from broker.arrival import Arrival
from broker.denials import Denials
from broker.flow import Flow, Hold
from broker.inbound import Inbound
from broker.listeners import ListenerUse
from broker.outbound import Outbound
from broker.packet_ids import OpenRequests, SessionState
from broker.subscriptions import drop_uncovered
from broker.upstream import Link
from broker.wills import Farewell
from broker.wire import Disconnect, MalformedPacket

if TYPE_CHECKING:
    from broker.gate import Gate

log = structlog.get_logger(__name__)
_LOGGER = logging.getLogger(__name__)

CONNECTING, ADMITTING, OPEN, ENDED = range(4)
END_LINGER_S = 0.05  # for a DISCONNECT of the service's own to go out; a client that does not take it is aborted
# Reason codes of a broker's DISCONNECT that speak of what the client sent (5.0, 3.14.2.1).
_ABOUT_PACKETS = frozenset({0x81, 0x82, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x99, 0x9A, 0x9B, 0x9E, 0xA1, 0xA2})


class ClientConnection(Flow):
    """The protocol of one socket, the owner of one upstream link, and what the session registry ends and swaps."""

    __slots__ = (
        "_denials",
        "_farewell",
        "_holds_session",
        "_outbound",
        "_phase",
        "arrival",
        "capabilities",
        "gate",
        "grant",
        "keeps_session",
        "link_closed",
        "listener",
        "peer_address",
        "requests",
        "state",
        "upstream_id",
        "will",
    )

    grant: Grant
    requests: OpenRequests
    state: SessionState

    def __init__(self, gate: Gate, listener: ListenerUse) -> None:
        super().__init__(gate.loop, gate.limits)
        self.gate = gate
        self.listener = listener
        self.capabilities = gate.upstream.capabilities
        self.arrival: Arrival | None = Arrival(self)
        self.will: WillMessage | None = None
        self.link_closed = False
        self.upstream_id = ""
        self.keeps_session = False  # the upstream session has a row in the store
        self.peer_address: tuple[str, int] | None = None
        self._phase = CONNECTING
        self._denials: Denials | None = None
        self._farewell: Farewell | None = None
        self._outbound: Outbound | None = None
        self._holds_session = False  # upstream

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        if name:
            self.peer_address = host, port = name[:2]
            self.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not self.gate.arrived(self):
            self._phase = ENDED
            self.transport.abort()

    def secured(self, transport: asyncio.Transport) -> None:
        """Use this transport from now on: TLS was agreed on over the one that the connection was made with."""
        if self._phase == ENDED:
            transport.abort()
        else:
            self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._phase == OPEN:
            self.client_sent(data)
        elif self.arrival is not None and self._phase != ENDED and self.arrival.received(data):
            self.wait_for_admission()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._phase != ENDED:
            self.end(Reason.CONNECTION_LOST, Will.SEND)
        self._stop_timer()
        self.gate.closing.discard(self)
        self.transport = None
        self._forget()

    # --- before the session ----------------------------------------------------------------------------------

    @property
    def awaits_connect(self) -> bool:
        """Whether no whole CONNECT has come yet."""
        return self._phase == CONNECTING

    def connect_received(self, request: ConnectRequest) -> None:
        """A whole, well-formed CONNECT has come: its admission begins."""
        self.will = request.will
        self._keep_alive = request.keep_alive_s * 1.5  # MQTT-3.1.2-24
        self._phase = ADMITTING
        self.gate.connect_received(self)

    def wait_for_admission(self) -> None:
        """Read no more until the CONNECT is answered."""
        if self._phase == ADMITTING:
            self.hold(Hold.ADMISSION)

    def refused(self, refusal: Refusal, request: ConnectRequest) -> None:
        """Answer the CONNECT with the code of the refusal, and leave; nothing if the client has gone."""
        if self._phase == OPEN:  # an accident after the session was opened
            self.end(refusal.reason, Will.SEND)
        elif self._phase != ENDED and self.arrival is not None:
            self.arrival.refused(refusal, request)

    def leave(self, answer: bytes) -> None:
        """Send the last bytes and close; abort where the client does not take them in time."""
        self._phase = ENDED
        self.gate.left(self)
        if self.transport is not None and answer:
            self.transport.write(answer)
        self._close()

    # --- the session -----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether packets pass: after the CONNACK, before the end."""
        return self._phase == OPEN

    @property
    def is_ended(self) -> bool:
        return self._phase == ENDED

    def opened(self, session: Session, link: Link, state: SessionState, *, connack: bytes) -> None:
        """Answer with the CONNACK and let packets pass: in one step with the opening of the session."""
        self.session = session
        self.grant = session.grant
        self.link = link
        self.state = state
        self.requests = OpenRequests()
        self.inbound = Inbound(self, Memo(self.grant, Action.PUBLISH))
        self._holds_session = True
        arrival, self.arrival = self.arrival, None
        self._phase = OPEN
        self.write(connack)
        self._watch_keep_alive()
        if state.subscriptions:  # of a session that goes on
            drop_uncovered(self)
        if arrival is not None and arrival.early:
            self.data_received(bytes(arrival.early))
        self.release(Hold.ADMISSION)

    @property
    def outbound(self) -> Outbound:
        """The broker's packets; made with the first of them, for many a session ends without any."""
        if self._outbound is None:
            self._outbound = Outbound(self, Memo(self.grant, Action.DELIVER))
        return self._outbound

    def denied(self, action: Action, topic: str, decision: Decision) -> None:
        """Record what was denied; of a flood only a sample, which costs no more than it must (the rest is counted)."""
        assert self.session is not None
        now = self._loop.time()
        if self._denials is None:
            self._denials = Denials(now)
        if self._denials.sampled(now):
            self.gate.service.denied(self.session, action.value, topic, decision)
        else:
            self.gate.denials_not_recorded += 1

    def broke_protocol(self, problem: MalformedPacket) -> None:
        """End the connection of a client that sent what it must not."""
        if self._phase == CONNECTING and self.arrival is not None:
            self.arrival.broke_protocol(problem)
            return
        log.info("protocol_error", peer=self.peer, problem=str(problem))
        self.end(Reason.PROTOCOL_ERROR, Will.SEND, in_order=True, code=problem.code)

    def disconnected(self, disconnect: Disconnect) -> None:
        """The client said DISCONNECT, and nothing after it is read.

        Its will is dropped (MQTT-3.14.4-3), in 5.0 with reason code 0 only: any other leaves it to be sent.
        """
        self.terms.left(disconnect)
        if disconnect.reason:
            self.end(Reason.DISCONNECTED, Will.SEND, in_order=True)
            return
        self.will = None
        self.end(Reason.DISCONNECTED, Will.NEVER, in_order=True)

    def upstream_said(self, disconnect: Disconnect) -> None:
        """The broker ends the connection (5.0, 3.14): what it says of the client's packets is told the client."""
        log.info("upstream_disconnects", peer=self.peer, code=disconnect.reason)
        if disconnect.reason in _ABOUT_PACKETS:
            self.end(Reason.PROTOCOL_ERROR, Will.SEND, in_order=True, code=disconnect.reason)
        else:
            self.end(Reason.BROKER_UNAVAILABLE, Will.SEND)

    # --- broker.upstream.LinkOwner ---------------------------------------------------------------------------

    def upstream_closed(self, error: Exception | None) -> None:  # noqa: ARG002
        self.link_closed = True
        if self._phase == OPEN:
            self.end(Reason.BROKER_UNAVAILABLE, Will.SEND)

    # --- authsvc.sessions.Connection -------------------------------------------------------------------------

    def swap(self, grant: Grant) -> None:
        """Take the new grant in one step: memos emptied, filters no longer covered unsubscribed."""
        if self._phase != OPEN:
            return
        self.grant = grant
        self.inbound.memo = Memo(grant, Action.PUBLISH)
        if self._outbound is not None:
            self._outbound.memo = Memo(grant, Action.DELIVER)
        drop_uncovered(self)

    def end(self, reason: Reason, will: Will, *, in_order: bool = False, code: int | None = None) -> None:
        """End the connection now, once. `in_order` lets what is buffered towards the client go out first.

        A client of MQTT 5.0 is told the reason code (`code`, or that of the reason), but never behind anything that
        is buffered, for that must not be sent.
        """
        phase = self._phase
        if phase == ENDED:
            return
        self._phase = ENDED
        self._stop_timer()
        farewell = self.terms.farewell(reason, code) if phase == OPEN else b""
        if in_order:
            if farewell:
                self.write(farewell)
            self._flush()
            self._close()
        elif farewell and self.transport is not None and self.nothing_buffered(self.transport):
            self.transport.write(farewell)
            self.transport.close()
            self._timer = self._loop.call_later(END_LINGER_S, self.abort)
        elif self.transport is not None:
            self.transport.abort()
        if phase == ADMITTING and self.arrival is not None and self.arrival.task is not None:
            self.arrival.task.cancel()
        if phase == OPEN:
            self._end_session(reason, will, in_order=in_order)
        self.gate.left(self)

    def _end_session(self, reason: Reason, will: Will, *, in_order: bool) -> None:
        session = self.session
        assert session is not None
        if will is Will.NEVER or (
            self.will is not None and self.gate.delayed_wills.take(self, session, self.will, reason)
        ):
            self.will = None
        if will is Will.NEVER and not in_order:
            self.link.abort()
        self.inbound.clear()
        for pending in self.requests.pending_subscribes():  # answered or not: the upstream may hold them
            self.state.subscriptions.update(pending.forwarded)
        if self.will is None and not self.link.used:
            self.link.close()
            self.gone(session)
        else:
            self._farewell = Farewell(self, session)
            self.gate.leaving(self, session, self._farewell.task)
        self.gate.service.sessions.closed(session, reason)
        if is_heard(_LOGGER, logging.INFO):
            log.info(
                "session_ended", session=session.id, client_id=session.client_id, peer=self.peer, reason=reason.value
            )

    async def wait_ended(self) -> None:
        """Return when socket and upstream are gone and the will, if any, has been handed over."""
        if self._farewell is not None:
            await self._farewell.wait()

    def gone(self, session: Session) -> None:
        """The broker has let go of the session."""
        self.gate.gone(self, session)
        self._holds_session = False
        self._forget()

    def _forget(self) -> None:
        """Once socket and session are gone, cut the circles: all of it is freed now, and not by the collector."""
        if self.transport is not None or self._holds_session:
            return
        self.arrival = None
        if self.session is not None:
            self.session = self._outbound = None
            del self.inbound, self.link

    def _close(self) -> None:
        """Close when the client has taken what is buffered; it has a little time for that."""
        if self.transport is not None:
            self.transport.close()
            self.gate.closing.add(self)
