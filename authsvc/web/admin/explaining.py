"""Why: a decision explained rule by rule, and the refusals of late."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field, StringConstraints

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import AdminRole
from authsvc.core.policy import Action
from authsvc.explain import Explanation, explain
from authsvc.refusals import RefusalRecord
from authsvc.web.auth import VIEW, Access, Reach
from authsvc.web.models import DEFAULT_PAGE, Answer, Body, Instant, Items, Key, KeyInPath, Limit, Topic
from authsvc.web.routes import Current, access, resource

router = resource("explaining")

ActionName = Literal["publish", "subscribe", "deliver"]
ClientId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Question(Body):
    """One of `client_id`, `thing` and `token_id` says whose grant is asked."""

    client_id: ClientId | None = None
    thing: Key | None = None
    token_id: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")] | None = None
    action: ActionName
    topic: Topic = Field(examples=["default/default/gw-0042/state/temperature"])
    qos: Annotated[int, Field(ge=0, le=2)] = 0
    retain: bool = False


class StepAnswer(Answer):
    rule: str
    effect: str
    action: str
    topic: str
    matched: bool
    note: str


class ExplanationAnswer(Answer):
    allowed: bool
    reason: str
    rule: str | None
    basis: str = Field(description="whose grant was judged")
    trace: list[StepAnswer]

    @classmethod
    def of(cls, found: Explanation) -> ExplanationAnswer:
        return cls(
            allowed=found.allowed,
            reason=found.reason.value,
            rule=found.rule,
            basis=found.basis,
            trace=[
                StepAnswer(
                    rule=step.rule,
                    effect=step.effect,
                    action=step.action,
                    topic=step.topic,
                    matched=step.matched,
                    note=step.note,
                )
                for step in found.trace
            ],
        )


class RefusalAnswer(Answer):
    time: Instant
    last_time: Instant = Field(description="of the latest of the merged ones")
    peer: str
    client_id: str
    thing: str
    token_prefix: str
    action: str
    topic: str
    reason: str
    rule: str
    detail: str
    count: int

    @classmethod
    def of(cls, record: RefusalRecord) -> RefusalAnswer:
        return cls(
            time=record.at_us,
            last_time=record.last_at_us,
            peer=record.peer,
            client_id=record.client_id,
            thing=record.thing,
            token_prefix=record.token_prefix,
            action=record.action,
            topic=record.topic,
            reason=record.reason.value,
            rule=record.rule,
            detail=record.detail,
            count=record.count,
        )


@router.post("/tenants/{tenant}/explain", **access(VIEW))
async def explain_decision(call: Current, tenant: KeyInPath, body: Question) -> ExplanationAnswer:
    """Explain what a client, a thing or a token may do, and by which rule; changes nothing."""
    if sum(value is not None for value in (body.client_id, body.thing, body.token_id)) != 1:
        raise InvalidInput("subject_unclear", "name one of `client_id`, `thing` and `token_id`")
    found = await explain(
        call.service,
        tenant,
        client_id=body.client_id,
        thing=body.thing,
        token_id=body.token_id,
        action=Action(body.action),
        topic=body.topic,
        qos=body.qos,
        retain=body.retain,
    )
    return ExplanationAnswer.of(found)


ClientIdFilter = Annotated[str | None, Query(max_length=256)]
ThingFilter = Annotated[str | None, Query(max_length=256)]


@router.get("/tenants/{tenant}/refusals", **access(VIEW))
async def list_refusals(
    call: Current,
    *,
    tenant: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    client_id: ClientIdFilter = None,
    thing: ThingFilter = None,
) -> Items[RefusalAnswer]:
    """List the last refusals and denials of this process, newest first; `next` is always null."""
    found = call.service.refusals.last(tenant, client_id=client_id, thing=thing, limit=limit)
    return Items(items=[RefusalAnswer.of(record) for record in found], next=None)


@router.get("/refusals", **access(Access(role=AdminRole.VIEWER, reach=Reach.PLATFORM)))
async def list_unknown_refusals(
    call: Current, *, limit: Limit = DEFAULT_PAGE, client_id: ClientIdFilter = None, thing: ThingFilter = None
) -> Items[RefusalAnswer]:
    """List the last refusals whose tenant nobody knows (unknown tokens); `next` is always null."""
    found = call.service.refusals.last(None, client_id=client_id, thing=thing, limit=limit)
    return Items(items=[RefusalAnswer.of(record) for record in found], next=None)
