"""Ground tokens: each speaks for every thing in one ground."""

from __future__ import annotations

from authsvc.core.facts import Ground, GroundAccess, Token, TokenKind
from authsvc.core.tokens import new_id
from authsvc.store.database import Database, Page, Transaction, Written
from authsvc.store.records import ground_of
from authsvc.store.repositories.lists import read_one, take_one
from authsvc.store.repositories.tokens import insert_token, read_token, revoke, token_page


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
        """Create a token of the ground. Raises NotFound (ground), Conflict ``already_exists`` (digest)."""

        def work(tx: Transaction) -> Token:
            owner: Ground = take_one(tx, "ground", "ground", ground_of, ground, tenant=tenant, key=ground)
            token = Token(
                id=new_id(),
                tenant=tenant,
                kind=TokenKind.GROUND,
                name=name,
                ground=owner.key,
                access=access,
                prefix=prefix,
                expires_at_us=expires_at_us,
                created_at_us=tx.now_us,
            )
            return insert_token(tx, token, digest)

        return await self._database.write(work)

    async def get(self, tenant: str, ground: str, id: str) -> Token:
        """Return the token, revoked or not. Raises NotFound."""
        return await read_token(self._database, tenant, TokenKind.GROUND, id, ground=ground)

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
        """Return a page of the ground's tokens. Raises NotFound (ground)."""
        await read_one(self._database, "ground", "ground", ground_of, ground, tenant=tenant, key=ground)
        return await token_page(
            self._database, tenant, TokenKind.GROUND, limit=limit, cursor=cursor, q=q, revoked=revoked, ground=ground
        )

    async def delete(self, tenant: str, ground: str, id: str) -> Written[None]:
        """Revoke the token and wipe what rests on it. Raises NotFound."""
        return await self._database.write(lambda tx: revoke(tx, tenant, TokenKind.GROUND, id, ground=ground))
