"""Roles: named rules that app tokens carry. Platform roles may leave a tenant's wall; only the platform writes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from authsvc.core.facts import AdminRole, Role
from authsvc.web.auth import OPERATE, VIEW, Access, Reach
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    MAX_TAGS,
    Answer,
    Body,
    Cascade,
    Cursor,
    Instant,
    Items,
    Key,
    KeyInPath,
    Limit,
    RuleBody,
    Rules,
    Search,
    Tag,
    Text,
    rules_of,
)
from authsvc.web.routes import Call, Current, access, resource

router = resource("roles")

PLATFORM = ""  # the tenant of platform roles in the store
PLATFORM_VIEW = Access(role=AdminRole.VIEWER, reach=Reach.PLATFORM)
PLATFORM_OWN = Access(role=AdminRole.OWNER, reach=Reach.PLATFORM)

Permissions = Annotated[list[Tag], Field(max_length=MAX_TAGS)]


class RoleNew(Body):
    key: Key = Field(examples=["monitor"])
    name: Text | None = None
    rules: Rules = []
    permissions: Permissions = []


class RolePatch(Body):
    name: Text | None = Field(default=None, description="null: the key")
    rules: Rules | None = Field(default=None, description="null: none")
    permissions: Permissions | None = Field(default=None, description="null: none")


class RoleAnswer(Answer):
    key: str
    name: str
    rules: list[RuleBody]
    permissions: list[str]
    created_at: Instant

    @classmethod
    def of(cls, role: Role) -> RoleAnswer:
        return cls(
            key=role.key,
            name=role.name,
            rules=rules_of(role.rules),
            permissions=list(role.permissions),
            created_at=role.created_at_us,
        )


async def _create(call: Call, tenant: str, body: RoleNew) -> RoleAnswer:
    written = await call.store.roles.create(
        tenant,
        body.key,
        name=body.name or "",
        rules=tuple(rule.rule() for rule in body.rules),
        permissions=tuple(body.permissions),
    )
    return RoleAnswer.of(await call.settled(written))


async def _change(call: Call, tenant: str, key: str, body: RolePatch) -> RoleAnswer:
    changes: dict[str, Any] = {}
    if body.given("name"):
        changes["name"] = body.name or key
    if body.given("rules"):
        changes["rules"] = tuple(rule.rule() for rule in body.rules or ())
    if body.given("permissions"):
        changes["permissions"] = tuple(body.permissions or ())
    return RoleAnswer.of(await call.settled(await call.store.roles.update(tenant, key, **changes)))


@router.post("/tenants/{tenant}/roles", status_code=201, **access(OPERATE))
async def create_role(call: Current, tenant: KeyInPath, body: RoleNew) -> RoleAnswer:
    """Make a role; its rules stay inside the tenant's wall."""
    return await _create(call, tenant, body)


@router.get("/tenants/{tenant}/roles", **access(VIEW))
async def list_roles(
    call: Current, *, tenant: KeyInPath, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[RoleAnswer]:
    """List the roles in key order."""
    return await page_of(call, call.store.roles.list, tenant, make=RoleAnswer.of, limit=limit, cursor=cursor, q=q)


@router.get("/tenants/{tenant}/roles/{key}", **access(VIEW))
async def read_role(call: Current, tenant: KeyInPath, key: KeyInPath) -> RoleAnswer:
    """Read one role."""
    return RoleAnswer.of(await call.store.roles.get(tenant, key))


@router.patch("/tenants/{tenant}/roles/{key}", **access(OPERATE))
async def change_role(call: Current, tenant: KeyInPath, key: KeyInPath, body: RolePatch) -> RoleAnswer:
    """Change a role; live grants follow before this answers."""
    return await _change(call, tenant, key, body)


@router.delete("/tenants/{tenant}/roles/{key}", status_code=204, **access(OPERATE))
async def delete_role(call: Current, tenant: KeyInPath, key: KeyInPath, cascade: Cascade = False) -> None:
    """Delete a role; with `cascade` the tokens that carry it are revoked (its denies must not end first)."""
    await call.settled(await call.store.roles.delete(tenant, key, cascade=cascade))


@router.post("/roles", status_code=201, **access(PLATFORM_OWN))
async def create_platform_role(call: Current, body: RoleNew) -> RoleAnswer:
    """Make a platform role, for bridges and monitors: tokens carry it as `platform/{key}`."""
    return await _create(call, PLATFORM, body)


@router.get("/roles", **access(PLATFORM_VIEW))
async def list_platform_roles(
    call: Current, *, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[RoleAnswer]:
    """List the platform roles in key order."""
    return await page_of(call, call.store.roles.list, PLATFORM, make=RoleAnswer.of, limit=limit, cursor=cursor, q=q)


@router.get("/roles/{key}", **access(PLATFORM_VIEW))
async def read_platform_role(call: Current, key: KeyInPath) -> RoleAnswer:
    """Read one platform role."""
    return RoleAnswer.of(await call.store.roles.get(PLATFORM, key))


@router.patch("/roles/{key}", **access(PLATFORM_OWN))
async def change_platform_role(call: Current, key: KeyInPath, body: RolePatch) -> RoleAnswer:
    """Change a platform role; live grants follow before this answers."""
    return await _change(call, PLATFORM, key, body)


@router.delete("/roles/{key}", status_code=204, **access(PLATFORM_OWN))
async def delete_platform_role(call: Current, key: KeyInPath, cascade: Cascade = False) -> None:
    """Delete a platform role; with `cascade` the tokens that carry it are revoked (its denies must not end first)."""
    await call.settled(await call.store.roles.delete(PLATFORM, key, cascade=cascade))
