"""App tokens: one secret for many devices, which become things on their first connection."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from authsvc.core.facts import PLATFORM_PREFIX, Token, TokenKind
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.expiry import check_expiry
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    MAX_OVERLAP_S,
    Answer,
    Body,
    Count,
    Cursor,
    IdInPath,
    Instant,
    Items,
    Key,
    KeyInPath,
    Limit,
    Revoked,
    Roles,
    Search,
    Tags,
    Text,
    Time,
)
from authsvc.web.problems import forbidden
from authsvc.web.routes import Call, Current, access, resource

router = resource("app tokens")


class AppTokenNew(Body):
    name: Text = Field(examples=["gateways of hall 3"])
    thing_definition: Key | None = Field(default=None, description="none: only things that exist may connect")
    ground: Key | None = Field(default=None, description="none: registers into `default`, admits every thing")
    roles: Roles = []
    tags: Tags = []
    security_tags: Tags = []
    license: Key | None = None
    auto_register: bool | None = Field(default=None, description="left out: true if a thing definition is named")
    max_things: Count | None = None
    expires_at: Time | None = None


class AppTokenPatch(Body):
    name: Text = Field(default="", description="cannot be null")
    thing_definition: Key | None = None
    ground: Key | None = None
    roles: Roles | None = None
    tags: Tags | None = None
    security_tags: Tags | None = None
    license: Key | None = None
    auto_register: bool | None = None
    max_things: Count | None = None
    expires_at: Time | None = None


class AppTokenAnswer(Answer):
    id: str
    name: str
    prefix: str = Field(description="first characters of the secret, as logs and refusals show it")
    thing_definition: str | None
    ground: str | None
    roles: list[str]
    tags: list[str]
    security_tags: list[str]
    license: str | None
    auto_register: bool
    max_things: int | None
    registered: int = Field(description="how many things it has registered that exist")
    expires_at: Instant | None
    revoked_at: Instant | None
    created_at: Instant

    @classmethod
    def fields(cls, token: Token) -> dict[str, Any]:
        return {
            "id": token.id,
            "name": token.name,
            "prefix": token.prefix,
            "thing_definition": token.definition or None,
            "ground": token.ground or None,
            "roles": list(token.roles),
            "tags": list(token.tags),
            "security_tags": list(token.security_tags),
            "license": token.license or None,
            "auto_register": token.auto_register,
            "max_things": token.max_things,
            "registered": token.registered,
            "expires_at": token.expires_at_us,
            "revoked_at": token.revoked_at_us,
            "created_at": token.created_at_us,
        }

    @classmethod
    def of(cls, token: Token) -> AppTokenAnswer:
        return cls(**cls.fields(token))


class AppTokenCreated(AppTokenAnswer):
    token: str = Field(repr=False, description="the secret; shown here and never again")


class Regenerate(Body):
    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S)] = Field(
        default=0, description="how long the old secret still works"
    )


class RegeneratedAnswer(Answer):
    id: str
    token: str = Field(repr=False, description="the new secret; shown here and never again")


@router.post("/tenants/{tenant}/app-tokens", status_code=201, **access(OPERATE))
async def create_app_token(call: Current, tenant: KeyInPath, body: AppTokenNew) -> AppTokenCreated:
    """Make an app token; the answer shows its secret, once."""
    _check_platform_roles(call, added=frozenset(body.roles))
    check_expiry(call, body.expires_at)
    secret, digest, prefix = call.mint(TokenKind.APP)
    written = await call.store.app_tokens.create(
        tenant,
        name=body.name,
        digest=digest,
        prefix=prefix,
        definition=body.thing_definition or "",
        ground=body.ground or "",
        roles=tuple(body.roles),
        tags=tuple(body.tags),
        security_tags=tuple(body.security_tags),
        license=body.license or "",
        auto_register=body.auto_register,
        max_things=body.max_things,
        expires_at_us=body.expires_at,
    )
    return AppTokenCreated(**AppTokenAnswer.fields(await call.settled(written)), token=secret)


@router.get("/tenants/{tenant}/app-tokens", **access(VIEW))
async def list_app_tokens(
    call: Current,
    *,
    tenant: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    q: Search = None,
    revoked: Revoked = False,
) -> Items[AppTokenAnswer]:
    """List the app tokens in order of their ids."""
    return await page_of(
        call,
        call.store.app_tokens.list,
        tenant,
        make=AppTokenAnswer.of,
        limit=limit,
        cursor=cursor,
        q=q,
        revoked=revoked,
    )


@router.get("/tenants/{tenant}/app-tokens/{id}", **access(VIEW))
async def read_app_token(call: Current, tenant: KeyInPath, id: IdInPath) -> AppTokenAnswer:
    """Read one app token, without its secret."""
    return AppTokenAnswer.of(await call.store.app_tokens.get(tenant, id))


@router.patch("/tenants/{tenant}/app-tokens/{id}", **access(OPERATE))
async def change_app_token(call: Current, tenant: KeyInPath, id: IdInPath, body: AppTokenPatch) -> AppTokenAnswer:
    """Change an app token; live grants follow before this answers. Things that it registered keep what they have."""
    async with call.context.privileges:  # a platform role that is being taken off must not come back by a race
        held = await call.store.app_tokens.get(tenant, id)
        roles = frozenset((body.roles or ()) if body.given("roles") else held.roles)
        prolonged = body.given("expires_at") and _is_later(body.expires_at, held.expires_at_us)
        _check_platform_roles(call, added=roles if prolonged else roles - frozenset(held.roles))
        written = await call.store.app_tokens.update(tenant, id, **await _changes(call, tenant, id, body))
    return AppTokenAnswer.of(await call.settled(written))


@router.delete("/tenants/{tenant}/app-tokens/{id}", status_code=204, **access(OPERATE))
async def revoke_app_token(call: Current, tenant: KeyInPath, id: IdInPath) -> None:
    """Revoke an app token: the sessions that rest on it have ended when this answers."""
    await call.settled(await call.store.app_tokens.delete(tenant, id))


@router.post("/tenants/{tenant}/app-tokens/{id}/regenerate", **access(OPERATE))
async def regenerate_app_token(call: Current, tenant: KeyInPath, id: IdInPath, body: Regenerate) -> RegeneratedAnswer:
    """Give an app token a new secret; the old one ends now, or after the overlap."""
    secret, digest, prefix = call.mint(TokenKind.APP)
    async with call.context.privileges:
        held = (await call.store.app_tokens.get(tenant, id)).roles
        _check_platform_roles(call, added=frozenset(held))  # whoever gets the secret gets the roles
        written = await call.store.app_tokens.regenerate(
            tenant, id, digest=digest, prefix=prefix, overlap_us=body.overlap_s * 1_000_000
        )
    token: Token = await call.settled(written)
    return RegeneratedAnswer(id=token.id, token=secret)


_TEXT_COLUMNS = {"name": "name", "thing_definition": "definition", "ground": "ground", "license": "license"}


def _check_platform_roles(call: Call, *, added: frozenset[str]) -> None:
    """Keep platform roles in the hands of the platform's owners; asked before whether such a role exists."""
    if any(role.startswith(PLATFORM_PREFIX) for role in added) and not call.caller.platform_owner:
        raise forbidden("`platform/…` roles take an owner key that is bound to no tenant")


def _is_later(at_us: int | None, than_us: int | None) -> bool:
    """Tell whether the first expiry comes after the second; None is never."""
    return than_us is not None and (at_us is None or at_us > than_us)


async def _changes(call: Call, tenant: str, id: str, body: AppTokenPatch) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for field, column in _TEXT_COLUMNS.items():
        if body.given(field):
            changes[column] = getattr(body, field) or ""
    for field in ("roles", "tags", "security_tags"):
        if body.given(field):
            changes[field] = tuple(getattr(body, field) or ())
    if body.given("auto_register"):
        changes["auto_register"] = await _auto_register(call, tenant, id, body)
    if body.given("max_things"):
        changes["max_things"] = body.max_things
    if body.given("expires_at"):
        changes["expires_at_us"] = body.expires_at
    return changes


async def _auto_register(call: Call, tenant: str, id: str, body: AppTokenPatch) -> bool:
    """Return what PATCH makes of the flag; null is the default, which depends on the definition."""
    if body.auto_register is not None:
        return body.auto_register
    if body.given("thing_definition"):
        return body.thing_definition is not None
    return bool((await call.store.app_tokens.get(tenant, id)).definition)
