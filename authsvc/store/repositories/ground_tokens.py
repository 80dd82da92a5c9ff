"""Ground tokens: each speaks for every thing in one ground."""

from __future__ import annotations

from authsvc.core.facts import GroundAccess, Token, TokenKind
from authsvc.store.database import Database, Written
from authsvc.store.records import ground_of
from authsvc.store.repositories.owned_tokens import OwnedTokens


class GroundTokens(OwnedTokens):
    def __init__(self, database: Database) -> None:
        super().__init__(database, kind=TokenKind.GROUND, owner="ground", record=ground_of)

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
        """Create a token of the ground. Raises NotFound (ground), Conflict ``already_exists`` (digest)."""
        token = Token(
            id="",
            tenant=tenant,
            kind=TokenKind.GROUND,
            name=name,
            ground=ground,
            access=access,
            prefix=prefix,
            expires_at_us=expires_at_us,
        )
        return await self._create(token, ground, digest)
