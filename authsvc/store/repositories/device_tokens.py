from __future__ import annotations

from authsvc.core.facts import Token
from authsvc.store.database import Database, Page, Written


class DeviceTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: str, thing: str, *, name: str, digest: bytes, prefix: str, expires_at_us: int | None = None
    ) -> Written[Token]:
        raise NotImplementedError

    async def get(self, tenant: str, thing: str, id: str) -> Token:
        raise NotImplementedError

    async def list(
        self,
        tenant: str,
        thing: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        q: str | None = None,
        revoked: bool = False,
    ) -> Page[Token]:
        raise NotImplementedError

    async def delete(self, tenant: str, thing: str, id: str) -> Written[None]:
        raise NotImplementedError
