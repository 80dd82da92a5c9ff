"""The admission of one CONNECT: flow steps 1 to 5. Nothing before step 5 changes anything for anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from authsvc.caches import Cache, Facts
from authsvc.changes import ChangeFeed
from authsvc.core import things, tokens
from authsvc.core.credentials import NEVER_EXPIRES, ConnectRequest, Credential, credential_of
from authsvc.core.facts import RETIRED, KeySet, Refusal, Secret, TenantState, Thing, ThingState, Token, TokenKind
from authsvc.core.policy import Action, Grant
from authsvc.core.reasons import Reason
from authsvc.core.things import Bind, Plan
from authsvc.core.topics import SetLevel
from authsvc.granting import Granting
from authsvc.sessions import Admitted
from authsvc.sets import Sets
from authsvc.store import Store

ATTEMPTS = 3  # an admission that others keep overtaking gives up: CONNACK 3
KNOWN_SESSIONS = 100_000
KNOWN_ADMISSIONS = 20_000

_Key = tuple[bytes, str | None, str, bool, int | None]  # all of a CONNECT that its admission depends on, but the will

MayHold = Callable[[str, str], Awaitable[Refusal | None]]  # principal, client id → why it may not have the client id


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What became known of a CONNECT while it was judged, for the record of its refusal."""

    tenant: str = ""
    thing: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """An admission that wrote nothing, and the records whose expiry is to be checked each time."""

    admitted: Admitted
    token: Token
    secret: Secret


