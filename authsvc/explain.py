"""Why a client may or may not do something, rule by rule, from the same facts that an admission reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from authsvc.core import things
from authsvc.core.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from authsvc.core.facts import Effect, Refusal, RuleAction, TenantState, Thing, ThingState, Token, TokenKind
from authsvc.core.policy import Action, CompiledRule, Grant
from authsvc.core.reasons import Reason
from authsvc.core.topics import check_topic_filter, check_topic_name, overlaps, shared_filter
from authsvc.service import Service
from authsvc.sessions import Session

ANY_THING = "any-thing"  # stands for whatever an app token would register


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the trace: a rule (or a step of the admission) and whether it matched."""

    rule: str  # rule id, or the name of the step
    effect: str  # "allow", "deny" or "" for a step
    action: str
    topic: str  # the rendered filter of a rule
    matched: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The decision and how it came about; `basis` says whose grant was judged."""

    allowed: bool
    reason: Reason
    rule: str | None
    basis: str
    trace: Sequence[Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    action: Action
    topic: str
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """Whose grant is judged; `refusal` is why its CONNECT would be refused."""

    basis: str
    grant: Grant | None
    refusal: Refusal | None = None
    deliveries_checked: bool = True


async def explain(
    service: Service,
    tenant: str,
    *,
    client_id: str | None = None,
    thing: str | None = None,
    token_id: str | None = None,
    action: Action,
    topic: str,
    qos: int = 0,
    retain: bool = False,
) -> Explanation:
    """Return the decision for the live session of `client_id`, for `thing`, or for what `token_id` would be granted.

    `thing` and `token_id` may be given together: that thing by that token. A `client_id` without a session whose
    CONNECT was refused lately is explained by that refusal.

    Raises:
        NotFound: no such session, thing or token in this tenant.
        Conflict: code ``client_id_ambiguous``: two principals use the client id; the detail names both.
        InvalidInput: none of the three was named or a client id together with another, or the topic is malformed.
        StoreUnavailable: the facts cannot be read.
    """
    if (client_id is None) == (thing is None and token_id is None):
        raise InvalidInput("subject_invalid", "name one of `client_id`, `thing` and `token_id`", field="client_id")
    if action is Action.SUBSCRIBE:
        shared = shared_filter(topic)
        check_topic_filter(topic if shared is None else shared.inner)
    else:
        check_topic_name(topic)
    if not service.feed.healthy:
        raise StoreUnavailable("the change feed cannot be read: what is cached may be out of date")
    question = _Question(action=action, topic=topic, qos=qos, retain=retain)
    if client_id is not None:
        subject = _by_client_id(service, tenant, client_id)
    elif token_id is not None:
        subject = await _by_token(service, tenant, token_id, thing)
    else:
        assert thing is not None
        subject = await _by_thing(service, tenant, thing)
    return _answer(subject, question)


def _answer(subject: _Subject, question: _Question) -> Explanation:
    trace: list[Step] = []
    if subject.refusal is not None:
        trace.append(
            Step(rule="connect", effect="", action="connect", topic="", matched=False, note=_said(subject.refusal))
        )
    if subject.grant is None:
        assert subject.refusal is not None
        return Explanation(
            allowed=False, reason=subject.refusal.reason, rule=None, basis=subject.basis, trace=tuple(trace)
        )
    trace.extend(_step(subject.grant, rule, question) for rule in subject.grant.rules)
    trace.extend(
        Step(
            rule=out.id,
            effect=out.effect.value,
            action="",
            topic=out.topic,
            matched=False,
            note=f"left out: {out.detail}",
        )
        for out in subject.grant.left_out
    )
    if subject.refusal is not None:
        return Explanation(
            allowed=False, reason=subject.refusal.reason, rule=None, basis=subject.basis, trace=tuple(trace)
        )
    decision = subject.grant.decide(
        question.action,
        question.topic,
        qos=question.qos,
        retain=question.retain,
        deliveries_checked=subject.deliveries_checked,
    )
    return Explanation(
        allowed=decision.allowed, reason=decision.reason, rule=decision.rule, basis=subject.basis, trace=tuple(trace)
    )


def _step(grant: Grant, rule: CompiledRule, question: _Question) -> Step:
    """Return what one rule alone says: the same decision, with every other rule left away."""
    asked = RuleAction.PUBLISH if question.action is Action.PUBLISH else RuleAction.SUBSCRIBE
    alone = replace(grant, rules=(rule,)).decide(
        question.action, question.topic, qos=question.qos, retain=question.retain
    )
    note = ""
    if rule.action is not asked:
        note = f"speaks of {rule.action.value}"
    elif alone.reason is Reason.FILTER_TOO_WIDE:
        note = "the asked filter reaches further than this rule"
    elif alone.reason is Reason.QOS_TOO_HIGH:
        note = f"allows QoS {rule.qos_max} at most"
    elif alone.reason is Reason.RETAIN_DENIED:
        note = f"speaks only of publishes with retain {'set' if rule.retain else 'not set'}"
    elif (
        question.action is Action.SUBSCRIBE
        and rule.effect is Effect.DENY
        and alone.reason is Reason.NO_RULE_MATCHES
        and not rule.filter.sets
        and overlaps(rule.filter.text, _inner(question.topic))
    ):
        note = "takes some deliveries out of the subscription"
    return Step(
        rule=rule.id,
        effect=rule.effect.value,
        action=rule.action.value,
        topic=rule.filter.text,
        matched=alone.reason in (Reason.RULE_ALLOWS, Reason.RULE_DENIES),
        note=note,
    )


def _by_client_id(service: Service, tenant: str, client_id: str) -> _Subject:
    found = service.sessions.find(tenant, client_id=client_id)
    principals = sorted({session.principal for session in found})
    if len(principals) > 1:
        names = " and ".join(f"`{principal}`" for principal in principals)
        raise Conflict("client_id_ambiguous", f"client id `{client_id}` is used by {names}; ask by thing or token")
    if found:
        return _live(found[0])
    lately = service.refusals.last(tenant, client_id=client_id, limit=20)
    for record in lately:
        if record.action == "connect":
            basis = f"no live session; the CONNECT of client id `{client_id}` was refused lately"
            return _Subject(basis=basis, grant=None, refusal=Refusal(reason=record.reason, detail=record.detail))
    raise NotFound("live session with client id", client_id)


async def _by_thing(service: Service, tenant: str, key: str) -> _Subject:
    found = service.sessions.find(tenant, thing=key)
    if found:
        return _live(max(found, key=lambda session: session.since_us))
    thing = await service.facts.thing(tenant, key)
    if thing is None:
        raise NotFound("thing", key)
    token = await service.facts.token(tenant, thing.token_id) if thing.token_id else None
    if token is None:
        token = Token(id="", tenant=tenant, kind=TokenKind.DEVICE, name="", thing=key)
        return await _granted(service, token, thing, f"no live session: definition `{thing.definition}` alone")
    return await _granted(service, token, thing, f"no live session: token `{token.id}`, which registered it")


async def _by_token(service: Service, tenant: str, token_id: str, key: str | None) -> _Subject:
    token = await service.facts.token(tenant, token_id)
    if token is None:
        raise NotFound("token", token_id)
    if token.kind is TokenKind.GROUND:
        return await _granted(service, token, None, f"ground token `{token_id}`")
    if token.kind is TokenKind.DEVICE and key is None:
        key = token.thing
    thing = await service.facts.thing(tenant, key) if key is not None else None
    if key is not None and thing is None:
        raise NotFound("thing", key)
    if thing is not None:
        return await _granted(service, token, thing, f"thing `{key}` by token `{token_id}`")
    definition = await service.facts.definition(tenant, token.definition) if token.definition else None
    ground = await service.facts.ground(tenant, things.registration_ground(token))
    plan = things.plan_registration(token, ANY_THING, definition=definition, ground=ground, now_us=service.now_us())
    basis = f"app token `{token_id}` for a thing that it would register, called `{ANY_THING}`; name `thing` for another"
    if isinstance(plan, Refusal):
        return _Subject(basis=basis, grant=None, refusal=plan)
    return await _granted(service, token, plan.thing, basis)


async def _granted(service: Service, token: Token, thing: Thing | None, basis: str) -> _Subject:
    refusal = await _refusal(service, token, thing)
    facts = await service.granting.basis(token, None, thing)
    if isinstance(facts, Refusal):
        return _Subject(basis=basis, grant=None, refusal=refusal or facts)
    client_id = (thing.client_id if thing is not None else None) or "any-client"
    return _Subject(basis=basis, grant=service.granting.grant(facts, client_id, share=False).grant, refusal=refusal)


async def _refusal(service: Service, token: Token, thing: Thing | None) -> Refusal | None:
    """Return why this token would not be admitted now, whoever shows its secret."""
    if token.revoked_at_us is not None:
        return Refusal(reason=Reason.TOKEN_REVOKED, detail=f"token `{token.id}` was revoked")
    if token.expires_at_us is not None and token.expires_at_us <= service.now_us():
        return Refusal(reason=Reason.TOKEN_EXPIRED, detail=f"token `{token.id}` has expired")
    tenant = await service.facts.tenant(token.tenant)
    if tenant is None or tenant.state is not TenantState.ACTIVE:
        return Refusal(reason=Reason.TENANT_SUSPENDED, detail=f"tenant `{token.tenant}` is not active")
    if thing is None or thing.key == ANY_THING:
        return None
    if thing.state is ThingState.BLOCKED:
        return Refusal(reason=Reason.THING_BLOCKED, detail=f"thing `{thing.key}` is blocked")
    return things.admits(token, thing) if token.id else None


def _live(session: Session) -> _Subject:
    return _Subject(
        basis=f"live session `{session.id}` of `{session.principal}` by token `{session.token_id}`",
        grant=session.grant,
        deliveries_checked=session.deliveries_checked,
    )


def _said(refusal: Refusal) -> str:
    return f"refused as {refusal.reason.value}: {refusal.detail}" if refusal.detail else refusal.reason.value


def _inner(filter_: str) -> str:
    shared = shared_filter(filter_)
    return filter_ if shared is None else shared.inner
