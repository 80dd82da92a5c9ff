"""Admin keys: for this API. A tenant's owner handles the keys of its own tenant, a platform owner all of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from authsvc.core.errors import Conflict, InvalidInput, NotFound
from authsvc.core.facts import AdminKey, AdminRole, TokenKind
from authsvc.web.auth import Access, Reach
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    Answer,
    Body,
    Cursor,
    IdInPath,
    Instant,
    Items,
    Key,
    Limit,
    Search,
    Text,
)
from authsvc.web.pages import MAX_LIMIT
from authsvc.web.problems import forbidden
from authsvc.web.routes import Call, Current, access, resource

router = resource("admin keys")

RoleName = Literal["owner", "operator", "viewer"]
OWNERS = Access(role=AdminRole.OWNER, reach=Reach.ANY)


class AdminKeyNew(Body):
    name: Text = Field(examples=["deployment"])
    tenant: Key | None = Field(description="null: bound to no tenant, sees all")
    role: RoleName


class AdminKeyAnswer(Answer):
    id: str
    name: str
    prefix: str
    tenant: str | None
    role: RoleName
    created_at: Instant

    @classmethod
    def fields(cls, key: AdminKey) -> dict[str, Any]:
        return {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "tenant": key.tenant,
            "role": key.role.value,
            "created_at": key.created_at_us,
        }

    @classmethod
    def of(cls, key: AdminKey) -> AdminKeyAnswer:
        return cls(**cls.fields(key))


class AdminKeyCreated(AdminKeyAnswer):
    token: str = Field(repr=False, description="the key; shown here and never again")


@router.post("/admin-keys", status_code=201, **access(OWNERS))
async def create_admin_key(call: Current, body: AdminKeyNew) -> AdminKeyCreated:
    """Make an admin key; the answer shows it, once. A tenant's owner makes keys of its own tenant only."""
    await _check_tenant(call, body.tenant)
    secret, digest, prefix = call.mint(TokenKind.ADMIN)
    written = await call.store.admin_keys.create(
        name=body.name, tenant=body.tenant, role=AdminRole(body.role), digest=digest, prefix=prefix
    )
    return AdminKeyCreated(**AdminKeyAnswer.fields(await call.settled(written)), token=secret)


@router.get("/admin-keys", **access(OWNERS))
async def list_admin_keys(
    call: Current, *, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[AdminKeyAnswer]:
    """List the admin keys that the owner may handle."""
    return await page_of(
        call,
        call.store.admin_keys.list,
        make=AdminKeyAnswer.of,
        limit=limit,
        cursor=cursor,
        q=q,
        tenant=call.caller.tenant,
    )


@router.delete("/admin-keys/{id}", status_code=204, **access(OWNERS))
async def delete_admin_key(call: Current, id: IdInPath) -> None:
    """Delete an admin key; it is refused from now on. The last owner key that is bound to no tenant stays (409)."""
    key = await call.store.admin_keys.get(id)
    if call.caller.tenant is not None and key.tenant != call.caller.tenant:
        raise NotFound("admin key", id)
    async with call.context.privileges:  # of two owners that delete each other at once one stays
        if key.tenant is None and key.role is AdminRole.OWNER and await _platform_owners(call) <= {id}:
            raise Conflict(
                "last_owner_key", "this is the last owner key that is bound to no tenant: make another first"
            )
        await call.settled(await call.store.admin_keys.delete(id))


async def _platform_owners(call: Call) -> set[str]:
    found: set[str] = set()
    cursor: str | None = None
    while True:
        page = await call.store.admin_keys.list(limit=MAX_LIMIT, cursor=cursor)
        found |= {key.id for key in page.items if key.tenant is None and key.role is AdminRole.OWNER}
        cursor = page.next
        if cursor is None:
            return found


async def _check_tenant(call: Call, tenant: str | None) -> None:
    own = call.caller.tenant
    if own is None:
        if tenant is None or await call.store.tenant(tenant) is not None:
            return
    elif tenant == own:
        return
    elif tenant is None:
        raise forbidden("a key that is bound to no tenant is made by an owner key that is bound to no tenant")
    # In a tenant's eyes another tenant does not exist: the words for a foreign one are those for none.
    raise InvalidInput("reference_unknown", f"there is no tenant `{tenant}`", field="tenant")
