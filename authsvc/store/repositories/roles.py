"""Roles: named sets of rules and permissions. Tenant "" holds the platform roles, which may leave a tenant's wall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from authsvc.core.errors import Conflict
from authsvc.core.facts import PLATFORM_PREFIX, Kind, Name, Role, Rule
from authsvc.core.policy import check_rules
from authsvc.core.topics import check_key
from authsvc.store.database import KEEP, ConstraintFailed, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import revoke_token
from authsvc.store.records import role_of, rules_text, strings_text
from authsvc.store.repositories.lists import changed, page_of, read_one, take_one
from authsvc.store.repositories.references import refuse_in_use, require_tenant, tokens_naming


def role_name(tenant: str, key: str) -> Name:
    """Return how changes speak of the role."""
    return Name(Kind.ROLE if tenant else Kind.PLATFORM_ROLE, tenant, key)


class Roles:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: str, key: str, *, name: str = "", rules: Sequence[Rule] = (), permissions: Sequence[str] = ()
    ) -> Written[Role]:
        """Create a role. Raises InvalidInput (``key_invalid``, a rule's code), NotFound, Conflict."""
        check_key("role", key)
        checked = check_rules(rules, tenant=tenant or None)

        def work(tx: Transaction) -> Role:
            if tenant:
                require_tenant(tx, tenant)
            role = Role(
                tenant=tenant,
                key=key,
                name=name or key,
                rules=checked,
                permissions=tuple(permissions),
                created_at_us=tx.now_us,
            )
            try:
                tx.run("insert_role", now_us=tx.now_us, **_values(role))
            except ConstraintFailed:
                raise Conflict("already_exists", f"role `{key}` exists already") from None
            tx.change(role_name(tenant, key), "created")
            return role

        return await self._database.write(work)

    async def get(self, tenant: str, key: str) -> Role:
        """Return the role. Raises NotFound."""
        return await read_one(self._database, "role", "role", role_of, key, tenant=tenant, key=key)

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[Role]:
        """Return a page in key order."""
        return await page_of(
            self._database, "roles", role_of, lambda role: role.key, limit=limit, cursor=cursor, q=q, tenant=tenant
        )

    async def update(
        self,
        tenant: str,
        key: str,
        *,
        name: str | Keep = KEEP,
        rules: Sequence[Rule] | Keep = KEEP,
        permissions: Sequence[str] | Keep = KEEP,
    ) -> Written[Role]:
        """Change the role and with it the grants of whoever carries it. Raises NotFound, InvalidInput."""
        given = {
            "name": name,
            "rules": rules if isinstance(rules, Keep) else check_rules(rules, tenant=tenant or None),
            "permissions": permissions if isinstance(permissions, Keep) else tuple(permissions),
        }

        def work(tx: Transaction) -> Role:
            before = take_one(tx, "role", "role", role_of, key, tenant=tenant, key=key)
            fields = changed(before, given)
            if not fields:
                return before
            after: Role = replace(before, **fields)  # type: ignore[arg-type]
            tx.run("update_role", **_values(after))
            tx.change(role_name(tenant, key), "updated", {"fields": sorted(fields)})
            return after

        return await self._database.write(work)

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        """Delete the role; `cascade` revokes the tokens that carry it.

        They are not left alive without it: a role may hold denies, and taking those away would widen their grants.

        Raises:
            NotFound, InUse.
        """

        def work(tx: Transaction) -> None:
            take_one(tx, "role", "role", role_of, key, tenant=tenant, key=key)
            spelled = key if tenant else PLATFORM_PREFIX + key
            tokens = tokens_naming(tx, tenant, role=spelled)
            if not cascade:
                refuse_in_use(f"role `{spelled}`", {"app_tokens": len(tokens)})
            for token in tokens:
                revoke_token(tx, token)
            tx.run("delete_role", tenant=tenant, key=key)
            tx.change(role_name(tenant, key), "deleted")

        return await self._database.write(work)


def _values(role: Role) -> dict[str, object]:
    return {
        "tenant": role.tenant,
        "key": role.key,
        "name": role.name,
        "rules": rules_text(role.rules),
        "permissions": strings_text(role.permissions),
    }
