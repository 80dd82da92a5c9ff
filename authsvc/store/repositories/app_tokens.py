from __future__ import annotations

from collections.abc import Sequence

from authsvc.core.facts import Token
from authsvc.store.database import Database, Page, Written, KEEP, Keep


class AppTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        *,
        name: str,
        digest: bytes,
        prefix: str,
        definition: str = "",
        ground: str = "",
        roles: Sequence[str] = (),
        tags: Sequence[str] = (),
        security_tags: Sequence[str] = (),
        license: str = "",
        auto_register: bool | None = None,
        max_things: int | None = None,
        expires_at_us: int | None = None,
    ) -> Written[Token]:
        raise NotImplementedError

    async def get(self, tenant: str, id: str) -> Token:
        raise NotImplementedError

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None, q: str | None = None, revoked: bool = False
    ) -> Page[Token]:
        raise NotImplementedError

    async def update(
        self,
        tenant: str,
        id: str,
        *,
        name: str | Keep = KEEP,
        definition: str | Keep = KEEP,
        ground: str | Keep = KEEP,
        roles: Sequence[str] | Keep = KEEP,
        tags: Sequence[str] | Keep = KEEP,
        security_tags: Sequence[str] | Keep = KEEP,
        license: str | Keep = KEEP,
        auto_register: bool | Keep = KEEP,
        max_things: int | None | Keep = KEEP,
        expires_at_us: int | None | Keep = KEEP,
    ) -> Written[Token]:
        raise NotImplementedError

    async def regenerate(
        self, tenant: str, id: str, *, digest: bytes, prefix: str, overlap_us: int = 0
    ) -> Written[Token]:
        raise NotImplementedError

    async def delete(self, tenant: str, id: str) -> Written[None]:
        raise NotImplementedError
