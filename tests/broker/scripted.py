"""A service whose answers are written down by the test: for tests of the gate that need to say *when* things happen.

The registry of sessions and the grants are the real ones. Tests of what the product promises use the real service.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from authsvc.core.credentials import NEVER_EXPIRES, ConnectRequest
from authsvc.core.facts import Effect, Kind, Name, Refusal, Role, Rule, RuleAction
from authsvc.core.policy import Action, Decision, Grant, compile_grant
from authsvc.core.reasons import Reason
from authsvc.core.tokens import new_id
from authsvc.service import Throttle
from authsvc.sessions import Admitted, Session, Sessions
from authsvc.store.clearings import Clearing

OWN = (
    Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/{ground}/{thing}/#"),
    Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/{ground}/{thing}/#"),
)
EVERYTHING = (
    Rule(effect=Effect.ALLOW, action=RuleAction.PUBLISH, topic="{tenant}/#"),
    Rule(effect=Effect.ALLOW, action=RuleAction.SUBSCRIBE, topic="{tenant}/#"),
)


def grant_of(thing: str, rules: Sequence[Rule] = OWN, *, client_id: str = "c", tenant: str = "t") -> Grant:
    """Return a grant with these rules for a thing in ground `g`."""
    return compile_grant(
        principal=f"thing/{tenant}/{thing}",
        tenant=tenant,
        ground="g",
        thing=thing,
        definition=None,
        roles=(Role(tenant=tenant, key="r", name="r", rules=tuple(rules)),),
        client_id=client_id,
        expires_at_us=None,
    )


class ScriptedFeed:
    """Changes happen when the test calls `touch`."""

    def __init__(self) -> None:
        self.position = 0
        self.touched: list[tuple[int, Name]] = []

    def touch(self, name: Name) -> None:
        self.position += 1
        self.touched.append((self.position, name))

    def touched_since(self, position: int, footing: frozenset[Name], except_: frozenset[int] = frozenset()) -> bool:
        return any(at > position and at not in except_ and name in footing for at, name in self.touched)

    async def settle(self, position: int) -> None: ...


class ScriptedStore:
    """Clearings only."""

    def __init__(self) -> None:
        self.waiting: list[Clearing] = []
        self._callbacks: list[Callable[[], None]] = []

    def on_commit(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def add(self, clearing: Clearing) -> None:
        self.waiting.append(clearing)
        for callback in self._callbacks:
            callback()

    async def clearings(self, *, limit: int = 1000) -> Sequence[Clearing]:
        return self.waiting[:limit]

    async def cleared(self, id: int) -> None:  # noqa: A002
        self.waiting = [clearing for clearing in self.waiting if clearing.id != id]

    async def last_position(self) -> int:
        return 0


@dataclass(kw_only=True)
class Denied:
    action: str
    topic: str
    reason: Reason


@dataclass
class ScriptedService:
    """Admits whoever presents the key of a thing as password (`rules` by thing); `gate` holds an admission back."""

    rules: dict[str, Sequence[Rule]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = itertools.count(1)
        self.feed = ScriptedFeed()
        self.store = ScriptedStore()
        self.sessions = Sessions(
            touched_since=self.feed.touched_since,
            now_us=lambda: time.time_ns() // 1000,
            monotonic=time.monotonic,
            new_id=lambda: f"session{next(ids)}",
        )
        self._fresh = itertools.count(1)
        self.rows: dict[tuple[str, str], str] = {}
        self.left: dict[str, int | None] = {}  # upstream id -> seconds until the session ends
        self.refused: list[Refusal] = []
        self.denials: list[Denied] = []
        self.admissions = 0
        self.may_admit = asyncio.Event()
        self.may_admit.set()

    async def admit(self, request: ConnectRequest, *, peer: str, broker: str, throttle: Throttle) -> Admitted | Refusal:
        self.admissions += 1
        position = self.feed.position
        await self.may_admit.wait()
        thing = (request.password or b"").decode()
        if thing not in self.rules:
            return throttle(Refusal(reason=Reason.UNKNOWN_TOKEN, detail="no such thing"))
        client_id = request.client_id or f"fresh{next(self._fresh)}"
        grant = grant_of(thing, self.rules[thing], client_id=client_id)
        will = request.will
        if will and not grant.decide(Action.PUBLISH, will.topic, qos=will.qos, retain=will.retain).allowed:
            return Refusal(reason=Reason.WILL_DENIED)
        return Admitted(
            tenant="t",
            principal=grant.principal,
            client_id=client_id,
            thing=thing,
            ground="g",
            token_id="token",
            secret_id="secret",
            secret_expires_at_us=None,
            prefix="asdev_abcd",
            grant=grant,
            footing=frozenset({Name(Kind.THING, "t", thing)}),
            position=position,
            own_changes=frozenset(),
            expires_at_us=None,
            persistent=request.persistent,
            clean_start=request.clean_session,
            session_expiry_s=None if request.session_expiry_s == NEVER_EXPIRES else request.session_expiry_s,
        )

    async def upstream_session(self, admitted: Admitted) -> tuple[str, bool] | Refusal:
        key = (admitted.principal, admitted.client_id)
        fresh = new_id(secrets.token_bytes)
        if not admitted.persistent and (admitted.clean_start or key not in self.rows):
            self.rows.pop(key, None)
            return fresh, True
        return self.rows.setdefault(key, fresh), admitted.clean_start

    def session_entered(self, upstream_id: str, *, expiry_s: int | None) -> None:
        self.left.pop(upstream_id, None)

    def session_left(self, upstream_id: str, *, expiry_s: int | None) -> None:
        self.left[upstream_id] = expiry_s

    async def grant_of_ended(self, session: Session, upstream_id: str) -> Grant | Refusal:
        if self.rows.get((session.principal, session.client_id)) != upstream_id:
            return Refusal(reason=Reason.KICKED)
        assert session.thing is not None
        return grant_of(session.thing, self.rules[session.thing], client_id=session.client_id)

    def refuse(self, refusal: Refusal, *, request: ConnectRequest | None, peer: str, tenant: str | None = None) -> None:
        self.refused.append(refusal)

    def denied(self, session: Session, action: str, topic: str, decision: Decision) -> None:
        self.denials.append(Denied(action=action, topic=topic, reason=decision.reason))

    def regrant(self, thing: str, rules: Sequence[Rule]) -> None:
        """Change a thing's rules, live sessions included."""
        self.rules[thing] = rules
        for session in self.sessions.find("t", thing=thing):
            grant = grant_of(thing, rules, client_id=session.client_id)
            self.sessions.swap(session, grant, footing=session.footing, expires_at_us=None)
