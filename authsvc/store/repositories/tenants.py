from __future__ import annotations

from authsvc.core.facts import Tenant, TenantState
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class Tenants:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: str, *, name: str = "") -> Written[Tenant]:
        raise NotImplementedError

    async def get(self, key: str) -> Tenant:
        raise NotImplementedError

    async def list(self, *, limit: int = 100, cursor: str | None = None, q: str | None = None) -> Page[Tenant]:
        raise NotImplementedError

    async def update(self, key: str, *, name: str | Keep = KEEP, state: TenantState | Keep = KEEP) -> Written[Tenant]:
        raise NotImplementedError

    async def delete(self, key: str, *, cascade: bool = False) -> Written[None]:
        raise NotImplementedError
