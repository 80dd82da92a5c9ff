"""The live sessions of this process: who is connected by what, found by everything that a change can touch.

A `Session` is opened by a synchronous `Sessions.open` after admission, rests on the records in `footing`, and ends
exactly once. The registry knows no protocol: it ends and swaps connections through the small `Connection` interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from authsvc.core.facts import Kind, Name
from authsvc.core.policy import Grant
from authsvc.core.reasons import Reason
from authsvc.expiry import Expiry
from authsvc.locks import KeyedLocks


class Will(StrEnum):
    """What becomes of a will when a connection ends (the table of what ends what)."""

    SEND = "send"  # judged against the current grant, then sent
    NEVER = "never"


class Connection(Protocol):
    """What the registry may do to a live connection. Every call is synchronous; none raises."""

    def end(self, reason: Reason, will: Will) -> None:
        """End it now by abort; idempotent. What is buffered towards the client is not sent."""

    def swap(self, grant: Grant) -> None:
        """Take the new grant in one step: memos emptied, filters no longer covered unsubscribed."""

    async def wait_ended(self) -> None:
        """Return when socket and upstream are gone and the will, if any, has been handed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The outcome of an admission: all that a session needs but its connection. Nothing is open yet."""

    tenant: str
    principal: str  # "thing/{tenant}/{key}" or "ground/{tenant}/{token id}"
    client_id: str  # a fresh one where the client sent none
    thing: str | None
    ground: str
    token_id: str
    secret_id: str
    secret_expires_at_us: int | None
    prefix: str  # of the token, for logs
    grant: Grant
    footing: frozenset[Name]
    position: int  # feed position at the first read of the admission
    own_changes: frozenset[int]
    expires_at_us: int | None
    persistent: bool  # the session outlives its connection
    clean_start: bool  # a session that there was is not resumed: clean session, which 5.0 calls clean start
    session_expiry_s: int | None = None  # after the end of its connection; None: never
    registered: bool = False  # by this very CONNECT: no session of an earlier one can be left


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One live connection. `principal` and `client_id` never change; `grant` changes only by a swap."""

    id: str
    tenant: str
    principal: str  # "thing/{tenant}/{key}" or "ground/{tenant}/{token id}"
    client_id: str
    thing: str | None
    ground: str
    token_id: str
    secret_id: str
    grant: Grant
    connection: Connection
    footing: frozenset[Name]
    position: int  # feed position at the first read of its admission
    broker: str
    peer: str
    since_us: int
    expires_at_us: int | None
    persistent: bool
    deliveries_checked: bool = True  # whether every message towards it is decided on
    secret_expires_at_us: int | None = None
    prefix: str = ""  # of the token, for logs
    ending: Reason | None = None  # why the service ended it; it stays listed nowhere from then on
    own_changes: frozenset[int] = field(default_factory=frozenset)  # feed positions of its own registration


