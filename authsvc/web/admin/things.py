"""Things: registered devices, gateways and modules."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from authsvc.core.errors import NotFound
from authsvc.core.facts import Thing, ThingState
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    TEXT_PATTERN,
    Answer,
    Body,
    Cascade,
    Cursor,
    Instant,
    Items,
    Key,
    KeyFilter,
    KeyInPath,
    Limit,
    Search,
    Tags,
    Text,
)
from authsvc.web.routes import Current, access, resource

router = resource("things")

StateName = Literal["active", "blocked"]


class ThingNew(Body):
    key: Key = Field(examples=["gw-0042"])
    name: Text | None = None
    thing_definition: Key = "thing"
    ground: Key = "default"
    tags: Tags = []
    security_tags: Tags = []


class ThingPatch(Body):
    name: Text | None = Field(default=None, description="null: the key")
    thing_definition: Key | None = Field(default=None, description="null: `thing`")
    ground: Key | None = Field(default=None, description="null: `default`; moves the thing")
    tags: Tags | None = None
    security_tags: Tags | None = None
    state: StateName | None = Field(default=None, description="null: `active`; `blocked` ends its sessions")


class ThingAnswer(Answer):
    key: str
    name: str
    thing_definition: str
    ground: str
    tags: list[str]
    security_tags: list[str]
    state: StateName
    topic_prefix: str = Field(description="where its topics begin: `{tenant}/{ground}/{thing}`")
    gateway: str | None = Field(description="the gateway that this module is bound to")
    client_id: str | None = Field(description="the client id that is bound to it")
    token_id: str | None = Field(description="the app token that registered it; null: an operator did")
    license: str | None
    first_seen: Instant | None
    last_seen: Instant | None
    created_at: Instant

    @classmethod
    def of(cls, thing: Thing) -> ThingAnswer:
        return cls(
            key=thing.key,
            name=thing.name,
            thing_definition=thing.definition,
            ground=thing.ground,
            tags=list(thing.tags),
            security_tags=list(thing.security_tags),
            state=thing.state.value,
            topic_prefix=f"{thing.tenant}/{thing.ground}/{thing.key}",
            gateway=thing.gateway or None,
            client_id=thing.client_id,
            token_id=thing.token_id or None,
            license=thing.license or None,
            first_seen=thing.first_seen_us,
            last_seen=thing.last_seen_us,
            created_at=thing.created_at_us,
        )


TagFilter = Annotated[str | None, Query(min_length=1, max_length=64, pattern=TEXT_PATTERN)]
StateFilter = Annotated[StateName | None, Query()]
Forget = Annotated[bool, Query(description="also forget that the key is retired: it may register again")]


@router.post("/tenants/{tenant}/things", status_code=201, **access(OPERATE))
async def create_thing(call: Current, tenant: KeyInPath, body: ThingNew) -> ThingAnswer:
    """Make a thing, or revive one whose key is retired."""
    written = await call.store.things.create(
        tenant,
        body.key,
        name=body.name or "",
        definition=body.thing_definition,
        ground=body.ground,
        tags=tuple(body.tags),
        security_tags=tuple(body.security_tags),
    )
    return ThingAnswer.of(await call.settled(written))


@router.get("/tenants/{tenant}/things", **access(VIEW))
async def list_things(
    call: Current,
    *,
    tenant: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    q: Search = None,
    ground: KeyFilter = None,
    definition: KeyFilter = None,
    tag: TagFilter = None,
    state: StateFilter = None,
) -> Items[ThingAnswer]:
    """List the things in key order; filters are all to hold."""
    return await page_of(
        call,
        call.store.things.list,
        tenant,
        make=ThingAnswer.of,
        limit=limit,
        cursor=cursor,
        q=q,
        ground=ground,
        definition=definition,
        tag=tag,
        state=ThingState(state) if state else None,
    )


@router.get("/tenants/{tenant}/things/{key}", **access(VIEW))
async def read_thing(call: Current, tenant: KeyInPath, key: KeyInPath) -> ThingAnswer:
    """Read one thing."""
    return ThingAnswer.of(await call.store.things.get(tenant, key))


@router.patch("/tenants/{tenant}/things/{key}", **access(OPERATE))
async def change_thing(call: Current, tenant: KeyInPath, key: KeyInPath, body: ThingPatch) -> ThingAnswer:
    """Change, move, block or unblock a thing; its live session has followed, or ended, when this answers."""
    changes: dict[str, Any] = {}
    if body.given("name"):
        changes["name"] = body.name or key
    if body.given("thing_definition"):
        changes["definition"] = body.thing_definition or "thing"
    if body.given("ground"):
        changes["ground"] = body.ground or "default"
    for field in ("tags", "security_tags"):
        if body.given(field):
            changes[field] = tuple(getattr(body, field) or ())
    if body.given("state"):
        changes["state"] = ThingState(body.state or "active")
    return ThingAnswer.of(await call.settled(await call.store.things.update(tenant, key, **changes)))


@router.delete("/tenants/{tenant}/things/{key}", status_code=204, **access(OPERATE))
async def delete_thing(
    call: Current, tenant: KeyInPath, key: KeyInPath, cascade: Cascade = False, forget: Forget = False
) -> None:
    """Delete a thing and retire its key; with `forget` the key is free again, also when it was retired before."""
    if not forget:
        await call.settled(await call.store.things.delete(tenant, key, cascade=cascade))
        return
    with suppress(NotFound):  # retired already, or never there: forget tells
        await call.settled(await call.store.things.delete(tenant, key, cascade=cascade))
    await call.settled(await call.store.things.forget(tenant, key))


@router.delete("/tenants/{tenant}/things/{key}/client-id", status_code=204, **access(OPERATE))
async def reset_client_id(call: Current, tenant: KeyInPath, key: KeyInPath) -> None:
    """Reset the client-id binding: the session ends, and the next client id is bound."""
    await call.settled(await call.store.things.reset_client_id(tenant, key))
