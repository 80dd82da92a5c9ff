"""The gate: owns the clients' sockets, admits before anything happens, and checks every packet in both directions.

    listeners ─► ClientConnection ─► Admission ─► Inbound ─► upstream.Link ─► the broker
                        ▲                                                        │
                        └───────────────── Outbound ◄────────────────────────────┘

This module counts and bounds what the connections do together; `connection` is the life of one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import structlog

from authsvc.core.facts import Refusal
from authsvc.core.reasons import GUESSES, Reason
from authsvc.service import Service
from authsvc.sessions import Session, Will
from broker.admission import Admission
from broker.clearings import Clearer
from broker.connection import ClientConnection
from broker.deadlines import Deadlines
from broker.delayed_wills import DelayedWills
from broker.limits import Backoff, Limits
from broker.listeners import Listener, ListenerUse, OpenListener, open_listener
from broker.packet_ids import SessionStates
from broker.tls import Securable
from broker.upstream import Upstream
from broker.websocket import WebSocketServer

log = structlog.get_logger(__name__)

OnDeniedPublish = Literal["drop", "disconnect"]

MAX_BEGUN = 2_000  # CONNECTs at once of which a part is kept: up to `max_connect_bytes` each, where silence has none
CLOSE_WITHIN_S = 3.5  # of a connection's farewell; the rest of the end takes time too


class Gate:
    """Everything that listens for MQTT clients in this process. `listen` once per address, `close` at the end."""

    def __init__(
        self,
        service: Service,
        upstream: Upstream,
        limits: Limits,
        *,
        on_denied_publish: OnDeniedPublish = "drop",
        name: str = "gate",
    ) -> None:
        self.service = service
        self.upstream = upstream
        self.limits = limits
        self.name = name
        self.disconnects_on_denied_publish = on_denied_publish == "disconnect"
        self.loop = asyncio.get_running_loop()
        self.admission = Admission(self)
        self.states = SessionStates()
        self.delayed_wills = DelayedWills(self, limits.max_delayed_wills)
        self._backoff = Backoff(burst=limits.failed_connect_burst, refill_per_s=limits.failed_connects_per_s)
        self._listeners: list[OpenListener] = []
        self._connections: set[ClientConnection] = set()
        self._before_connect = Deadlines(self.loop, limits.connect_s, _too_slow)
        self._begun: dict[ClientConnection, None] = {}  # of them, those that have sent a part of it
        self.closing = Deadlines(self.loop, limits.refusal_linger_s, ClientConnection.abort)  # with bytes to take
        self._leaving: dict[tuple[str, str], set[ClientConnection]] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._clearer = Clearer(service, upstream, self.states)
        self._closing = False
        self.denials_not_recorded = 0  # beyond the sample of a flooding connection

    def __len__(self) -> int:
        return len(self._connections)

    async def listen(self, listener: Listener) -> tuple[str, int]:
        """Open a listener; return the (host, port) it is bound to. Raises OSError, which names the address."""
        use = ListenerUse(listener)

        def accepted() -> Securable:
            connection = ClientConnection(self, use)
            return WebSocketServer(connection, self.limits) if listener.websocket else connection

        opened = await open_listener(listener, accepted, handshake_timeout_s=self.limits.connect_s)
        self._listeners.append(opened)
        self._clearer.start()
        return opened.address

    async def close(self) -> None:
        """End every connection (wills sent, persistent sessions kept); return within 5 s."""
        self._closing = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        await self._clearer.stop()
        for connection in list(self._connections):
            connection.end(Reason.SHUTTING_DOWN, Will.SEND)
        wills = self.loop.create_task(self.delayed_wills.close(), name="delayed wills")
        waiting = {*self._farewells, *self.admission.tasks, wills}
        _, late = await asyncio.wait(waiting, timeout=CLOSE_WITHIN_S)
        for task in late:
            task.cancel()
        if late:
            log.warning("gate_closed_late", sessions=len(late))
            await asyncio.wait(late, timeout=0.3)

    # --- called by connections -------------------------------------------------------------------------------

    def arrived(self, connection: ClientConnection) -> bool:
        """Count a connection that was accepted; False if there is no room for it."""
        use = connection.listener
        if self._closing:
            return False
        full = len(self._connections) >= self.limits.max_connections
        if use.full or (full and not len(self._before_connect)):
            refusal = Refusal(reason=Reason.CONNECTION_LIMIT, detail=f"listener `{use.name}` takes no more connections")
            self.service.refuse(refusal, request=None, peer=connection.peer)
            return False
        if full or len(self._before_connect) >= self.limits.max_before_connect:
            # The one that has been silent longest makes room: silence must not lock out those who speak.
            _make_room(self._before_connect.oldest)
        self._connections.add(connection)
        self._before_connect.add(connection)
        use.connections += 1
        return True

    def connect_begun(self, connection: ClientConnection) -> None:
        """A part of the connection's CONNECT is kept until the rest has come."""
        if connection not in self._begun and len(self._begun) >= MAX_BEGUN:
            _make_room(next(iter(self._begun)))
        self._begun[connection] = None

    def connect_received(self, connection: ClientConnection) -> None:
        """The connection has shown a whole, well-formed CONNECT."""
        self._before_connect.discard(connection)
        self._begun.pop(connection, None)

    def left(self, connection: ClientConnection) -> None:
        """Forget a connection that ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._before_connect.discard(connection)
            self._begun.pop(connection, None)
            connection.listener.connections -= 1

    def throttled(self, connection: ClientConnection, refusal: Refusal) -> Refusal:
        """Return what to record and to answer: a failing credential too many from one address is ``rate_limited``."""
        if refusal.reason not in GUESSES:
            return refusal
        address = connection.peer_address[0] if connection.peer_address else "unix"
        if self._backoff.failed(address, self.loop.time()):
            return refusal
        detail = f"too many failing CONNECTs from this address; this one: {refusal.reason.value}, {refusal.detail}"
        return Refusal(reason=Reason.RATE_LIMITED, detail=detail)

    def entered(self, upstream_id: str) -> None:
        """A connection uses this upstream session: it is not cleared meanwhile."""
        self._clearer.in_use.add(upstream_id)

    def leaving(self, connection: ClientConnection, session: Session, farewell: asyncio.Task[None]) -> None:
        """Remember who still holds an upstream session while its farewell is said."""
        self._leaving.setdefault((session.principal, session.client_id), set()).add(connection)
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    def gone(self, connection: ClientConnection, session: Session) -> None:
        """The broker has let go of the connection's session."""
        key = (session.principal, session.client_id)
        waiting = self._leaving.get(key)
        if waiting is not None:
            waiting.discard(connection)
            if not waiting:
                del self._leaving[key]
        terms = connection.terms
        if connection.keeps_session and (terms.session_expiry_s is not None or terms.expiry_changed):
            self.service.session_left(connection.upstream_id, expiry_s=terms.session_expiry_s)
        self.released_upstream(connection.upstream_id)

    def released_upstream(self, upstream_id: str) -> None:
        """No connection uses this upstream session any more."""
        self._clearer.released(upstream_id)

    async def released(self, principal: str, client_id: str) -> None:
        """Return when nobody holds the upstream session of (principal, client id) any more."""
        while waiting := self._leaving.get((principal, client_id)):
            with contextlib.suppress(KeyError):
                await next(iter(waiting)).wait_ended()


def _make_room(connection: ClientConnection) -> None:
    assert connection.arrival is not None  # it is given away with the opening of a session, long after the CONNECT
    connection.arrival.makes_room()


def _too_slow(connection: ClientConnection) -> None:
    if connection.arrival is not None:
        connection.arrival.too_slow()
