from __future__ import annotations

from collections.abc import Sequence

from authsvc.core.facts import Role, Rule
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class Roles:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: str, key: str, *, name: str = "", rules: Sequence[Rule] = (), permissions: Sequence[str] = ()
    ) -> Written[Role]:
        raise NotImplementedError

    async def get(self, tenant: str, key: str) -> Role:
        raise NotImplementedError

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None
    ) -> Page[Role]:
        raise NotImplementedError

    async def update(
        self,
        tenant: str,
        key: str,
        *,
        name: str | Keep = KEEP,
        rules: Sequence[Rule] | Keep = KEEP,
        permissions: Sequence[str] | Keep = KEEP,
    ) -> Written[Role]:
        raise NotImplementedError

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        raise NotImplementedError
