from __future__ import annotations

from authsvc.core.facts import Thing
from authsvc.store.database import Database, Page, Written


class Modules:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant: str, gateway: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[Thing]:
        raise NotImplementedError

    async def bind(
        self, tenant: str, gateway: str, key: str, *, definition: str = "", name: str = ""
    ) -> Written[Thing]:
        raise NotImplementedError

    async def unbind(self, tenant: str, gateway: str, key: str) -> Written[Thing]:
        raise NotImplementedError
