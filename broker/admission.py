"""From a CONNECT to an open session: the gate's side of the flow (steps 5 and 6), a task per CONNECT.

The task is cancelled when its client goes: it gives up its place in the queue for the session's lock, and whatever it
had opened upstream is let go before the lock is.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import structlog

from authsvc.core.credentials import ConnectRequest
from authsvc.core.errors import StoreUnavailable, UpstreamUnavailable
from authsvc.core.facts import Refusal
from authsvc.core.reasons import Reason
from authsvc.sessions import Admitted, Will
from broker import eager
from broker.packet_ids import SessionState
from broker.upstream import Link

if TYPE_CHECKING:
    from broker.connection import ClientConnection
    from broker.gate import Gate

log = structlog.get_logger(__name__)

ATTEMPTS = 3  # what the admission rests on may change under it that often
LET_GO_WITHIN_S = 3.0


class _Waits:
    """What an admission waits for, for the refusal of one that takes too long."""

    __slots__ = ("broker",)

    def __init__(self) -> None:
        self.broker = False

    @property
    def reason(self) -> Reason:
        return Reason.BROKER_UNAVAILABLE if self.broker else Reason.STORE_UNAVAILABLE

    @property
    def what(self) -> str:
        return "the broker" if self.broker else "the store"


class Admission:
    """Admits connections of one gate. `tasks` are the admissions under way, and those that still let a link go."""

    def __init__(self, gate: Gate) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._gate = gate

    def begin(self, connection: ClientConnection, request: ConnectRequest) -> asyncio.Task[None] | None:
        """Start the admission of a connection; it is answered in time, whatever the admission still has to undo.

        Return its task, or None if it is over: where all is known and nobody is waited for it needs none.
        """
        loop = self._gate.loop
        waits = _Waits()
        rest = eager.begin(self._run(connection, request, waits))
        if rest is None:
            return None
        task = loop.create_task(rest, name=f"admission of {connection.peer}")
        late = loop.call_later(self._gate.limits.admission_s, self._late, connection, request, waits, task)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: late.cancel())
        return task

    def _late(
        self, connection: ClientConnection, request: ConnectRequest, waits: _Waits, task: asyncio.Task[None]
    ) -> None:
        self._refuse(connection, request, waits.reason, f"the admission took too long: it waits for {waits.what}")
        task.cancel()

    async def _run(self, connection: ClientConnection, request: ConnectRequest, waits: _Waits) -> None:
        """Open a session for the connection, or refuse it; never raises but when cancelled."""
        try:
            await self._admit(connection, request, waits)
        except UpstreamUnavailable as error:
            self._refuse(connection, request, Reason.BROKER_UNAVAILABLE, str(error))
        except StoreUnavailable as error:
            self._refuse(connection, request, Reason.STORE_UNAVAILABLE, str(error))
        except Exception as error:  # an accident never looks like a yes
            log.exception("admission_failed", peer=connection.peer, problem=type(error).__name__)
            self._refuse(connection, request, Reason.STORE_UNAVAILABLE, f"unexpected {type(error).__name__}")

    async def _admit(self, connection: ClientConnection, request: ConnectRequest, waits: _Waits) -> None:
        gate = self._gate
        throttle = functools.partial(gate.throttled, connection)
        for _ in range(ATTEMPTS):
            waits.broker = False
            admitted = await gate.service.admit(request, peer=connection.peer, broker=gate.name, throttle=throttle)
            if isinstance(admitted, Refusal):
                connection.refused(admitted, request)
                return
            async with gate.service.sessions.lock(admitted.principal, admitted.client_id, broker=gate.name):
                if self._is_stale(admitted):  # before it ends anybody's connection
                    continue
                if await self._open(connection, request, admitted, waits):
                    return
        self._refuse(connection, request, Reason.STORE_UNAVAILABLE, "what the credential rests on keeps changing")

    def _is_stale(self, admitted: Admitted) -> bool:
        feed = self._gate.service.feed
        return feed.touched_since(admitted.position, admitted.footing, admitted.own_changes)

    async def _open(
        self, connection: ClientConnection, request: ConnectRequest, admitted: Admitted, waits: _Waits
    ) -> bool:
        """Take the session over and open it, under its lock; return False when the admission must start again."""
        gate = self._gate
        sessions = gate.service.sessions
        await gate.delayed_wills.judge(admitted)
        upstream = await gate.service.upstream_session(admitted)
        if isinstance(upstream, Refusal):
            connection.refused(upstream, request)
            return True
        if self._is_stale(admitted):
            return False
        # Whatever can still refuse has been asked: a CONNECT that is refused must not end the holder's connection.
        holder = sessions.holder(admitted.principal, admitted.client_id, broker=gate.name)
        if holder is not None:
            sessions.end(holder, Reason.TAKEN_OVER, Will.SEND)
        waits.broker = True
        await gate.released(admitted.principal, admitted.client_id)
        upstream_id, clean = upstream
        gate.entered(upstream_id)
        link: Link | None = None
        opened = False
        try:
            hello = connection.terms.hello
            if clean and not admitted.persistent:
                link = gate.upstream.postponed(connection, upstream_id, hello=hello)
            if link is None:
                await asyncio.sleep(0)  # from here on in a task, which time limits need
                link = await gate.upstream.connect(connection, upstream_id, clean=clean, hello=hello)
            # From here to the CONNACK nothing waits: a change comes before `open`, which sees it, or after it.
            if connection.is_ended:
                return True
            if connection.link_closed:
                raise UpstreamUnavailable("the broker closed the session at once")
            present = link.session_present and not clean
            connack = self._connack(connection, request, admitted, link, session_present=present)
            if connack is None:
                return True
            session = sessions.open(admitted, connection, broker=gate.name, peer=connection.peer)
            if session is None:
                return False
            connection.upstream_id = upstream_id
            connection.keeps_session = admitted.persistent or not clean
            state = SessionState()
            if connection.keeps_session:
                state = gate.states.resume(upstream_id, present=present)
            try:
                connection.opened(session, link, state, connack=connack)
            except BaseException:
                sessions.closed(session, Reason.STORE_UNAVAILABLE)  # no session without a connection
                raise
            opened = True
            if connection.keeps_session:
                gate.service.session_entered(upstream_id, expiry_s=admitted.session_expiry_s)
            gate.delayed_wills.reconnected(admitted)
            return True
        finally:
            if not (opened or connection.is_open):
                if link is not None:
                    await _let_go(link)
                    connection.link_closed = False  # it was that of a link which was not taken
                if admitted.session_expiry_s:
                    gate.service.session_left(upstream_id, expiry_s=admitted.session_expiry_s)
                gate.released_upstream(upstream_id)

    def _connack(
        self,
        connection: ClientConnection,
        request: ConnectRequest,
        admitted: Admitted,
        link: Link,
        *,
        session_present: bool,
    ) -> bytes | None:
        """Return the CONNACK of an admitted client; None when it takes no packet as large, and is refused for that."""
        terms = connection.terms
        terms.agreed(link.connack)
        connack = terms.connack(
            link.connack,
            connection.capabilities,
            session_present=session_present,
            assigned_client_id=None if request.client_id else admitted.client_id,
        )
        if connack is None:
            detail = f"the client takes packets of {terms.max_to_client} bytes at most, and the CONNACK is larger"
            self._refuse(connection, request, Reason.PROTOCOL_ERROR, detail)
        return connack

    def _refuse(self, connection: ClientConnection, request: ConnectRequest, reason: Reason, detail: str) -> None:
        connection.refused(Refusal(reason=reason, detail=detail), request)


async def _let_go(link: Link) -> None:
    """Abort a link that nobody uses and wait until the broker has let go, also when cancelled meanwhile."""
    link.abort()
    going = asyncio.ensure_future(link.wait_closed())
    until = asyncio.get_running_loop().time() + LET_GO_WITHIN_S
    cancelled: asyncio.CancelledError | None = None
    while not going.done() and (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait({going}, timeout=left)
        except asyncio.CancelledError as error:
            if cancelled is not None:
                raise
            cancelled = error
    going.cancel()
    if cancelled is not None:
        raise cancelled