class Sessions:
    """The registry. Every method but the lock is synchronous, so that no change can come between a check and its act.

    `touched_since(position, footing, except_)` is the feed's answer to whether a change after `position` named one of
    the records of `footing`. `now_us` is the wall clock, `monotonic` seconds, `new_id` makes session ids.
    """

    def __init__(
        self,
        *,
        touched_since: Callable[[int, frozenset[Name], frozenset[int]], bool],
        now_us: Callable[[], int],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._touched_since = touched_since
        self._now_us = now_us
        self._new_id = new_id
        self._locks: KeyedLocks[tuple[str, str, str]] = KeyedLocks()
        self._by_id: dict[str, Session] = {}
        self._holders: dict[tuple[str, str, str], Session] = {}
        self._by_name: dict[Name, dict[Session, None]] = {}
        self.expiry: Expiry[Session] = Expiry(now_us=now_us, monotonic=monotonic, expired=self._expired)
        self.opened = 0
        self.ended: Counter[Reason] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_id.values()))

    def lock(self, principal: str, client_id: str, *, broker: str) -> AbstractAsyncContextManager[None]:
        """Return the FIFO lock under which the session of (principal, client id) at a broker is taken over and opened.

        Where two principals contend for one client id of a broker, the lock is taken with an empty principal. A waiter
        that is cancelled gives up its place; a lock that nobody holds or awaits takes no memory.
        """
        return self._locks.hold((broker, principal, client_id))

    def holder(self, principal: str, client_id: str, *, broker: str) -> Session | None:
        """Return the session that is open under this principal and client id at the broker."""
        return self._holders.get((broker, principal, client_id))

    def open(
        self,
        admitted: Admitted,
        connection: Connection,
        *,
        broker: str,
        peer: str,
        deliveries_checked: bool = True,
    ) -> Session | None:
        """Register the connection and return its session; None when its footing changed since: admit again.

        Call it under the lock, after the former holder has ended; a holder that is still there is ended (taken_over).
        """
        if self._touched_since(admitted.position, admitted.footing, admitted.own_changes):
            return None
        key = (broker, admitted.principal, admitted.client_id)
        former = self._holders.get(key)
        session = Session(
            id=self._new_id(),
            tenant=admitted.tenant,
            principal=admitted.principal,
            client_id=admitted.client_id,
            thing=admitted.thing,
            ground=admitted.ground,
            token_id=admitted.token_id,
            secret_id=admitted.secret_id,
            secret_expires_at_us=admitted.secret_expires_at_us,
            prefix=admitted.prefix,
            grant=admitted.grant,
            connection=connection,
            footing=admitted.footing,
            position=admitted.position,
            own_changes=admitted.own_changes,
            broker=broker,
            peer=peer,
            since_us=self._now_us(),
            expires_at_us=admitted.expires_at_us,
            persistent=admitted.persistent,
            deliveries_checked=deliveries_checked,
        )
        self._by_id[session.id] = session
        self._holders[key] = session
        self._index(session)
        if former is not None:  # only now: what both rest on keeps its place in the index
            self.end(former, Reason.TAKEN_OVER, Will.SEND)
        if session.expires_at_us is not None:
            self.expiry.schedule(session, session.expires_at_us)
        self.opened += 1
        return session

    def closed(self, session: Session, reason: Reason) -> None:
        """Forget a session whose connection has ended; called once or more, by the gate or by `end`."""
        if self._by_id.pop(session.id, None) is None:
            return
        key = (session.broker, session.principal, session.client_id)
        if self._holders.get(key) is session:
            del self._holders[key]
        self._unindex(session)
        if session.expires_at_us is not None:
            self.expiry.cancel(session)
        self.ended[reason] += 1

    def end(self, session: Session, reason: Reason, will: Will) -> None:
        """End a session by decision of the service: it leaves the registry, its connection is aborted. Idempotent."""
        if session.ending is not None:
            return
        session.ending = reason
        self.closed(session, reason)
        session.connection.end(reason, will)

    def swap(self, session: Session, grant: Grant, *, footing: frozenset[Name], expires_at_us: int | None) -> None:
        """Give a live session a new grant, footing and expiry in one step."""
        if session.id not in self._by_id:
            return
        self._unindex(session)
        session.footing = footing
        session.ground = grant.ground
        session.grant = grant
        self._index(session)
        self.expire_at(session, expires_at_us)
        session.connection.swap(grant)

    def expire_at(self, session: Session, expires_at_us: int | None) -> None:
        """Set when the session ends by itself."""
        session.expires_at_us = expires_at_us
        if session.id in self._by_id:
            self.expiry.schedule(session, expires_at_us)

    def kick(self, session_id: str, *, tenant: str) -> bool:
        """End a session of the tenant as its operator asked; return whether there was one."""
        session = self.get(session_id, tenant=tenant)
        if session is None:
            return False
        self.end(session, Reason.KICKED, Will.SEND)
        return True

    def get(self, session_id: str, *, tenant: str) -> Session | None:
        """Return the live session with this id if it is the tenant's."""
        session = self._by_id.get(session_id)
        return session if session is not None and session.tenant == tenant else None

    def find(self, tenant: str, *, client_id: str | None = None, thing: str | None = None) -> list[Session]:
        """Return the tenant's sessions with this client id and of this thing (either may be left out)."""
        if thing is not None:
            found = self.resting_on(Name(Kind.THING, tenant, thing))
        else:
            found = self.resting_on(tenant_name(tenant))
        return [s for s in found if client_id is None or s.client_id == client_id]

    def resting_on(self, name: Name) -> list[Session]:
        """Return the sessions whose footing holds this record."""
        return list(self._by_name.get(name, ()))

    def _index(self, session: Session) -> None:
        for name in session.footing:
            there = self._by_name.get(name)
            if there is None:
                self._by_name[name] = {session: None}
            else:
                there[session] = None

    def _unindex(self, session: Session) -> None:
        for name in session.footing:
            there = self._by_name.get(name)
            if there is not None:
                there.pop(session, None)
                if not there:
                    del self._by_name[name]

    def _expired(self, session: Session) -> None:
        self.end(session, Reason.TOKEN_EXPIRED, Will.SEND)


def tenant_name(tenant: str) -> Name:
    """Return how a change speaks of the tenant itself."""
    return Name(Kind.TENANT, tenant, tenant)
