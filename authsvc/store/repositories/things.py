from __future__ import annotations

from collections.abc import Sequence

from authsvc.core.facts import Thing, ThingState
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class Things:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        key: str,
        *,
        name: str = "",
        definition: str = "thing",
        ground: str = "default",
        tags: Sequence[str] = (),
        security_tags: Sequence[str] = (),
    ) -> Written[Thing]:
        raise NotImplementedError

    async def get(self, tenant: str, key: str) -> Thing:
        raise NotImplementedError

    async def list(
        self,
        tenant: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        q: str | None = None,
        ground: str | None = None,
        definition: str | None = None,
        tag: str | None = None,
        state: ThingState | None = None,
    ) -> Page[Thing]:
        raise NotImplementedError

    async def update(
        self,
        tenant: str,
        key: str,
        *,
        name: str | Keep = KEEP,
        definition: str | Keep = KEEP,
        ground: str | Keep = KEEP,
        tags: Sequence[str] | Keep = KEEP,
        security_tags: Sequence[str] | Keep = KEEP,
        state: ThingState | Keep = KEEP,
    ) -> Written[Thing]:
        raise NotImplementedError

    async def delete(self, tenant: str, key: str, *, cascade: bool = False) -> Written[None]:
        raise NotImplementedError

    async def forget(self, tenant: str, key: str) -> Written[None]:
        raise NotImplementedError

    async def reset_client_id(self, tenant: str, key: str) -> Written[Thing]:
        raise NotImplementedError
