"""Device tokens: each speaks for one thing."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from authsvc.core.facts import Token, TokenKind
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

router = resource("device tokens")


class DeviceTokenNew(Body):
    name: Text = Field(examples=["flashed at the factory"])
    expires_at: Time | None = None


class DeviceTokenAnswer(Answer):
    id: str
    name: str
    prefix: str
    thing: str
    expires_at: Instant | None
    revoked_at: Instant | None
    created_at: Instant

    @classmethod
    def fields(cls, token: Token) -> dict[str, Any]:
        return {
            "id": token.id,
            "name": token.name,
            "prefix": token.prefix,
            "thing": token.thing,
            "expires_at": token.expires_at_us,
            "revoked_at": token.revoked_at_us,
            "created_at": token.created_at_us,
        }

    @classmethod
    def of(cls, token: Token) -> DeviceTokenAnswer:
        return cls(**cls.fields(token))


class DeviceTokenCreated(DeviceTokenAnswer):
    token: str = Field(repr=False, description="the secret; shown here and never again")


@router.post("/tenants/{tenant}/things/{key}/tokens", status_code=201, **access(OPERATE))
async def create_device_token(
    call: Current, tenant: KeyInPath, key: KeyInPath, body: DeviceTokenNew
) -> DeviceTokenCreated:
    """Make a device token; the answer shows its secret, once."""
    check_expiry(call, body.expires_at)
    secret, digest, prefix = call.mint(TokenKind.DEVICE)
    written = await call.store.device_tokens.create(
        tenant, key, name=body.name, digest=digest, prefix=prefix, expires_at_us=body.expires_at
    )
    return DeviceTokenCreated(**DeviceTokenAnswer.fields(await call.settled(written)), token=secret)


@router.get("/tenants/{tenant}/things/{key}/tokens", **access(VIEW))
async def list_device_tokens(
    call: Current,
    *,
    tenant: KeyInPath,
    key: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    q: Search = None,
    revoked: Revoked = False,
) -> Items[DeviceTokenAnswer]:
    """List the device tokens of a thing in order of their ids."""
    return await page_of(
        call,
        call.store.device_tokens.list,
        tenant,
        key,
        make=DeviceTokenAnswer.of,
        limit=limit,
        cursor=cursor,
        q=q,
        revoked=revoked,
    )


@router.delete("/tenants/{tenant}/things/{key}/tokens/{id}", status_code=204, **access(OPERATE))
async def revoke_device_token(call: Current, tenant: KeyInPath, key: KeyInPath, id: IdInPath) -> None:
    """Revoke a device token: the sessions that rest on it have ended when this answers."""
    await call.settled(await call.store.device_tokens.delete(tenant, key, id))
