"""Tenants: made, suspended and deleted by an owner key bound to no tenant; a tenant's own keys see only their own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import AdminRole, Tenant, TenantState
from authsvc.store import Page
from authsvc.web.auth import OWN, VIEW, Access, Reach
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
    or_default,
)
from authsvc.web.problems import forbidden
from authsvc.web.routes import Current, access, resource

router = resource("tenants")


class TenantNew(Body):
    key: Key = Field(examples=["acme"])
    name: Text | None = None


class TenantPatch(Body):
    name: Text | None = None
    state: Literal["active", "suspended"] | None = Field(default=None, description="null: `active`")


class TenantAnswer(Answer):
    key: str
    name: str
    state: Literal["active", "suspended"]
    created_at: Instant

    @classmethod
    def of(cls, tenant: Tenant) -> TenantAnswer:
        return cls(key=tenant.key, name=tenant.name, state=tenant.state.value, created_at=tenant.created_at_us)


@router.post("/tenants", status_code=201, **access(Access(role=AdminRole.OWNER, reach=Reach.PLATFORM)))
async def create_tenant(call: Current, body: TenantNew) -> TenantAnswer:
    """Make a tenant with its ground `default` and the definitions `thing`, `gateway` and `module`."""
    if body.key == "me":
        raise InvalidInput("key_reserved", "the tenant key `me` is reserved", field="key")
    return TenantAnswer.of(await call.settled(await call.store.tenants.create(body.key, name=body.name or "")))


@router.get("/tenants", **access(Access(role=AdminRole.VIEWER, reach=Reach.ANY)))
async def list_tenants(
    call: Current, *, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[TenantAnswer]:
    """List the tenants that the key can see: all, or the one that it is bound to."""
    own = call.caller.tenant

    async def only_own(*, limit: int, cursor: str | None, q: str | None) -> Page[Tenant]:  # noqa: ARG001
        assert own is not None
        tenant = await call.store.tenants.get(own)
        found = cursor is None and (q is None or q.casefold() in f"{tenant.key}\0{tenant.name}".casefold())
        return Page(items=(tenant,) if found else ())

    fetch = call.store.tenants.list if own is None else only_own
    return await page_of(call, fetch, make=TenantAnswer.of, limit=limit, cursor=cursor, q=q)


@router.get("/tenants/{tenant}", **access(VIEW))
async def read_tenant(call: Current, tenant: KeyInPath) -> TenantAnswer:
    """Read one tenant."""
    return TenantAnswer.of(await call.store.tenants.get(tenant))


@router.patch("/tenants/{tenant}", **access(OWN))
async def change_tenant(call: Current, tenant: KeyInPath, body: TenantPatch) -> TenantAnswer:
    """Rename a tenant; with a key bound to no tenant also suspend it, which ends its sessions, or make it active."""
    changes: dict[str, Any] = {}
    if body.given("name"):
        changes["name"] = body.name or tenant
    if body.given("state"):
        if not call.caller.platform_owner:  # a suspended tenant must not lift its own suspension
            raise forbidden("a tenant's state takes an owner key that is bound to no tenant")
        changes["state"] = TenantState(or_default(body.state, "active"))
    return TenantAnswer.of(await call.settled(await call.store.tenants.update(tenant, **changes)))


@router.delete("/tenants/{tenant}", status_code=204, **access(OWN))
async def delete_tenant(call: Current, tenant: KeyInPath, cascade: Cascade = False) -> None:
    """Delete a tenant; with `cascade` everything in it goes too. Takes an owner key bound to no tenant."""
    if not call.caller.platform_owner:
        raise forbidden("deleting a tenant takes an owner key that is bound to no tenant")
    await call.settled(await call.store.tenants.delete(tenant, cascade=cascade))
