"""Modules: things behind a gateway, bound to it."""

from __future__ import annotations

from authsvc.core.errors import InvalidInput, NotFound
from authsvc.core.facts import Thing, ThingDefinition, ThingKind
from authsvc.core.topics import check_key
from authsvc.store.database import Database, Page, Transaction, Written
from authsvc.store.endings import set_gateway
from authsvc.store.records import definition_of, thing_of
from authsvc.store.repositories.lists import page_of, read_one, take_one
from authsvc.store.repositories.references import require_definition
from authsvc.store.repositories.things import insert_thing

DEFAULT_DEFINITION = "module"


class Modules:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant: str, gateway: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[Thing]:
        """Return a page of the modules bound to the gateway, in key order. Raises NotFound (gateway)."""
        await read_one(self._database, "thing", "thing", thing_of, gateway, tenant=tenant, key=gateway)
        return await page_of(
            self._database,
            "modules",
            thing_of,
            lambda thing: thing.key,
            limit=limit,
            cursor=cursor,
            q=q,
            tenant=tenant,
            gateway=gateway,
        )

    async def bind(
        self, tenant: str, gateway: str, key: str, *, definition: str = "", name: str = ""
    ) -> Written[Thing]:
        """Bind the module to the gateway, taking it from another; created in the gateway's ground if it is new.

        `definition` of a new one: as given, else what the gateway's definition names, else `module`.

        Raises:
            NotFound: no such gateway. InvalidInput: ``key_invalid``, ``reference_unknown``, ``not_a_gateway``,
            ``not_a_module`` (its definition is of another kind).
        """
        check_key("thing", key)

        def work(tx: Transaction) -> Thing:
            owner = take_one(tx, "thing", "thing", thing_of, gateway, tenant=tenant, key=gateway)
            owner_definition = _definition(tx, owner)
            if owner_definition is None or owner_definition.kind is not ThingKind.GATEWAY:
                raise InvalidInput("not_a_gateway", f"thing `{gateway}` is no gateway: it cannot have modules")
            row = tx.one("thing", tenant=tenant, key=key)
            if row is not None:
                module = thing_of(row)
                _require_module(_definition(tx, module), module.definition)
                return set_gateway(tx, module, gateway)
            policy = owner_definition.modules
            chosen = definition or (policy.definition if policy else DEFAULT_DEFINITION)
            _require_module(require_definition(tx, tenant, chosen), chosen)
            module = Thing(
                tenant=tenant,
                key=key,
                name=name or key,
                definition=chosen,
                ground=owner.ground,
                gateway=gateway,
                created_at_us=tx.now_us,
            )
            return insert_thing(tx, module)

        return await self._database.write(work)

    async def unbind(self, tenant: str, gateway: str, key: str) -> Written[Thing]:
        """Let the module go; it stays a thing. Raises NotFound if it is not bound to this gateway."""

        def work(tx: Transaction) -> Thing:
            module = take_one(tx, "module", "thing", thing_of, key, tenant=tenant, key=key)
            if module.gateway != gateway:
                raise NotFound("module", key)
            return set_gateway(tx, module, "")

        return await self._database.write(work)


def _definition(tx: Transaction, thing: Thing) -> ThingDefinition | None:
    row = tx.one("definition", tenant=thing.tenant, key=thing.definition)
    return definition_of(row) if row else None


def _require_module(definition: ThingDefinition | None, key: str) -> None:
    if definition is None or definition.kind is not ThingKind.MODULE:
        detail = f"thing definition `{key}` is not of kind `module`: only modules stand behind a gateway"
        raise InvalidInput("not_a_module", detail, field="thing_definition")
