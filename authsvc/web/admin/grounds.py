"""Grounds: named groups of the things of a tenant."""

from __future__ import annotations

from pydantic import Field

from authsvc.core.facts import Ground
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    Answer,
    Body,
    Cascade,
    Cursor,
    Instant,
    Items,
    Key,
    KeyInPath,
    Limit,
    Search,
    Text,
)
from authsvc.web.routes import Current, access, resource

router = resource("grounds")


class GroundNew(Body):
    key: Key = Field(examples=["hall-3"])
    name: Text | None = None


class GroundPatch(Body):
    name: Text | None = Field(default=None, description="null: the key")


class GroundAnswer(Answer):
    key: str
    name: str
    created_at: Instant

    @classmethod
    def of(cls, ground: Ground) -> GroundAnswer:
        return cls(key=ground.key, name=ground.name, created_at=ground.created_at_us)


@router.post("/tenants/{tenant}/grounds", status_code=201, **access(OPERATE))
async def create_ground(call: Current, tenant: KeyInPath, body: GroundNew) -> GroundAnswer:
    """Make a ground."""
    return GroundAnswer.of(await call.settled(await call.store.grounds.create(tenant, body.key, name=body.name or "")))


@router.get("/tenants/{tenant}/grounds", **access(VIEW))
async def list_grounds(
    call: Current, *, tenant: KeyInPath, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[GroundAnswer]:
    """List the grounds in key order."""
    return await page_of(call, call.store.grounds.list, tenant, make=GroundAnswer.of, limit=limit, cursor=cursor, q=q)


@router.get("/tenants/{tenant}/grounds/{key}", **access(VIEW))
async def read_ground(call: Current, tenant: KeyInPath, key: KeyInPath) -> GroundAnswer:
    """Read one ground."""
    return GroundAnswer.of(await call.store.grounds.get(tenant, key))


@router.patch("/tenants/{tenant}/grounds/{key}", **access(OPERATE))
async def change_ground(call: Current, tenant: KeyInPath, key: KeyInPath, body: GroundPatch) -> GroundAnswer:
    """Rename a ground; its key, a topic level, never changes."""
    changes = {"name": body.name or key} if body.given("name") else {}
    return GroundAnswer.of(await call.settled(await call.store.grounds.update(tenant, key, **changes)))


@router.delete("/tenants/{tenant}/grounds/{key}", status_code=204, **access(OPERATE))
async def delete_ground(call: Current, tenant: KeyInPath, key: KeyInPath, cascade: Cascade = False) -> None:
    """Delete a ground; `default` stays. With `cascade` its things and tokens go too."""
    await call.settled(await call.store.grounds.delete(tenant, key, cascade=cascade))
