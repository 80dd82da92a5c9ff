"""Thing definitions: templates of things. The built-in ones can be changed and stay."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import replace

from authsvc.core.errors import Conflict
from authsvc.core.facts import BindClientId, Kind, ModulePolicy, Name, Rule, ThingDefinition, ThingKind
from authsvc.core.policy import check_rules
from authsvc.core.topics import check_key
from authsvc.store.database import KEEP, ConstraintFailed, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import delete_thing, revoke_token
from authsvc.store.records import definition_of, rules_text, thing_of
from authsvc.store.repositories.lists import changed, page_of, read_one, take_one
from authsvc.store.repositories.references import refuse_in_use, require_tenant, tokens_naming, unknown

BUILT_IN = frozenset(kind.value for kind in ThingKind)


class Definitions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        key: str,
        *,
        name: str = "",
        kind: ThingKind = ThingKind.THING,
        rules: Sequence[Rule] = (),
        bind_client_id: BindClientId = BindClientId.APP_TOKEN,
        modules: ModulePolicy | None = None,
    ) -> Written[ThingDefinition]:
        """Create a definition with exactly these rules (none: no access; the built-in ones are the caller's to give).

        Raises:
            InvalidInput: ``key_invalid``, a rule's code, ``reference_unknown`` (module definition).
            NotFound: no such tenant. Conflict: ``already_exists``.
        """
        check_key("thing definition", key)
        checked = check_rules(rules, tenant=tenant)

        def work(tx: Transaction) -> ThingDefinition:
            require_tenant(tx, tenant)
            definition = ThingDefinition(
                tenant=tenant,
                key=key,
                name=name or key,
                kind=kind,
                rules=checked,
                bind_client_id=bind_client_id,
                modules=modules,
                created_at_us=tx.now_us,
            )
            _require_module_definition(tx, definition)
            try:
                tx.run("insert_definition", now_us=tx.now_us, **_values(definition))
            except ConstraintFailed:
                raise Conflict("already_exists", f"thing definition `{key}` exists already") from None
            tx.change(Name(Kind.DEFINITION, tenant, key), "created")
            return definition

        return await self._database.write(work)

    async def get(self, tenant: str, key: str) -> ThingDefinition:
        """Return the definition. Raises NotFound."""
        return await read_one(
            self._database, "thing definition", "definition", definition_of, key, tenant=tenant, key=key
        )

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[ThingDefinition]:
        """Return a page in key order."""
        return await page_of(
            self._database,
            "definitions",
            definition_of,
            lambda definition: definition.key,
            limit=limit,
            cursor=cursor,
            q=q,
            tenant=tenant,
        )

    async def update(
        self,
        tenant: str,
        key: str,
        *,
        name: str | Keep = KEEP,
        kind: ThingKind | Keep = KEEP,
        rules: Sequence[Rule] | Keep = KEEP,
        bind_client_id: BindClientId | Keep = KEEP,
        modules: ModulePolicy | Keep | None = KEEP,
    ) -> Written[ThingDefinition]:
        """Change the definition and with it the grants of its things. Raises NotFound, InvalidInput as `create`."""
        given = {
            "name": name,
            "kind": kind,
            "rules": rules if isinstance(rules, Keep) else check_rules(rules, tenant=tenant),
            "bind_client_id": bind_client_id,
            "modules": modules,
        }

        def work(tx: Transaction) -> ThingDefinition:
            before = take_one(tx, "thing definition", "definition", definition_of, key, tenant=tenant, key=key)
            fields = changed(before, given)
            if not fields:
                return before
            after: ThingDefinition = replace(before, **fields)  # type: ignore[arg-type]
            _require_module_definition(tx, after)
            tx.run("update_definition", **_values(after))
            tx.change(Name(Kind.DEFINITION, tenant, key), "updated", {"fields": sorted(fields)})
            return after

        return await self._database.write(work)

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        """Delete the definition; `cascade` deletes its things and revokes the app tokens that name it.

        Raises:
            NotFound, InUse; Conflict ``built_in``.
        """

        def work(tx: Transaction) -> None:
            take_one(tx, "thing definition", "definition", definition_of, key, tenant=tenant, key=key)
            if key in BUILT_IN:
                raise Conflict("built_in", f"thing definition `{key}` is built in: it can be changed, not deleted")
            things = [
                thing_of(row) for row in tx.all("things_naming", tenant=tenant, ground="", definition=key, license="")
            ]
            tokens = tokens_naming(tx, tenant, definition=key)
            naming: builtins.list[str] = [row[0] for row in tx.all("definitions_naming", tenant=tenant, key=key)]
            if not cascade:
                counts = {"things": len(things), "app_tokens": len(tokens), "thing_definitions": len(naming)}
                refuse_in_use(f"thing definition `{key}`", counts)
            for token in tokens:
                revoke_token(tx, token)
            for thing in things:
                delete_thing(tx, thing)
            tx.run("forget_module_definition", tenant=tenant, key=key)
            for other in naming:
                tx.change(Name(Kind.DEFINITION, tenant, other), "updated", {"fields": ["modules"]})
            tx.run("delete_definition", tenant=tenant, key=key)
            tx.change(Name(Kind.DEFINITION, tenant, key), "deleted")

        return await self._database.write(work)


def _require_module_definition(tx: Transaction, definition: ThingDefinition) -> None:
    modules = definition.modules
    if modules is None or modules.definition == definition.key:
        return
    if tx.one("definition", tenant=definition.tenant, key=modules.definition) is None:
        raise unknown("modules.definition", "thing definition", modules.definition)


def _values(definition: ThingDefinition) -> dict[str, object]:
    modules = definition.modules
    return {
        "tenant": definition.tenant,
        "key": definition.key,
        "name": definition.name,
        "kind": definition.kind.value,
        "rules": rules_text(definition.rules),
        "bind_client_id": definition.bind_client_id.value,
        "module_definition": modules.definition if modules else "",
        "module_auto_register": int(modules.auto_register) if modules else 0,
    }
