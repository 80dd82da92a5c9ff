"""What a change means for live sessions: the table of what ends what, and which grants are compiled anew.

Ends come first and from one batch of changes together: an end is final, so nothing that follows can undo it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from authsvc.core.facts import Change, Kind, Name, Refusal
from authsvc.core.policy import Grant
from authsvc.core.reasons import Reason
from authsvc.sessions import Session, Sessions, Will

log = structlog.get_logger(__name__)

ENDS_PER_TURN = 50  # about 2 ms of the loop: everybody else is served between them
GRANTS_PER_TURN = 20
GRANTS_AT_LEAST = 100  # before a new batch of changes may come in between, so that neither starves


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrant:
    """A grant compiled anew from the facts as they are."""

    grant: Grant
    footing: frozenset[Name]
    expires_at_us: int | None


@dataclass(frozen=True, slots=True)
class End:
    reason: Reason
    will: Will


class Effect:
    """What a session makes of a change; the marks of the table that are not an `End`."""

    RECOMPILE = "recompile"
    NONE = "none"


# (kind, op) -> what happens to the sessions whose footing holds the record. A pair that is missing is compiled anew:
# a kind of change that somebody adds later must never leave an old grant in force.
TABLE: dict[tuple[Kind, str], End | str] = {
    (Kind.TOKEN, "created"): Effect.NONE,
    (Kind.TOKEN, "revoked"): End(Reason.TOKEN_REVOKED, Will.NEVER),
    (Kind.TENANT, "created"): Effect.NONE,
    (Kind.TENANT, "activated"): Effect.NONE,
    (Kind.TENANT, "updated"): Effect.NONE,  # its name
    (Kind.TENANT, "suspended"): End(Reason.TENANT_SUSPENDED, Will.NEVER),
    (Kind.TENANT, "deleted"): End(Reason.TENANT_SUSPENDED, Will.NEVER),
    (Kind.GROUND, "created"): Effect.NONE,
    (Kind.GROUND, "updated"): Effect.NONE,  # its name
    (Kind.THING, "bound"): Effect.NONE,
    (Kind.THING, "unblocked"): Effect.NONE,
    (Kind.THING, "forgotten"): Effect.NONE,
    (Kind.THING, "blocked"): End(Reason.THING_BLOCKED, Will.NEVER),
    (Kind.THING, "deleted"): End(Reason.THING_RETIRED, Will.NEVER),
    (Kind.THING, "client_id_reset"): End(Reason.KICKED, Will.SEND),
}


# A change that wipes is one of these, but not each of them does.
WIPING_OPS = frozenset(op for (_, op), effect in TABLE.items() if isinstance(effect, End)) | {"ended"}


def wipes(change: Change) -> bool:
    """Return whether the change ends the sessions that rest on its record with all that is kept for them."""
    if change.name.kind is Kind.SECRET:
        return change.op != "created" and bool(change.detail.get("wiped", True))
    effect = TABLE.get((change.name.kind, change.op))
    return isinstance(effect, End) and (effect.will is Will.NEVER or effect.reason is Reason.KICKED)


class Consequences:
    """Collects what changes mean for the sessions that are open now, and does it in fair slices.

    `regrant` compiles a session's grant anew, or says why it has none any more; it raises StoreUnavailable.
    """

    def __init__(self, sessions: Sessions, regrant: Callable[[Session], Awaitable[Regrant | Refusal]]) -> None:
        self._sessions = sessions
        self._regrant = regrant
        self._ends: deque[tuple[int, Session, End]] = deque()
        self._stale: dict[Session, int] = {}  # -> position of the first change that its grant does not know

    @property
    def unfinished(self) -> int | None:
        """The position of the first change that is not done, or None."""
        first = [self._ends[0][0]] if self._ends else []
        if self._stale:
            first.append(next(iter(self._stale.values())))
        return min(first, default=None)

    def take(self, change: Change) -> None:
        """Note what the change means for the sessions that rest on its record."""
        if change.name.kind is Kind.SECRET:
            self._take_secret(change)
            return
        effect = TABLE.get((change.name.kind, change.op), Effect.RECOMPILE)
        if effect == Effect.NONE:
            return
        for session in self._sessions.resting_on(change.name):
            if change.position in session.own_changes:
                continue
            if isinstance(effect, End):
                self._ends.append((change.position, session, effect))
            else:
                self._stale.setdefault(session, change.position)

    def _take_secret(self, change: Change) -> None:
        """A secret ended: at once, or with the overlap of a regenerate, which is an expiry like any other."""
        sessions = self._sessions.resting_on(change.name)
        if change.op == "created" or not sessions:
            return
        ended_at_us = change.detail.get("ended_at_us")
        if change.detail.get("wiped", True) or not isinstance(ended_at_us, int):
            end = End(Reason.TOKEN_REVOKED, Will.NEVER)
            self._ends.extend((change.position, session, end) for session in sessions)
            return
        for session in sessions:
            session.secret_expires_at_us = earliest(session.secret_expires_at_us, ended_at_us)
            self._sessions.expire_at(session, earliest(session.expires_at_us, ended_at_us))
            self._stale.setdefault(session, change.position)  # its grant carries the expiry too

    async def work(self, interrupted: Callable[[], bool]) -> None:
        """End and swap what was taken, giving way to others; with much to swap, return early when `interrupted`."""
        await self._end_all()
        done = 0
        while self._stale:
            session = next(iter(self._stale))
            if session.ending is None:
                await self._compile_anew(session)
            self._stale.pop(session, None)
            done += 1
            if done % GRANTS_PER_TURN == 0:
                await asyncio.sleep(0)
            if done >= GRANTS_AT_LEAST and interrupted():
                return

    async def _end_all(self) -> None:
        count = 0
        while self._ends:
            _, session, end = self._ends[0]
            self._sessions.end(session, end.reason, end.will)
            self._ends.popleft()
            self._stale.pop(session, None)
            count += 1
            if count % ENDS_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _compile_anew(self, session: Session) -> None:
        outcome = await self._regrant(session)
        if isinstance(outcome, Refusal):
            self._sessions.end(session, outcome.reason, Will.NEVER)
            return
        self._sessions.swap(session, outcome.grant, footing=outcome.footing, expires_at_us=outcome.expires_at_us)


def earliest(*times_us: int | None) -> int | None:
    """Return the earliest of the times; None is never."""
    return min((at for at in times_us if at is not None), default=None)
