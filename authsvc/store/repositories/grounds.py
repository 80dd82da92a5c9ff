"""Grounds: the named groups of things inside a tenant. `default` stays."""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.errors import Conflict
from authsvc.core.facts import Ground, Kind, Name, TokenKind
from authsvc.core.topics import check_key
from authsvc.store.database import KEEP, ConstraintFailed, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import delete_thing, revoke_token
from authsvc.store.records import ground_of, thing_of
from authsvc.store.repositories.lists import page_of, read_one, take_one
from authsvc.store.repositories.references import refuse_in_use, require_tenant, tokens_naming

DEFAULT_GROUND = "default"


class Grounds:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: str, key: str, *, name: str = "") -> Written[Ground]:
        """Create a ground. Raises InvalidInput ``key_invalid``, NotFound (tenant), Conflict ``already_exists``."""
        check_key("ground", key)

        def work(tx: Transaction) -> Ground:
            require_tenant(tx, tenant)
            ground = Ground(tenant=tenant, key=key, name=name or key, created_at_us=tx.now_us)
            try:
                tx.run("insert_ground", tenant=tenant, key=key, name=ground.name, now_us=tx.now_us)
            except ConstraintFailed:
                raise Conflict("already_exists", f"ground `{key}` exists already") from None
            tx.change(Name(Kind.GROUND, tenant, key), "created")
            return ground

        return await self._database.write(work)

    async def get(self, tenant: str, key: str) -> Ground:
        """Return the ground. Raises NotFound."""
        return await read_one(self._database, "ground", "ground", ground_of, key, tenant=tenant, key=key)

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[Ground]:
        """Return a page in key order."""
        return await page_of(
            self._database,
            "grounds",
            ground_of,
            lambda ground: ground.key,
            limit=limit,
            cursor=cursor,
            q=q,
            tenant=tenant,
        )

    async def update(self, tenant: str, key: str, *, name: str | Keep = KEEP) -> Written[Ground]:
        """Rename the ground. Raises NotFound."""

        def work(tx: Transaction) -> Ground:
            before = take_one(tx, "ground", "ground", ground_of, key, tenant=tenant, key=key)
            if isinstance(name, Keep) or name == before.name:
                return before
            tx.run("update_ground", tenant=tenant, key=key, name=name)
            tx.change(Name(Kind.GROUND, tenant, key), "updated", {"fields": ["name"]})
            return replace(before, name=name)

        return await self._database.write(work)

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        """Delete the ground; `cascade` deletes its things and revokes the tokens that name it.

        Raises:
            NotFound, InUse; Conflict ``built_in`` for `default`.
        """

        def work(tx: Transaction) -> None:
            take_one(tx, "ground", "ground", ground_of, key, tenant=tenant, key=key)
            if key == DEFAULT_GROUND:
                raise Conflict("built_in", "ground `default` stays")
            things = [
                thing_of(row) for row in tx.all("things_naming", tenant=tenant, ground=key, definition="", license="")
            ]
            tokens = tokens_naming(tx, tenant, ground=key)
            if not cascade:
                ground_tokens = sum(token.kind is TokenKind.GROUND for token in tokens)
                counts = {
                    "things": len(things),
                    "ground_tokens": ground_tokens,
                    "app_tokens": len(tokens) - ground_tokens,
                }
                refuse_in_use(f"ground `{key}`", counts)
            for token in tokens:
                revoke_token(tx, token)
            for thing in things:
                delete_thing(tx, thing)
            tx.run("delete_ground", tenant=tenant, key=key)
            tx.change(Name(Kind.GROUND, tenant, key), "deleted")

        return await self._database.write(work)
