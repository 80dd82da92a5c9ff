from __future__ import annotations

from authsvc.core.facts import GroundAccess, Token
from authsvc.store.database import Database, Page, Written


class GroundTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        ground: str,
        *,
        name: str,
        access: GroundAccess,
        digest: bytes,
        prefix: str,
        expires_at_us: int | None = None,
    ) -> Written[Token]:
        raise NotImplementedError

    async def get(self, tenant: str, ground: str, id: str) -> Token:
        raise NotImplementedError

    async def list(
        self,
        tenant: str,
        ground: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        q: str | None = None,
        revoked: bool = False,
    ) -> Page[Token]:
        raise NotImplementedError

    async def delete(self, tenant: str, ground: str, id: str) -> Written[None]:
        raise NotImplementedError
