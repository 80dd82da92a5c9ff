from __future__ import annotations

from authsvc.core.facts import AdminKey, AdminRole
from authsvc.store.database import Database, Page, Written


class AdminKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, name: str, tenant: str | None, role: AdminRole, digest: bytes, prefix: str
    ) -> Written[AdminKey]:
        raise NotImplementedError

    async def get(self, id: str) -> AdminKey:
        raise NotImplementedError

    async def list(
        self, *, limit: int = 100, cursor: str | None = None, q: str | None = None, tenant: str | None = None
    ) -> Page[AdminKey]:
        raise NotImplementedError

    async def delete(self, id: str) -> Written[None]:
        raise NotImplementedError

    async def replace_first(self, *, name: str, digest: bytes, prefix: str) -> Written[AdminKey]:
        raise NotImplementedError
