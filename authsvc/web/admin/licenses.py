"""Licences: seat pools; every auto-registered thing takes a seat."""

from __future__ import annotations

from pydantic import Field

from authsvc.core.facts import License
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.listing import page_of
from authsvc.web.models import (
    DEFAULT_PAGE,
    Answer,
    Body,
    Cascade,
    Count,
    Cursor,
    Instant,
    Items,
    Key,
    KeyInPath,
    Limit,
    Search,
)
from authsvc.web.routes import Current, access, resource

router = resource("licenses")


class LicenseNew(Body):
    key: Key = Field(examples=["fleet-2030"])
    seats: Count


class LicensePatch(Body):
    seats: Count = Field(default=0, description="may go below `used`: then nobody new is admitted")


class LicenseAnswer(Answer):
    key: str
    seats: int
    used: int
    created_at: Instant

    @classmethod
    def of(cls, license_: License) -> LicenseAnswer:
        return cls(key=license_.key, seats=license_.seats, used=license_.used, created_at=license_.created_at_us)


@router.post("/tenants/{tenant}/licenses", status_code=201, **access(OPERATE))
async def create_license(call: Current, tenant: KeyInPath, body: LicenseNew) -> LicenseAnswer:
    """Make a licence."""
    return LicenseAnswer.of(await call.settled(await call.store.licenses.create(tenant, body.key, seats=body.seats)))


@router.get("/tenants/{tenant}/licenses", **access(VIEW))
async def list_licenses(
    call: Current, *, tenant: KeyInPath, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None, q: Search = None
) -> Items[LicenseAnswer]:
    """List the licences in key order."""
    return await page_of(call, call.store.licenses.list, tenant, make=LicenseAnswer.of, limit=limit, cursor=cursor, q=q)


@router.get("/tenants/{tenant}/licenses/{key}", **access(VIEW))
async def read_license(call: Current, tenant: KeyInPath, key: KeyInPath) -> LicenseAnswer:
    """Read one licence with the seats in use."""
    return LicenseAnswer.of(await call.store.licenses.get(tenant, key))


@router.patch("/tenants/{tenant}/licenses/{key}", **access(OPERATE))
async def change_license(call: Current, tenant: KeyInPath, key: KeyInPath, body: LicensePatch) -> LicenseAnswer:
    """Change the number of seats."""
    changes = {"seats": body.seats} if body.given("seats") else {}
    return LicenseAnswer.of(await call.settled(await call.store.licenses.update(tenant, key, **changes)))


@router.delete("/tenants/{tenant}/licenses/{key}", status_code=204, **access(OPERATE))
async def delete_license(call: Current, tenant: KeyInPath, key: KeyInPath, cascade: Cascade = False) -> None:
    """Delete a licence; with `cascade` the tokens that name it are revoked, and its things stay without a seat."""
    await call.settled(await call.store.licenses.delete(tenant, key, cascade=cascade))