class Admission:
    """Judges CONNECTs against the facts. Raises StoreUnavailable where the facts cannot be read or written."""

    def __init__(
        self,
        *,
        store: Store,
        facts: Facts,
        granting: Granting,
        sets: Sets,
        feed: ChangeFeed,
        now_us: Callable[[], int],
        new_id: Callable[[], str],
        max_persistent_sessions: int,
        max_client_id_bytes: int,
        max_known: int = KNOWN_ADMISSIONS,
    ) -> None:
        self._store = store
        self._facts = facts
        self._granting = granting
        self._sets = sets
        self._feed = feed
        self._now_us = now_us
        self._new_id = new_id
        self._max_persistent = max_persistent_sessions
        self._max_client_id_bytes = max_client_id_bytes
        self._known: Cache[_Key, _Known] = Cache(max_known)
        self.counted: Cache[tuple[str, str], bool] = Cache(KNOWN_SESSIONS)  # persistent sessions that have a row

    async def judge(
        self, request: ConnectRequest, attempt: Attempt, *, may_hold: MayHold | None = None
    ) -> Admitted | Refusal:
        """Return the admission, registered and bound, or the first reason against it; fill in `attempt`.

        `may_hold` is asked where one client id is one session of a broker, before anything is written.
        """
        credential = credential_of(request)
        if isinstance(credential, Refusal):
            return credential
        attempt.prefix = credential.prefix
        for _ in range(ATTEMPTS):
            if not self._feed.healthy:
                return Refusal(reason=Reason.STORE_UNAVAILABLE, detail="the change feed cannot be read")
            if not self._store.state.readable:
                return Refusal(reason=Reason.STORE_UNAVAILABLE, detail=self._store.state.problem)
            outcome = await self._judge_again(request, credential, attempt, may_hold)
            if outcome is None:
                outcome = await self._judge_once(request, credential, attempt, may_hold)
            if outcome is not None:
                return outcome
        return Refusal(reason=Reason.STORE_UNAVAILABLE, detail="the facts kept changing; the client may try again")

    async def _judge_again(
        self, request: ConnectRequest, credential: Credential, attempt: Attempt, may_hold: MayHold | None
    ) -> Admitted | Refusal | None:
        """Return the outcome of a CONNECT that was admitted before; None if it was not, or if a change named since
        what that admission rests on.

        It is the check that stands between every admission and the opening of its session, after a longer time. What
        depends on anything else is judged anew: the clock, the will, how many sessions there are, who holds the id.
        """
        key = _key(request, credential)
        known = self._known.get(key)
        if known is None:
            return None
        admitted = known.admitted
        if self._feed.touched_since(admitted.position, admitted.footing):
            self._known.drop(key)
            return None
        attempt.tenant, attempt.thing = admitted.tenant, admitted.thing or ""
        refusal = tokens.verify(known.token, known.secret, now_us=self._now_us(), presented=credential.digest)
        if refusal is None:
            refusal = await self._refusal(request, admitted.grant, admitted.client_id, may_hold)
        if refusal is not None:
            return refusal
        if admitted.thing is not None:
            self._store.note_seen(admitted.tenant, admitted.thing)
        return admitted

    async def _judge_once(
        self, request: ConnectRequest, credential: Credential, attempt: Attempt, may_hold: MayHold | None
    ) -> Admitted | Refusal | None:
        """Return the outcome, or None when the facts changed before anything was written: judge it anew."""
        position = self._feed.position
        found = await self._verified(credential, attempt)  # 1
        if isinstance(found, Refusal):
            return found
        token, secret = found
        target = await self._thing_of(token, credential, attempt)  # 2
        if isinstance(target, Refusal):
            return target
        plan = target if isinstance(target, Plan) else None
        thing = target.thing if isinstance(target, Plan) else target
        basis = await self._granting.basis(token, secret, thing)
        if isinstance(basis, Refusal):
            return basis
        refusal = things.check_client_id(  # 4, before 3: rules that use the client id need a safe one
            request.client_id,
            clean_session=request.clean_session
            or request.session_expiry_s is not None,  # 5.0, 3.1.3.1: always assigned
            uses_client_variable=basis.uses_client,
            max_bytes=self._max_client_id_bytes,
        )
        if refusal is not None:
            return refusal
        client_id = request.client_id or self._new_id()
        granted = self._granting.grant(basis, client_id, share=plan is None)  # 3
        binding = things.binding_of(
            definition=basis.definition,
            token_kind=token.kind,
            thing=thing if plan is None else None,
            client_id=request.client_id,
        )
        if isinstance(binding, Refusal):
            return binding
        judged = granted.grant if plan is None or request.will is None else _as_member(granted.grant, plan.thing.key)
        refusal = await self._refusal(request, judged, client_id, may_hold)
        if refusal is not None:
            return refusal
        if (plan or binding) and self._feed.touched_since(position, granted.footing):
            return None  # an answered change, say of the token, must not be overtaken by what it forbids
        own_changes = await self._apply(plan, thing, binding)  # 5
        if isinstance(own_changes, Refusal) or own_changes is None:
            return own_changes
        if thing is not None and plan is None:  # a registration has written it
            self._store.note_seen(token.tenant, thing.key)
        admitted = Admitted(
            tenant=token.tenant,
            principal=granted.principal,
            client_id=client_id,
            thing=thing.key if thing is not None else None,
            ground=granted.grant.ground,
            token_id=token.id,
            secret_id=secret.id,
            secret_expires_at_us=secret.expires_at_us,
            prefix=credential.prefix,
            grant=granted.grant,
            footing=granted.footing,
            position=position,
            own_changes=own_changes,
            expires_at_us=granted.expires_at_us,
            persistent=request.persistent,
            clean_start=request.clean_session,
            session_expiry_s=None if request.session_expiry_s == NEVER_EXPIRES else request.session_expiry_s,
            registered=plan is not None,
        )
        if request.client_id and plan is None and binding is None:
            self._known.put(_key(request, credential), _Known(admitted, token, secret))
        return admitted

    async def _refusal(
        self, request: ConnectRequest, grant: Grant, client_id: str, may_hold: MayHold | None
    ) -> Refusal | None:
        """Return what speaks against a CONNECT that has a grant: its will, too many sessions, another's client id."""
        refusal = self._will_refusal(request, grant)
        if refusal is None and request.persistent:
            refusal = await self.session_limit(grant.principal, client_id)
        if refusal is None and may_hold is not None:
            refusal = await may_hold(grant.principal, client_id)
        return refusal

    async def _verified(self, credential: Credential, attempt: Attempt) -> tuple[Token, Secret] | Refusal:
        pair = await self._facts.token_by_digest(credential.digest)
        if pair is None or pair[0].kind is not credential.kind:
            return Refusal(reason=Reason.UNKNOWN_TOKEN, detail="no token with this secret")
        token, secret = pair
        attempt.tenant = token.tenant
        refusal = tokens.verify(token, secret, now_us=self._now_us(), presented=credential.digest)
        if refusal is not None:
            return refusal
        tenant = await self._facts.tenant(token.tenant)
        if tenant is None or tenant.state is not TenantState.ACTIVE:
            return Refusal(reason=Reason.TENANT_SUSPENDED, detail=f"tenant `{token.tenant}` is not active")
        return pair

    async def _thing_of(self, token: Token, credential: Credential, attempt: Attempt) -> Thing | Plan | Refusal | None:
        """Return the thing that connects, the plan to register it, or None for a token that speaks for no thing."""
        key = things.thing_key_of(token, credential.thing_key)
        if key is None or isinstance(key, Refusal):
            return key
        attempt.thing = key
        thing = await self._facts.thing_or_retired(token.tenant, key)
        if thing is RETIRED:
            detail = f"thing `{key}` was deleted; an operator may create it again, or forget the key"
            return Refusal(reason=Reason.THING_RETIRED, detail=detail)
        if thing is None:
            return await self._plan(token, key)
        refusal = things.admits(token, thing)
        if refusal is not None:
            return refusal
        if thing.state is ThingState.BLOCKED:
            return Refusal(reason=Reason.THING_BLOCKED, detail=f"thing `{key}` is blocked")
        return thing

    async def _plan(self, token: Token, key: str) -> Plan | Refusal:
        if token.kind is not TokenKind.APP:
            return Refusal(reason=Reason.THING_UNKNOWN, detail=f"thing `{key}` of token `{token.id}` does not exist")
        definition = await self._facts.definition(token.tenant, token.definition) if token.definition else None
        ground = await self._facts.ground(token.tenant, things.registration_ground(token))
        return things.plan_registration(token, key, definition=definition, ground=ground, now_us=self._now_us())

    def _will_refusal(self, request: ConnectRequest, grant: Grant) -> Refusal | None:
        will = request.will
        if will is None:
            return None
        decision = grant.decide(Action.PUBLISH, will.topic, qos=will.qos, retain=will.retain)
        if decision.allowed:
            return None
        rule = f" ({decision.rule})" if decision.rule else ""
        return Refusal(reason=Reason.WILL_DENIED, detail=f"will on `{will.topic}`: {decision.reason.value}{rule}")

    async def session_limit(self, principal: str, client_id: str) -> Refusal | None:
        """Return why the principal may not have one more persistent session; one that it has already is no more."""
        key = (principal, client_id)
        if self.counted.get(key):
            return None
        count = await self._store.persistent_count(principal)
        if count < self._max_persistent or await self._store.upstream_session(principal, client_id) is not None:
            return None
        detail = f"`{principal}` has {count} persistent sessions of {self._max_persistent}; connect with clean session"
        return Refusal(reason=Reason.SESSION_LIMIT, detail=detail)

    async def _apply(
        self, plan: Plan | None, thing: Thing | None, binding: Bind | None
    ) -> frozenset[int] | Refusal | None:
        """Write what the admission registers or binds; return the positions of its own changes, None: judge anew."""
        if plan is None and binding is None:
            return frozenset()
        if plan is not None:
            written = await self._store.register(plan, bind_client_id=binding.client_id if binding else None)
        else:
            assert thing is not None
            assert binding is not None
            written = await self._store.bind_client_id(thing.tenant, thing.key, binding.client_id)
        if isinstance(written.value, Refusal):
            return written.value
        if plan is not None and (written.position == 0 or _place_of(written.value) != _place_of(plan.thing)):
            return None  # somebody else registered it first: it is a known thing now
        if plan is not None and self._feed.position < written.position:
            self._sets.joined(plan.thing.tenant, plan.thing.ground, plan.thing.key)
        if written.position == 0:
            return frozenset()  # another connection bound the same client id
        return frozenset(range(written.first, written.position + 1))


def _key(request: ConnectRequest, credential: Credential) -> _Key:
    return credential.digest, credential.thing_key, request.client_id, request.clean_session, request.session_expiry_s


def _as_member(grant: Grant, thing: str) -> Grant:
    """Return the grant that a thing will have as a member of its ground: a first CONNECT's will is judged by it."""
    members = grant.sets.get(SetLevel.MEMBER)
    if members is None:
        return grant
    return replace(grant, sets={**grant.sets, SetLevel.MEMBER: KeySet({*members.keys, thing})})


def _place_of(thing: Thing) -> tuple[str, str, ThingState]:
    return thing.ground, thing.definition, thing.state
