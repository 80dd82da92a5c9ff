"""Licences: seat pools. A seat is taken by a registration (`admission.register`) and given back by a deletion."""

from __future__ import annotations

from dataclasses import replace

from authsvc.core.errors import Conflict, InvalidInput
from authsvc.core.facts import Kind, License, Name
from authsvc.core.topics import check_key
from authsvc.store.database import KEEP, ConstraintFailed, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import change_thing, revoke_token
from authsvc.store.records import license_of, thing_of
from authsvc.store.repositories.lists import page_of, read_one, take_one
from authsvc.store.repositories.references import refuse_in_use, require_tenant, tokens_naming


def _check_seats(seats: int) -> None:
    if not 0 <= seats < 2**63:
        raise InvalidInput("seats_invalid", f"`seats` is {seats}; it must be 0 or more", field="seats")


class Licenses:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: str, key: str, *, seats: int) -> Written[License]:
        """Create a licence. Raises InvalidInput, NotFound (tenant), Conflict ``already_exists``."""
        check_key("license", key)
        _check_seats(seats)

        def work(tx: Transaction) -> License:
            require_tenant(tx, tenant)
            try:
                tx.run("insert_license", tenant=tenant, key=key, seats=seats, now_us=tx.now_us)
            except ConstraintFailed:
                raise Conflict("already_exists", f"licence `{key}` exists already") from None
            tx.change(Name(Kind.LICENSE, tenant, key), "created")
            return License(tenant=tenant, key=key, seats=seats, created_at_us=tx.now_us)

        return await self._database.write(work)

    async def get(self, tenant: str, key: str) -> License:
        """Return the licence with the seats used as of now. Raises NotFound."""
        return await read_one(self._database, "licence", "license", license_of, key, tenant=tenant, key=key)

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[License]:
        """Return a page in key order; `q` is a part of the key."""
        return await page_of(
            self._database,
            "licenses",
            license_of,
            lambda license_: license_.key,
            limit=limit,
            cursor=cursor,
            q=q,
            tenant=tenant,
        )

    async def update(self, tenant: str, key: str, *, seats: int | Keep = KEEP) -> Written[License]:
        """Change the capacity; below `used` nobody new is admitted. Raises NotFound, InvalidInput."""
        if not isinstance(seats, Keep):
            _check_seats(seats)

        def work(tx: Transaction) -> License:
            before = take_one(tx, "licence", "license", license_of, key, tenant=tenant, key=key)
            if isinstance(seats, Keep) or seats == before.seats:
                return before
            tx.run("update_license", tenant=tenant, key=key, seats=seats)
            tx.change(Name(Kind.LICENSE, tenant, key), "updated", {"fields": ["seats"]})
            return replace(before, seats=seats)

        return await self._database.write(work)

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        """Delete the licence; `cascade` revokes the app tokens that name it, and its things stay without a seat.

        Raises:
            NotFound, InUse.
        """

        def work(tx: Transaction) -> None:
            take_one(tx, "licence", "license", license_of, key, tenant=tenant, key=key)
            things = [
                thing_of(row) for row in tx.all("things_naming", tenant=tenant, ground="", definition="", license=key)
            ]
            tokens = tokens_naming(tx, tenant, license=key)
            if not cascade:
                refuse_in_use(f"licence `{key}`", {"things": len(things), "app_tokens": len(tokens)})
            for token in tokens:
                revoke_token(tx, token)
            for thing in things:
                change_thing(tx, thing, replace(thing, license=""))
            tx.run("delete_license", tenant=tenant, key=key)
            tx.change(Name(Kind.LICENSE, tenant, key), "deleted")

        return await self._database.write(work)
