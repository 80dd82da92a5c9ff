"""Device tokens: each speaks for one thing."""

from __future__ import annotations

from authsvc.core.facts import Thing, Token, TokenKind
from authsvc.core.tokens import new_id
from authsvc.store.database import Database, Page, Transaction, Written
from authsvc.store.records import thing_of
from authsvc.store.repositories.lists import read_one, take_one
from authsvc.store.repositories.tokens import insert_token, read_token, revoke, token_page


class DeviceTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

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

        def work(tx: Transaction) -> Token:
            owner: Thing = take_one(tx, "thing", "thing", thing_of, thing, tenant=tenant, key=thing)
            token = Token(
                id=new_id(),
                tenant=tenant,
                kind=TokenKind.DEVICE,
                name=name,
                thing=owner.key,
                prefix=prefix,
                expires_at_us=expires_at_us,
                created_at_us=tx.now_us,
            )
            return insert_token(tx, token, digest)

        return await self._database.write(work)

    async def get(self, tenant: str, thing: str, id: str) -> Token:
        """Return the token, revoked or not. Raises NotFound."""
        return await read_token(self._database, tenant, TokenKind.DEVICE, id, thing=thing)

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
        """Return a page of the thing's tokens. Raises NotFound (thing)."""
        await read_one(self._database, "thing", "thing", thing_of, thing, tenant=tenant, key=thing)
        return await token_page(
            self._database, tenant, TokenKind.DEVICE, limit=limit, cursor=cursor, q=q, revoked=revoked, thing=thing
        )

    async def delete(self, tenant: str, thing: str, id: str) -> Written[None]:
        """Revoke the token and wipe what rests on it. Raises NotFound."""
        return await self._database.write(lambda tx: revoke(tx, tenant, TokenKind.DEVICE, id, thing=thing))
