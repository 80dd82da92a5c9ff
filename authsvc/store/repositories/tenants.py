"""Tenants. A new one has the ground `default` and the definitions `thing`, `gateway` and `module`."""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.errors import Conflict
from authsvc.core.facts import Kind, Name, Tenant, TenantState, ThingKind
from authsvc.core.policy import built_in_rules
from authsvc.core.topics import check_key
from authsvc.store.database import KEEP, ConstraintFailed, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import clear_retained, wipe_tenant
from authsvc.store.records import rules_text, tenant_of
from authsvc.store.repositories.lists import page_of, read_one, take_one
from authsvc.store.repositories.references import refuse_in_use

DEFAULT_TENANT = "default"
_EMPTIED = (
    "delete_tenant_things",
    "delete_tenant_retired",
    "delete_tenant_tokens",  # with their secrets
    "delete_tenant_admin_keys",
    "delete_tenant_licenses",
    "delete_tenant_roles",
    "delete_tenant_definitions",
    "delete_tenant_grounds",
    "delete_tenant",
)


class Tenants:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: str, *, name: str = "") -> Written[Tenant]:
        """Create an active tenant. Raises InvalidInput ``key_invalid``, Conflict ``already_exists``."""
        check_key("tenant", key)

        def work(tx: Transaction) -> Tenant:
            tenant = Tenant(key=key, name=name or key, created_at_us=tx.now_us)
            try:
                tx.run("insert_tenant", key=key, name=tenant.name, state=tenant.state.value, now_us=tx.now_us)
            except ConstraintFailed:
                raise Conflict("already_exists", f"tenant `{key}` exists already") from None
            tx.change(Name(Kind.TENANT, key, key), "created")
            tx.run("insert_ground", tenant=key, key="default", name="default", now_us=tx.now_us)
            tx.change(Name(Kind.GROUND, key, "default"), "created")
            for kind in ThingKind:
                _insert_built_in(tx, key, kind)
            return tenant

        return await self._database.write(work)

    async def get(self, key: str) -> Tenant:
        """Return the tenant. Raises NotFound."""
        return await read_one(self._database, "tenant", "tenant", tenant_of, key, key=key)

    async def list(self, *, limit: int = 100, cursor: str | None = None, q: str | None = None) -> Page[Tenant]:
        """Return a page in key order."""
        return await page_of(
            self._database, "tenants", tenant_of, lambda tenant: tenant.key, limit=limit, cursor=cursor, q=q
        )

    async def update(self, key: str, *, name: str | Keep = KEEP, state: TenantState | Keep = KEEP) -> Written[Tenant]:
        """Rename, suspend (its persistent sessions are wiped) or activate the tenant. Raises NotFound."""

        def work(tx: Transaction) -> Tenant:
            before = take_one(tx, "tenant", "tenant", tenant_of, key, key=key)
            after = before
            if not isinstance(name, Keep):
                after = replace(after, name=name)
            if not isinstance(state, Keep):
                after = replace(after, state=state)
            if after == before:
                return before
            tx.run("update_tenant", key=key, name=after.name, state=after.state.value)
            if after.name != before.name:
                tx.change(Name(Kind.TENANT, key, key), "updated", {"fields": ["name"]})
            if after.state is not before.state:
                suspended = after.state is TenantState.SUSPENDED
                if suspended:
                    wipe_tenant(tx, key)
                tx.change(Name(Kind.TENANT, key, key), "suspended" if suspended else "activated")
            return after

        return await self._database.write(work)

    async def delete(self, key: str, *, cascade: bool = False) -> Written[None]:
        """Delete the tenant, with `cascade` and everything in it. One change row: it stands for all that was inside.

        Raises:
            NotFound, InUse; Conflict ``built_in`` for the tenant `default`.
        """

        def work(tx: Transaction) -> None:
            take_one(tx, "tenant", "tenant", tenant_of, key, key=key)
            if key == DEFAULT_TENANT:
                raise Conflict("built_in", f"tenant `{key}` stays: it can be suspended, not deleted")
            counts = tx.one("tenant_users", key=key)
            assert counts is not None
            kinds = ("things", "tokens", "grounds", "thing_definitions", "roles", "licenses", "admin_keys")
            if not cascade:
                refuse_in_use(f"tenant `{key}`", dict(zip(kinds, counts, strict=True)))
            wipe_tenant(tx, key)
            clear_retained(tx, key, key)
            for (admin_key,) in tx.all("admin_keys_of", tenant=key):
                tx.change(Name(Kind.ADMIN_KEY, key, admin_key), "deleted")
            for statement in _EMPTIED:
                tx.run(statement, tenant=key)
            tx.change(Name(Kind.TENANT, key, key), "deleted")

        return await self._database.write(work)


def _insert_built_in(tx: Transaction, tenant: str, kind: ThingKind) -> None:
    tx.run(
        "insert_definition",
        tenant=tenant,
        key=kind.value,
        name=kind.value,
        kind=kind.value,
        rules=rules_text(built_in_rules(kind)),
        bind_client_id="app_token",
        module_definition="module" if kind is ThingKind.GATEWAY else "",
        module_auto_register=0,
        now_us=tx.now_us,
    )
    tx.change(Name(Kind.DEFINITION, tenant, kind.value), "created")
