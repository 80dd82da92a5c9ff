"""Who is connecting, what is it, and what may it do: the admission of a CONNECT and what the gate asks around it.

Service ── Admission ── Granting ── Facts, Sets ── Store
   ├────── Sessions ◄── Consequences ◄── ChangeFeed ──► KnownSecrets, Facts, Sets
   └────── Refusals
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable

import structlog

from authsvc.admission import KNOWN_SESSIONS, Admission, Attempt, MayHold
from authsvc.caches import Cache, Facts
from authsvc.changes import ChangeFeed
from authsvc.consequences import Consequences, Regrant
from authsvc.core import things
from authsvc.core.credentials import ConnectRequest
from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Name, Refusal, Secret, Thing
from authsvc.core.policy import Decision, Grant
from authsvc.core.reasons import Reason
from authsvc.core.tokens import Ids, redacted
from authsvc.granting import Granting
from authsvc.known_secrets import KnownSecrets
from authsvc.logs import is_heard
from authsvc.refusals import Refusals
from authsvc.sessions import Admitted, Session, Sessions
from authsvc.sets import Sets
from authsvc.store import Store
from authsvc.store.clearings import UpstreamSession

__all__ = ["Admitted", "RecordedRefusal", "Service"]

log = structlog.get_logger(__name__)
_LOGGER = logging.getLogger(__name__)


Throttle = Callable[[Refusal], Refusal]  # → what is recorded and answered in its place, where too many have failed


class RecordedRefusal(Refusal):
    """A refusal that stands in the list already: `Service.refuse` does not count it twice."""

    __slots__ = ()


class Service:
    """Everything that decides, around one store. `start` it, run `run` as a task, and give it to the gate."""

    def __init__(
        self,
        *,
        store: Store,
        now_us: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
        max_persistent_sessions: int = 100,
        max_client_id_bytes: int = things.MAX_CLIENT_ID_BYTES,
        max_cached_things: int = 100_000,
        max_cached_grants: int = 20_000,
    ) -> None:
        self.store = store
        self.now_us = now_us
        self._ids = Ids(random)
        self.refusals = Refusals(now_us=now_us)
        self.sets = Sets(store)
        self.known_secrets = KnownSecrets(store)
        self.facts = Facts(
            store,
            position=self._position,
            touched_since=self._touched_since,
            known_secrets=self.known_secrets,
            max_things=max_cached_things,
        )
        self.granting = Granting(self.facts, self.sets, max_grants=max_cached_grants)
        self.sessions = Sessions(
            touched_since=self._touched_since,
            now_us=now_us,
            monotonic=monotonic,
            new_id=self.new_id,
        )
        self.feed = ChangeFeed(
            store,
            appliers=(self.known_secrets, self.facts, self.sets, self.refusals),
            follower=Consequences(self.sessions, self._regrant),
            monotonic=monotonic,
        )
        self._admission = Admission(
            store=store,
            facts=self.facts,
            granting=self.granting,
            sets=self.sets,
            feed=self.feed,
            now_us=now_us,
            new_id=self.new_id,
            max_persistent_sessions=max_persistent_sessions,
            max_client_id_bytes=max_client_id_bytes,
        )
        self._expiring: set[str] = set()  # sessions under admission whose rows have an expiry
        self._rowless: Cache[tuple[str, str], bool] = Cache(KNOWN_SESSIONS)  # False: a row was begun, perhaps written

    def new_id(self) -> str:
        """Return a new id of 22 base62 characters; not a secret."""
        return self._ids.new()

    async def start(self) -> None:
        """Take up position in the change feed, before `run` and any admission. Raises StoreUnavailable."""
        await self.feed.start()
        with contextlib.suppress(StoreUnavailable):  # at the next start then; known things are admitted without writing
            await self.store.leave_all_sessions()

    async def run(self) -> None:
        """Apply changes and end what expires, for ever; owned by the caller's task group."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.feed.run(), name="change feed")
            tasks.create_task(self.known_secrets.run(), name="known secrets")
            tasks.create_task(self.sessions.expiry.run(), name="expiry of sessions")

    async def admit(
        self,
        request: ConnectRequest,
        *,
        peer: str,
        broker: str,
        may_hold: MayHold | None = None,
        throttle: Throttle | None = None,
    ) -> Admitted | Refusal:
        """Decide a CONNECT (flow steps 1 to 5) and write what it registers or binds; a refusal has changed nothing.

        Never raises `StoreUnavailable`: that is a refusal here. What is refused is recorded already, and `refuse`
        knows it. `broker` names who asks, and `may_hold` says whether that broker has the client id free for a
        principal (None: the same client id of two principals is two sessions there). Every refusal passes `throttle`
        before it is recorded. With the admission go
        `upstream_session` and `sessions.open`; when that returns None, call this again, three times in all.
        """
        attempt = Attempt()
        try:
            outcome = await self._admission.judge(request, attempt, may_hold=may_hold)
        except StoreUnavailable as error:
            outcome = Refusal(reason=Reason.STORE_UNAVAILABLE, detail=str(error))
        if isinstance(outcome, Refusal):
            if throttle is not None:
                outcome = throttle(outcome)
            return self._record(outcome, request=request, peer=peer, broker=broker, attempt=attempt)
        return outcome

    async def upstream_session(self, admitted: Admitted) -> tuple[str, bool] | Refusal:
        """Return the upstream client id and whether to connect it clean; call it under the session's lock.

        For a persistent session the row is kept or made; for one that is neither kept nor resumed a row that was there
        is wiped. Refused are
        ``session_limit`` and ``store_unavailable``. What needs no write is answered while the store cannot be written.
        """
        try:
            return await self._upstream_session(admitted)
        except StoreUnavailable as error:
            return Refusal(reason=Reason.STORE_UNAVAILABLE, detail=str(error))

    def session_entered(self, upstream_id: str, *, expiry_s: int | None) -> None:
        """Note that somebody is connected to this upstream session, which therefore does not expire."""
        # Over the one that an older connection may have noted while it was taken over, written by now or not.
        if expiry_s is not None or upstream_id in self._expiring or self.store.has_noted_end(upstream_id):
            self.store.note_session_end(upstream_id, expiry_s=expiry_s, expires_at_us=None)
        self._expiring.discard(upstream_id)

    def session_left(self, upstream_id: str, *, expiry_s: int | None) -> None:
        """Note that nobody is connected to this upstream session any more, and that it ends in so many seconds.

        None is never; nothing happens where there is no row, as for a session that lived with its connection.
        """
        self._expiring.discard(upstream_id)
        expires_at_us = None if expiry_s is None else self.now_us() + expiry_s * 1_000_000
        self.store.note_session_end(upstream_id, expiry_s=expiry_s, expires_at_us=expires_at_us)

    async def grant_of_ended(self, session: Session, upstream_id: str) -> Grant | Refusal:
        """Return the grant that an ended, persistent session would have now, or why it would have none.

        What wipes a session (revoke, block, delete, suspend) wiped its row too, in the same transaction: without the
        row there is nothing left that may speak for it. Raises StoreUnavailable.
        """
        row = await self.store.upstream_session(session.principal, session.client_id)
        if row is None or row.upstream_id != upstream_id:
            return Refusal(reason=Reason.KICKED, detail="the session was wiped")
        outcome = await self._regrant(session)
        return outcome if isinstance(outcome, Refusal) else outcome.grant

    def refuse(self, refusal: Refusal, *, request: ConnectRequest | None, peer: str, tenant: str | None = None) -> None:
        """Record a refusal of the gate's own (limits, time, broker) so that an operator can read it."""
        if not isinstance(refusal, RecordedRefusal):
            self._record(refusal, request=request, peer=peer, broker="", attempt=Attempt(tenant=tenant or ""))

    def denied(self, session: Session, action: str, topic: str, decision: Decision) -> None:
        """Record a publish, subscribe or delivery that was denied."""
        record = self.refusals.add(
            tenant=session.tenant,
            reason=decision.reason,
            peer=session.peer,
            client_id=redacted(session.client_id),
            thing=session.thing or "",
            token_prefix=session.prefix,
            action=str(action),
            topic=redacted(topic),
            rule=decision.rule or "",
        )
        if record.count == 1 and is_heard(_LOGGER, logging.INFO):
            log.info(
                "denied",
                tenant=session.tenant,
                client_id=record.client_id,
                thing=session.thing,
                action=record.action,
                topic=record.topic,  # cut, and without what looks like a token: clients choose it
                reason=decision.reason.value,
                rule=decision.rule,
            )

    def _record(
        self, refusal: Refusal, *, request: ConnectRequest | None, peer: str, broker: str, attempt: Attempt
    ) -> RecordedRefusal:
        client_id = redacted(request.client_id) if request is not None else ""
        record = self.refusals.add(
            tenant=attempt.tenant,
            reason=refusal.reason,
            peer=peer,
            client_id=client_id,
            thing=attempt.thing,
            token_prefix=attempt.prefix,
            detail=redacted(refusal.detail),
        )
        if record.count == 1 and is_heard(_LOGGER, logging.INFO):  # equal ones of a second are counted, not logged
            log.info(
                "connect_refused",
                reason=refusal.reason.value,
                detail=record.detail,
                peer=peer,
                client_id=record.client_id,
                tenant=attempt.tenant,
                thing=attempt.thing,
                token=attempt.prefix,
                broker=broker,
            )
        return RecordedRefusal(reason=refusal.reason, detail=refusal.detail)

    async def _upstream_session(self, admitted: Admitted) -> tuple[str, bool] | Refusal:
        key = (admitted.principal, admitted.client_id)
        # A thing's rows end with it, so one that was not there a moment ago has none but what was begun since.
        if not admitted.persistent and self._rowless.get(key, admitted.registered):
            self._rowless.put(key, True)
            return self.new_id(), True
        row = await self.store.upstream_session(*key)
        if row is not None and row.expires_at_us is not None and row.expires_at_us <= self.now_us():
            await self._open_row(admitted, row, wipe=True)  # MQTT 5.0, 3.1.2.11.2
            row = None
        if not admitted.persistent and (row is None or admitted.clean_start):
            if row is not None:
                await self._open_row(admitted, row, wipe=True)
                self._admission.counted.drop(key)
            self._rowless.put(key, True)
            return self.new_id(), True
        if row is None:
            self._admission.counted.drop(key)  # it was wiped since: one more again
            # no client id holds NUL, and no broker's name is empty: one of these at a time
            async with self.sessions.lock(admitted.principal, "\0", broker=""):
                refusal = await self._admission.session_limit(*key)
                if refusal is not None:
                    return refusal
                self._rowless.put(key, False)  # before it is written, for one that is cancelled may be written yet
                row = await self._open_row(admitted, None)
        elif (row.secret_id, row.token_id) != (admitted.secret_id, admitted.token_id):
            row = await self._open_row(admitted, row)
        if row is not None and row.expiry_s is not None:
            self._expiring.add(row.upstream_id)
        if row is None:
            return Refusal(reason=Reason.STORE_UNAVAILABLE, detail="the session was wiped while it was opened")
        self._admission.counted.put(key, True)
        # A session that was there and is not to be resumed keeps its row: the clean start upstream empties it, and a
        # CONNECT that the broker does not answer leaves it as it was.
        return row.upstream_id, admitted.clean_start

    async def _open_row(
        self, admitted: Admitted, row: UpstreamSession | None, *, wipe: bool = False
    ) -> UpstreamSession | None:
        upstream_id = self.new_id() if row is None else row.upstream_id
        try:
            written = await self.store.open_upstream_session(
                admitted.principal,
                admitted.client_id,
                tenant=admitted.tenant,
                thing=admitted.thing or "",
                ground=admitted.ground,
                token_id=admitted.token_id,
                secret_id=admitted.secret_id,
                clean=wipe,
                upstream_id=upstream_id,
                expiry_s=admitted.session_expiry_s,
            )
        except asyncio.CancelledError:  # perhaps written, with nobody connected to it: it ends as it would have
            if row is None:
                self.session_left(upstream_id, expiry_s=admitted.session_expiry_s)
            else:
                self.store.note_session_end(upstream_id, expiry_s=row.expiry_s, expires_at_us=row.expires_at_us)
            raise
        return written.value

    def _position(self) -> int:
        return self.feed.position

    def _touched_since(self, position: int, names: Iterable[Name], except_: frozenset[int] = frozenset()) -> bool:
        return self.feed.touched_since(position, names, except_)

    async def _regrant(self, session: Session) -> Regrant | Refusal:
        """Compile a live session's grant anew; raises StoreUnavailable."""
        token = await self.facts.token(session.tenant, session.token_id)
        if token is None or token.revoked_at_us is not None:
            return Refusal(reason=Reason.TOKEN_REVOKED)
        thing: Thing | None = None
        if session.thing is not None:
            thing = await self.facts.thing(session.tenant, session.thing)
            if thing is None:
                return Refusal(reason=Reason.THING_RETIRED)
            refusal = things.admits(token, thing)  # a move, or another ground of the token, may have ended it
            if refusal is not None:
                return refusal
        secret = Secret(id=session.secret_id, token_id=token.id, digest=b"", expires_at_us=session.secret_expires_at_us)
        basis = await self.granting.basis(token, secret, thing)
        if isinstance(basis, Refusal):
            return basis
        granted = self.granting.grant(basis, session.client_id, share=False)
        return Regrant(grant=granted.grant, footing=granted.footing, expires_at_us=granted.expires_at_us)
