from __future__ import annotations

from authsvc.core.facts import Ground
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class Grounds:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: str, key: str, *, name: str = "") -> Written[Ground]:
        raise NotImplementedError

    async def get(self, tenant: str, key: str) -> Ground:
        raise NotImplementedError

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[Ground]:
        raise NotImplementedError

    async def update(self, tenant: str, key: str, *, name: str | Keep = KEEP) -> Written[Ground]:
        raise NotImplementedError

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        raise NotImplementedError
