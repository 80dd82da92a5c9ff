"""What device and ground tokens share: each belongs to one record, its thing or its ground, and is found below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from authsvc.core.facts import Token, TokenKind
from authsvc.core.tokens import new_id
from authsvc.store.database import Database, Page, Row, Transaction, Written
from authsvc.store.repositories.lists import read_one, take_one
from authsvc.store.repositories.tokens import insert_token, read_token, revoke, token_page


class OwnedTokens:
    """Tokens of one kind below their owners; `create` is the kind's own."""

    def __init__(
        self, database: Database, *, kind: TokenKind, owner: Literal["thing", "ground"], record: Callable[[Row], object]
    ) -> None:
        self._database = database
        self._kind = kind
        self._owner = owner
        self._record = record  # makes the owner of its row

    async def _create(self, token: Token, owner: str, digest: bytes) -> Written[Token]:
        """Insert the token, whose id and time are given here. Raises NotFound (owner), Conflict (digest)."""

        def work(tx: Transaction) -> Token:
            take_one(tx, self._owner, self._owner, self._record, owner, tenant=token.tenant, key=owner)
            return insert_token(tx, replace(token, id=new_id(), created_at_us=tx.now_us), digest)

        return await self._database.write(work)

    async def get(self, tenant: str, owner: str, id: str) -> Token:
        """Return the token, revoked or not. Raises NotFound."""
        return await read_token(self._database, tenant, self._kind, id, **{self._owner: owner})

    async def list(
        self,
        tenant: str,
        owner: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        q: str | None = None,
        revoked: bool = False,
    ) -> Page[Token]:
        """Return a page of the owner's tokens. Raises NotFound (owner)."""
        await read_one(self._database, self._owner, self._owner, self._record, owner, tenant=tenant, key=owner)
        below = {self._owner: owner}
        return await token_page(
            self._database, tenant, self._kind, limit=limit, cursor=cursor, q=q, revoked=revoked, **below
        )

    async def delete(self, tenant: str, owner: str, id: str) -> Written[None]:
        """Revoke the token and wipe what rests on it. Raises NotFound."""
        return await self._database.write(lambda tx: revoke(tx, tenant, self._kind, id, **{self._owner: owner}))
