"""Device tokens: each speaks for one thing."""

from __future__ import annotations

from authsvc.core.facts import Token, TokenKind
from authsvc.store.database import Database, Written
from authsvc.store.records import thing_of
from authsvc.store.repositories.owned_tokens import OwnedTokens


class DeviceTokens(OwnedTokens):
    def __init__(self, database: Database) -> None:
        super().__init__(database, kind=TokenKind.DEVICE, owner="thing", record=thing_of)

    async def create(
        self,
        tenant: str,
        thing: str,
        *,
        name: str,
        digest: bytes,
        prefix: str,
        expires_at_us: int | None = None,
    ) -> Written[Token]:
        """Create a token of the thing. Raises NotFound (thing), Conflict ``already_exists`` (digest)."""
        token = Token(
            id="",
            tenant=tenant,
            kind=TokenKind.DEVICE,
            name=name,
            thing=thing,
            prefix=prefix,
            expires_at_us=expires_at_us,
        )
        return await self._create(token, thing, digest)
