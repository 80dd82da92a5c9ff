"""Things, as operators keep them. A deleted key is retired: only an operator brings it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from authsvc.core.errors import Conflict, NotFound
from authsvc.core.facts import Thing, ThingState
from authsvc.core.topics import check_key
from authsvc.store.database import KEEP, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import change_thing, delete_thing, thing_name, wipe_thing
from authsvc.store.records import thing_of, thing_values
from authsvc.store.repositories.lists import changed, page_of, read_one, take_one
from authsvc.store.repositories.references import require_definition, require_ground, require_tenant


def insert_thing(tx: Transaction, thing: Thing) -> Thing:
    """Insert an operator's thing and revive its key. Raises Conflict ``already_exists``."""
    if not tx.run("insert_thing", **thing_values(thing)):
        raise Conflict("already_exists", f"thing `{thing.key}` exists already")
    revived = tx.run("unretire", tenant=thing.tenant, key=thing.key)
    detail = {"definition": thing.definition, "ground": thing.ground, "gateway": thing.gateway}
    tx.change(thing_name(thing), "revived" if revived else "created", detail)
    return thing


class Things:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        key: str,
        *,
        name: str = "",
        definition: str = "thing",
        ground: str = "default",
        tags: Sequence[str] = (),
        security_tags: Sequence[str] = (),
    ) -> Written[Thing]:
        """Create a thing, or bring a retired key back as a new thing. It takes no seat.

        Raises:
            InvalidInput: ``key_invalid``, ``reference_unknown``.
            NotFound: no such tenant. Conflict: ``already_exists``.
        """
        check_key("thing", key)

        def work(tx: Transaction) -> Thing:
            require_tenant(tx, tenant)
            require_definition(tx, tenant, definition)
            require_ground(tx, tenant, ground)
            thing = Thing(
                tenant=tenant,
                key=key,
                name=name or key,
                definition=definition,
                ground=ground,
                tags=tuple(tags),
                security_tags=tuple(security_tags),
                created_at_us=tx.now_us,
            )
            return insert_thing(tx, thing)

        return await self._database.write(work)

    async def get(self, tenant: str, key: str) -> Thing:
        """Return the thing. Raises NotFound."""
        return await read_one(self._database, "thing", "thing", thing_of, key, tenant=tenant, key=key)

    async def list(
        self,
        tenant: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        q: str | None = None,
        ground: str | None = None,
        definition: str | None = None,
        tag: str | None = None,
        state: ThingState | None = None,
    ) -> Page[Thing]:
        """Return a page in key order of the things that meet every filter that is given."""
        return await page_of(
            self._database,
            "things",
            thing_of,
            lambda thing: thing.key,
            limit=limit,
            cursor=cursor,
            q=q,
            tenant=tenant,
            ground=ground or "",
            definition=definition or "",
            tag=tag or "",
            state=state.value if state else "",
        )

    async def update(
        self,
        tenant: str,
        key: str,
        *,
        name: str | Keep = KEEP,
        definition: str | Keep = KEEP,
        ground: str | Keep = KEEP,
        tags: Sequence[str] | Keep = KEEP,
        security_tags: Sequence[str] | Keep = KEEP,
        state: ThingState | Keep = KEEP,
    ) -> Written[Thing]:
        """Change, move, block or unblock the thing; a block wipes its sessions and clears its retained messages.

        Raises:
            NotFound; InvalidInput ``reference_unknown``.
        """
        given = {
            "name": name,
            "definition": definition,
            "ground": ground,
            "tags": tags if isinstance(tags, Keep) else tuple(tags),
            "security_tags": security_tags if isinstance(security_tags, Keep) else tuple(security_tags),
            "state": state,
        }

        def work(tx: Transaction) -> Thing:
            before = _take(tx, tenant, key)
            fields = changed(before, given)
            if not fields:
                return before
            after: Thing = replace(before, **fields)  # type: ignore[arg-type]
            if "definition" in fields:
                require_definition(tx, tenant, after.definition)
            if "ground" in fields:
                require_ground(tx, tenant, after.ground)
            change_thing(tx, before, after)
            return after

        return await self._database.write(work)

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        """Delete the thing: key retired, seat and quota given back, its device tokens revoked, its sessions wiped.

        A gateway's modules are let go of, or deleted with it under `cascade`. Raises NotFound.
        """
        return await self._database.write(lambda tx: delete_thing(tx, _take(tx, tenant, key), modules_too=cascade))

    async def forget(self, tenant: str, key: str) -> Written[None]:
        """Forget the retired key; a thing that is still there is deleted first. Raises NotFound if neither is."""

        def work(tx: Transaction) -> None:
            row = tx.one("thing", tenant=tenant, key=key)
            if row is not None:
                delete_thing(tx, thing_of(row))
            if not tx.run("unretire", tenant=tenant, key=key):
                raise NotFound("thing", key)
            tx.change(thing_name(Thing(tenant=tenant, key=key, name="", definition="", ground="")), "forgotten")

        return await self._database.write(work)

    async def reset_client_id(self, tenant: str, key: str) -> Written[Thing]:
        """Reset the binding and wipe the thing's sessions; nothing changes if none is bound. Raises NotFound."""

        def work(tx: Transaction) -> Thing:
            before = _take(tx, tenant, key)
            if before.client_id is None:
                return before
            after = replace(before, client_id=None)
            tx.run("update_thing", **thing_values(after))
            wipe_thing(tx, tenant, key)
            tx.change(thing_name(after), "client_id_reset")
            return after

        return await self._database.write(work)


def _take(tx: Transaction, tenant: str, key: str) -> Thing:
    return take_one(tx, "thing", "thing", thing_of, key, tenant=tenant, key=key)
