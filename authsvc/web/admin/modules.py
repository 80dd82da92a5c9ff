"""Modules: things behind a gateway, which publishes and subscribes for them."""

from __future__ import annotations

from pydantic import Field

from authsvc.web.admin.things import ThingAnswer
from authsvc.web.auth import OPERATE, VIEW
from authsvc.web.listing import page_of
from authsvc.web.models import DEFAULT_PAGE, Body, Cursor, Items, Key, KeyInPath, Limit, Search, Text
from authsvc.web.routes import Current, access, resource

router = resource("modules")


class ModuleNew(Body):
    key: Key = Field(examples=["meter-7"])
    thing_definition: Key | None = Field(default=None, description="of a new module; left out: what the gateway's says")
    name: Text | None = None


@router.post("/tenants/{tenant}/things/{gateway}/modules", status_code=201, **access(OPERATE))
async def bind_module(call: Current, tenant: KeyInPath, gateway: KeyInPath, body: ModuleNew) -> ThingAnswer:
    """Bind a module to a gateway; a new one is created. The gateway's live grant follows before this answers."""
    written = await call.store.modules.bind(
        tenant, gateway, body.key, definition=body.thing_definition or "", name=body.name or ""
    )
    return ThingAnswer.of(await call.settled(written))


@router.get("/tenants/{tenant}/things/{gateway}/modules", **access(VIEW))
async def list_modules(
    call: Current,
    *,
    tenant: KeyInPath,
    gateway: KeyInPath,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    q: Search = None,
) -> Items[ThingAnswer]:
    """List the modules of a gateway in key order."""
    return await page_of(
        call, call.store.modules.list, tenant, gateway, make=ThingAnswer.of, limit=limit, cursor=cursor, q=q
    )


@router.delete("/tenants/{tenant}/things/{gateway}/modules/{key}", status_code=204, **access(OPERATE))
async def unbind_module(call: Current, tenant: KeyInPath, gateway: KeyInPath, key: KeyInPath) -> None:
    """Unbind a module from its gateway; the thing stays."""
    await call.settled(await call.store.modules.unbind(tenant, gateway, key))
