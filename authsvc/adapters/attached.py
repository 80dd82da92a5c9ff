"""One attached broker: the same verbs as the gate's, for every adapter.

    connect   admission ─► the client id's lock ─► owed kicks, holder ─► row ─► sessions.open ─► the answer
    decide    session by client id ─► its grant
    ended     by the registry (revoke, expiry, kick, …) ─► Kicks ─► Management
    restore   rows of the store ─► sessions, at start; `following` compares them with what the broker says

The broker owns the sockets: a session is here what it was told. A row says whose a client id is for as long as the
broker may keep something under it, because a client id is never a way to somebody else's queue.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from authsvc.adapters.adapter import Adapter, AttachedConfig
from authsvc.adapters.claims import MANAGEMENT_WITHIN_S, Claims
from authsvc.adapters.connection import HookConnection
from authsvc.adapters.following import SETTLED_US, Following
from authsvc.adapters.held import digest
from authsvc.adapters.kicks import Kicks
from authsvc.adapters.management import Management
from authsvc.adapters.rows import Rows
from authsvc.adapters.subscribed import Subscribed
from authsvc.core.credentials import ConnectRequest
from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import KeySet, Refusal
from authsvc.core.policy import Action, Decision, Grant
from authsvc.core.reasons import Reason
from authsvc.core.tokens import redacted
from authsvc.service import RecordedRefusal
from authsvc.sessions import Admitted, Session, Will
from authsvc.store.attached import AttachedSession

if TYPE_CHECKING:
    from authsvc.service import Service

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 3

NO_SESSION: Final = Decision(allowed=False, reason=Reason.NO_RULE_MATCHES)
EXPIRED: Final = Decision(allowed=False, reason=Reason.GRANT_EXPIRED)


class Attached:
    """One broker that asks by hooks; made by `routes` for each section ``[brokers.NAME]``."""

    def __init__(
        self, service: Service, config: AttachedConfig, adapter: Adapter, management: Management | None
    ) -> None:
        self.service = service
        self.config = config
        self.adapter = adapter
        self.management = management
        self.name = config.name
        self.kind = config.kind
        self.deliveries_checked = adapter.deliveries_checked
        self.rows = Rows(service.store, config.name)
        self.kicks = None if management is None else Kicks(self.name, management, lock=self.lock, done=self._kicked)
        self._connections: dict[str, HookConnection] = {}
        self.subscribed = Subscribed()  # where a change of a set can take rights that the broker goes on using
        self._ends_by_sets = self.kicks is not None and adapter.swap == "kick"
        if self._ends_by_sets:
            service.sets.watch(self._set_changed)
        self.following = Following(self)
        service.feed.follow(self.following)
        self.claims = Claims(self)

    # --- for adapters ------------------------------------------------------------------------------------------

    async def connect(self, request: ConnectRequest, *, peer: str) -> Session | Refusal:
        """Admit a CONNECT that the broker asks about and open its session; a refusal has changed nothing.

        A client id belongs to the principal that used it first, for as long as the broker may keep a session of it:
        another one is refused as ``client_id_taken``. The same principal takes over, and the broker ends the older
        connection by itself. An empty client id is ``client_id_invalid``: these brokers find sessions by it. Never
        raises. The refusal is recorded already.
        """
        if not request.clean_session:  # what the gate's rows count is no limit here
            request = request._replace(clean_session=True, session_expiry_s=None)
        try:
            return await self._connect(request, peer)
        except StoreUnavailable as error:
            return self._refused(Refusal(reason=Reason.STORE_UNAVAILABLE, detail=str(error)), request, peer)

    def sessions(self) -> list[Session]:
        """Return the open sessions on this broker."""
        return [connection.session for connection in self._connections.values() if connection.session is not None]

    def session(self, client_id: str) -> Session | None:
        """Return the open session of the client id on this broker."""
        connection = self._connections.get(client_id)
        return None if connection is None else connection.session

    def decide(self, client_id: str, action: Action, topic: str, *, qos: int = 0, retain: bool = False) -> Decision:
        """Return the decision of the client's grant; without a session a denial. Denials are recorded."""
        connection = self._connections.get(client_id)
        if connection is None or connection.session is None:
            self._no_session(client_id, action, topic)
            return NO_SESSION
        session = connection.session
        if session.expires_at_us is not None and session.expires_at_us <= self.service.now_us():
            decision = EXPIRED
        else:
            decision = session.grant.decide(
                action, topic, qos=qos, retain=retain, deliveries_checked=self.deliveries_checked
            )
        if decision.allowed:
            if action is Action.SUBSCRIBE and not self.deliveries_checked:
                self.subscribed.granted(client_id, session.grant, topic)
        elif connection.may_record():
            self.service.denied(session, action.value, topic, decision)
        return decision

    async def gone(self, client_id: str, *, keeps_session: bool, session_id: str | None = None) -> None:
        """Take from the broker that the client left, and whether something is kept there for it.

        Not believed of a session that was opened a moment ago: it may be about the connection that it took over. If it
        was true, a sweep finds out. A broker that knows our session ids says which one it means by `session_id`.
        """
        async with self.lock(client_id):  # a CONNECT that is being answered comes before it, or after it
            session = self.session(client_id)
            if session is not None:
                recent = self.service.now_us() - session.since_us < SETTLED_US
                if recent if session_id is None else session.id != session_id:
                    return
                self.closed(session, Reason.DISCONNECTED)
            if keeps_session:
                self.rows.left(client_id, now_us=self.service.now_us())
            elif self.kicks is None or not self.kicks.owes(client_id):
                self.rows.forget(client_id)
                self.subscribed.forget(client_id)

    # --- for the registry, through HookConnection ----------------------------------------------------------------

    def ended(self, connection: HookConnection, reason: Reason, will: Will) -> None:
        """Have the broker end a connection that the service ended; what is kept for it too, if it must not go on."""
        if self._connections.get(connection.client_id) is connection:
            del self._connections[connection.client_id]
        if reason in (Reason.TAKEN_OVER, Reason.SHUTTING_DOWN):
            return  # the broker ends the older connection by itself when the newer one takes its client id
        if connection.session is not None:
            log.info(
                "session_ended",
                session=connection.session.id,
                client_id=connection.client_id,
                broker=self.name,
                peer=connection.session.peer,
                reason=reason.value,
            )
        if self.adapter.ended is not None and connection.session is not None:
            self.adapter.ended(self, connection.session, reason, will)
        if self.kicks is None:
            self.rows.left(connection.client_id, now_us=self.service.now_us())
        else:
            self.kicks.add(connection.client_id, wipe=will is Will.NEVER or reason is Reason.KICKED)

    def swapped(self, connection: HookConnection, grant: Grant) -> None:
        """Have the broker follow a session's new grant, as its adapter does."""
        session, held = connection.session, connection.held
        if session is None or self._connections.get(connection.client_id) is not connection:
            return
        if self.adapter.swap == "kick" and not self.adapter.same(held, grant):
            self.service.sessions.end(session, Reason.KICKED, Will.SEND)
            return
        connection.held = grant
        self.subscribed.opened(connection.client_id, grant)
        if self.adapter.push is not None:
            self.adapter.push(self, session)
        row = self.rows.get(connection.client_id)
        if row is not None and self.adapter.same(held, grant):
            self.rows.put(replace(row, held=digest(grant), ground=grant.ground))

    def wipe(self, client_id: str) -> None:
        """Have the broker end the client's connection, and wipe what it keeps for it, by whatever it was allowed."""
        session = self.session(client_id)
        if session is not None:
            self.service.sessions.end(session, Reason.KICKED, Will.SEND)
        elif self.kicks is not None:
            self.kicks.add(client_id, wipe=True)

    def is_doubtful(self, admitted: Admitted) -> bool:
        """Return whether the broker may keep, from before the start, what a set that changed since does not allow."""
        return self._ends_by_sets and self.subscribed.is_doubtful(admitted.client_id, admitted.grant)

    def _set_changed(self, keys: KeySet) -> None:
        for client_id in self.subscribed.lost(keys):
            row = self.rows.get(client_id)
            if row is not None:  # which says that nothing is right any more, should the kick be owed over a restart
                self.rows.put(replace(row, held=""))
            self.wipe(client_id)

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send kicks, write what the rows owe and sweep, for ever; owned by the caller's task group."""
        async with asyncio.TaskGroup() as tasks:
            if self.kicks is not None:
                tasks.create_task(self.kicks.run(), name=f"kicks of {self.name}")
            tasks.create_task(self.following.run(), name=f"following {self.name}")
            if self.adapter.asks_in_turn:
                tasks.create_task(self.claims.run(), name=f"claims at {self.name}")

    async def close(self) -> None:
        """Write what is owed and close the way to the broker's management; connections there go on."""
        await self.rows.flush()
        if self.management is not None:
            await self.management.close()

    # --- connect -----------------------------------------------------------------------------------------------------

    async def _connect(self, request: ConnectRequest, peer: str) -> Session | Refusal:
        client_id = request.client_id
        if not client_id and not self.adapter.gives_client_ids:
            refusal = Refusal(reason=Reason.CLIENT_ID_INVALID, detail="an attached broker must send the client id")
            return self._refused(refusal, request, peer)
        before: AttachedSession | None = None
        written = False
        refused: Refusal | None = None
        until = asyncio.get_running_loop().time() + MANAGEMENT_WITHIN_S
        may_hold = partial(self.claims.may_hold, until=until)
        for _ in range(ATTEMPTS):
            admitted = await self.service.admit(request, peer=peer, broker=self.name, may_hold=may_hold)
            if isinstance(admitted, Refusal):
                refused = admitted
                break
            if not request.client_id:  # each admission gives a fresh one
                if written:
                    self.rows.forget(client_id)
                client_id, written = admitted.client_id, False
            refused = self.claims.must_wait(client_id) or await self.claims.waits_too_long(client_id, until=until)
            if refused is not None:
                refused = self._refused(refused, request, peer, admitted.tenant)
                break
            async with self.lock(client_id):
                if self._is_stale(admitted):
                    continue
                refused = await self.claims.claim(admitted, until=until)
                if refused is not None:
                    refused = self._refused(refused, request, peer, admitted.tenant)
                    break
                username = request.username or ""
                if not self.rows.stands(admitted, username):
                    if not written:
                        before = self.rows.get(client_id)
                    kept = await self.rows.keep(self._row_of(admitted, username, peer))
                    if not kept:
                        continue
                    written = True
                if (self.kicks is not None and self.kicks.wipes(client_id)) or self.is_doubtful(admitted):
                    continue  # the session before this one was revoked, or a set changed, while this row was written
                # From here to the answer nothing waits: a change comes before `open`, which sees it, or after it.
                session = self.open(admitted, username=username, peer=peer)
                if session is not None:
                    if self.kicks is not None:
                        self.kicks.drop(client_id)  # this CONNECT ends what was to be ended
                    return session
        if written:  # a CONNECT that is refused leaves nothing behind
            async with self.lock(client_id):
                if client_id not in self._connections:
                    if before is None:
                        self.rows.forget(client_id)
                    else:
                        self.rows.put(before)
        if refused is not None:
            return refused
        detail = "what the credential rests on keeps changing"
        return self._refused(Refusal(reason=Reason.STORE_UNAVAILABLE, detail=detail), request, peer)

    def _refused(self, refusal: Refusal, request: ConnectRequest, peer: str, tenant: str = "") -> Refusal:
        self.service.refuse(refusal, request=request, peer=peer, tenant=tenant)
        return RecordedRefusal(reason=refusal.reason, detail=refusal.detail)

    def open(self, admitted: Admitted, *, username: str, peer: str) -> Session | None:
        """Open the session, under the client id's lock; None when what it rests on has changed: admit again."""
        connection = HookConnection(self, admitted.client_id, admitted.grant, username)
        session = self.service.sessions.open(
            admitted, connection, broker=self.name, peer=peer, deliveries_checked=self.deliveries_checked
        )
        if session is not None:
            connection.session = session
            self._connections[admitted.client_id] = connection
            self.subscribed.opened(admitted.client_id, admitted.grant)
        return session

    def _row_of(self, admitted: Admitted, username: str, peer: str) -> AttachedSession:
        return AttachedSession(
            broker=self.name,
            client_id=admitted.client_id,
            principal=admitted.principal,
            tenant=admitted.tenant,
            thing=admitted.thing or "",
            ground=admitted.ground,
            token_id=admitted.token_id,
            secret_id=admitted.secret_id,
            username=username,
            peer=peer,
            held=digest(admitted.grant),
            since_us=self.service.now_us(),
        )

    def _is_stale(self, admitted: Admitted) -> bool:
        return self.service.feed.touched_since(admitted.position, admitted.footing, admitted.own_changes)

    def lock(self, client_id: str) -> AbstractAsyncContextManager[None]:
        """Return the lock under which the client id changes hands at this broker."""
        return self.service.sessions.lock("", client_id, broker=self.name)

    # --- ends --------------------------------------------------------------------------------------------------------

    def closed(self, session: Session, reason: Reason) -> None:
        """Forget a session whose connection is no more at the broker."""
        connection = self._connections.get(session.client_id)
        if connection is not None and connection.session is session:
            del self._connections[session.client_id]
        self.service.sessions.closed(session, reason)

    def _kicked(self, client_id: str, wiped: bool) -> None:
        """Take from the kicks that the broker has ended the connection, and wiped what it kept or not."""
        if client_id in self._connections:
            return
        if wiped:
            self.rows.forget(client_id)
            self.subscribed.forget(client_id)
        else:
            self.rows.left(client_id, now_us=self.service.now_us())

    def _no_session(self, client_id: str, action: Action, topic: str) -> None:
        row = self.rows.get(client_id)
        record = self.service.refusals.add(
            tenant=None if row is None else row.tenant,
            reason=NO_SESSION.reason,
            client_id=redacted(client_id),
            thing="" if row is None else row.thing,
            action=action.value,
            topic=redacted(topic),
            detail=f"broker `{self.name}` has admitted no such client id",
        )
        if record.count == 1:
            log.warning("hook_without_session", broker=self.name, client_id=record.client_id)
