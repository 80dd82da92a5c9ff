"""Ground tokens: each speaks for every thing of one ground."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from authsvc.core.facts import GroundAccess, Token, TokenKind
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.expiry import check_expiry
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    Answer,
    Body,
    Cursor,
    IdInPath,
    Instant,
    Items,
    KeyInPath,
    Limit,
    Revoked,
    Search,
    Text,
    Time,
)
from authsvc.web.routes import Current, access, resource

router = resource("ground tokens")

AccessName = Literal["read", "write", "read_write"]


class GroundTokenNew(Body):
    name: Text = Field(examples=["dashboard"])
    access: AccessName
    expires_at: Time | None = None


class GroundTokenAnswer(Answer):
    id: str
    name: str
    prefix: str
    ground: str
    access: AccessName
    expires_at: Instant | None
    revoked_at: Instant | None
    created_at: Instant

    @classmethod
    def fields(cls, token: Token) -> dict[str, Any]:
        return {
            "id": token.id,
            "name": token.name,
            "prefix": token.prefix,
            "ground": token.ground,
            "access": token.access.value,
            "expires_at": token.expires_at_us,
            "revoked_at": token.revoked_at_us,
            "created_at": token.created_at_us,
        }

    @classmethod
    def of(cls, token: Token) -> GroundTokenAnswer:
        return cls(**cls.fields(token))


class GroundTokenCreated(GroundTokenAnswer):
    token: str = Field(repr=False, description="the secret; shown here and never again")


@router.post("/tenants/{tenant}/grounds/{key}/tokens", status_code=201, **access(OPERATE))
async def create_ground_token(
    call: Current, tenant: KeyInPath, key: KeyInPath, body: GroundTokenNew
) -> GroundTokenCreated:
    """Make a ground token; the answer shows its secret, once."""
    check_expiry(call, body.expires_at)
    secret, digest, prefix = call.mint(TokenKind.GROUND)
    written = await call.store.ground_tokens.create(
        tenant,
        key,
        name=body.name,
        access=GroundAccess(body.access),
        digest=digest,
        prefix=prefix,
        expires_at_us=body.expires_at,
    )
    return GroundTokenCreated(**GroundTokenAnswer.fields(await call.settled(written)), token=secret)


@router.get("/tenants/{tenant}/grounds/{key}/tokens", **access(VIEW))
async def list_ground_tokens(
    call: Current,
    *,
    tenant: KeyInPath,
    key: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    q: Search = None,
    revoked: Revoked = False,
) -> Items[GroundTokenAnswer]:
    """List the tokens of a ground in order of their ids."""
    return await page_of(
        call,
        call.store.ground_tokens.list,
        tenant,
        key,
        make=GroundTokenAnswer.of,
        limit=limit,
        cursor=cursor,
        q=q,
        revoked=revoked,
    )


@router.delete("/tenants/{tenant}/grounds/{key}/tokens/{id}", status_code=204, **access(OPERATE))
async def revoke_ground_token(call: Current, tenant: KeyInPath, key: KeyInPath, id: IdInPath) -> None:
    """Revoke a ground token: the sessions that rest on it have ended when this answers."""
    await call.settled(await call.store.ground_tokens.delete(tenant, key, id))
