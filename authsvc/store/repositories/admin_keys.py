"""Keys of the HTTP API. The first one has the id `first` and can be replaced at start."""

from __future__ import annotations

from authsvc.core.errors import Conflict, NotFound
from authsvc.core.facts import AdminKey, AdminRole, Kind, Name
from authsvc.core.tokens import new_id
from authsvc.store.database import ConstraintFailed, Database, Page, Transaction, Written
from authsvc.store.records import admin_key_of
from authsvc.store.repositories.lists import page_of, read_one, take_one
from authsvc.store.repositories.references import unknown

FIRST_KEY = "first"


class AdminKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, name: str, tenant: str | None, role: AdminRole, digest: bytes, prefix: str
    ) -> Written[AdminKey]:
        """Create a key; `tenant` None sees every tenant. Raises InvalidInput ``reference_unknown``, Conflict."""

        def work(tx: Transaction) -> AdminKey:
            if tenant is not None and tx.one("tenant", key=tenant) is None:
                raise unknown("tenant", "tenant", tenant)
            key = AdminKey(id=new_id(), name=name, tenant=tenant, role=role, prefix=prefix, created_at_us=tx.now_us)
            return _insert(tx, key, digest)

        return await self._database.write(work)

    async def get(self, id: str) -> AdminKey:
        """Return the key. Raises NotFound."""
        return await read_one(self._database, "admin key", "admin_key", admin_key_of, id, id=id)

    async def list(
        self, *, limit: int = 100, cursor: str | None = None, q: str | None = None, tenant: str | None = None
    ) -> Page[AdminKey]:
        """Return a page in the order of ids: all keys, or those bound to `tenant`."""
        return await page_of(
            self._database,
            "admin_keys",
            admin_key_of,
            lambda key: key.id,
            limit=limit,
            cursor=cursor,
            q=q,
            tenant=tenant,
        )

    async def delete(self, id: str) -> Written[None]:
        """Delete the key: it opens nothing from the commit on. Raises NotFound."""

        def work(tx: Transaction) -> None:
            key = take_one(tx, "admin key", "admin_key", admin_key_of, id, id=id)
            _delete(tx, key)

        return await self._database.write(work)

    async def replace_first(self, *, name: str, digest: bytes, prefix: str) -> Written[AdminKey]:
        """Make this the first key, an owner of the platform; nothing changes if it is already. Raises Conflict."""

        def work(tx: Transaction) -> AdminKey:
            row = tx.one("admin_key_with_digest", id=FIRST_KEY, digest=digest)
            if row is not None:
                return admin_key_of(row)
            row = tx.one("admin_key", id=FIRST_KEY)
            if row is not None:
                _delete(tx, admin_key_of(row))
            key = AdminKey(
                id=FIRST_KEY,
                name=name,
                tenant=None,
                role=AdminRole.OWNER,
                prefix=prefix,
                created_at_us=tx.now_us,
            )
            return _insert(tx, key, digest)

        return await self._database.write(work)


def _insert(tx: Transaction, key: AdminKey, digest: bytes) -> AdminKey:
    try:
        tx.run(
            "insert_admin_key",
            id=key.id,
            name=key.name,
            tenant=key.tenant,
            role=key.role.value,
            prefix=key.prefix,
            digest=digest,
            now_us=tx.now_us,
        )
    except ConstraintFailed:
        raise Conflict("already_exists", "an admin key with this secret exists already") from None
    tx.change(Name(Kind.ADMIN_KEY, key.tenant or "", key.id), "created", {"role": key.role.value})
    return key


def _delete(tx: Transaction, key: AdminKey) -> None:
    if not tx.run("delete_admin_key", id=key.id):
        raise NotFound("admin key", key.id)
    tx.change(Name(Kind.ADMIN_KEY, key.tenant or "", key.id), "deleted")
