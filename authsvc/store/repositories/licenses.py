from __future__ import annotations

from authsvc.core.facts import License
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class Licenses:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: str, key: str, *, seats: int) -> Written[License]:
        raise NotImplementedError

    async def get(self, tenant: str, key: str) -> License:
        raise NotImplementedError

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[License]:
        raise NotImplementedError

    async def update(self, tenant: str, key: str, *, seats: int | Keep = KEEP) -> Written[License]:
        raise NotImplementedError

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        raise NotImplementedError
