"""App tokens: shared by many devices, they say what a first connection registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from authsvc.core.errors import InvalidInput, NotFound
from authsvc.core.facts import Kind, Name, Token, TokenKind
from authsvc.core.tokens import new_id
from authsvc.store.database import KEEP, Database, Keep, Page, Transaction, Written
from authsvc.store.endings import end_secrets
from authsvc.store.records import token_values
from authsvc.store.repositories.lists import changed
from authsvc.store.repositories.references import (
    require_definition,
    require_ground,
    require_license,
    require_role,
    require_tenant,
)
from authsvc.store.repositories.tokens import (
    insert_secret,
    insert_token,
    read_token,
    revoke,
    take_token,
    token_page,
)


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
        """Create a token; `auto_register` None registers exactly when it names a definition.

        Raises:
            InvalidInput: ``reference_unknown``, ``definition_required``, ``max_things_invalid``.
            NotFound: no such tenant. Conflict: ``already_exists`` (digest).
        """

        def work(tx: Transaction) -> Token:
            require_tenant(tx, tenant)
            token = Token(
                id=new_id(),
                tenant=tenant,
                kind=TokenKind.APP,
                name=name,
                expires_at_us=expires_at_us,
                created_at_us=tx.now_us,
                prefix=prefix,
                definition=definition,
                ground=ground,
                roles=tuple(roles),
                tags=tuple(tags),
                security_tags=tuple(security_tags),
                license=license,
                auto_register=bool(definition) if auto_register is None else auto_register,
                max_things=max_things,
            )
            _check(tx, token)
            return insert_token(tx, token, digest)

        return await self._database.write(work)

    async def get(self, tenant: str, id: str) -> Token:
        """Return the token, revoked or not. Raises NotFound."""
        return await read_token(self._database, tenant, TokenKind.APP, id)

    async def list(
        self,
        tenant: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        q: str | None = None,
        revoked: bool = False,
    ) -> Page[Token]:
        """Return a page in the order of ids, of the living tokens or of the revoked ones."""
        return await token_page(self._database, tenant, TokenKind.APP, limit=limit, cursor=cursor, q=q, revoked=revoked)

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
        max_things: int | Keep | None = KEEP,
        expires_at_us: int | Keep | None = KEEP,
    ) -> Written[Token]:
        """Change the token; things that it registered keep what they got. Raises NotFound, InvalidInput as `create`."""
        given = {
            "name": name,
            "definition": definition,
            "ground": ground,
            "roles": roles if isinstance(roles, Keep) else tuple(roles),
            "tags": tags if isinstance(tags, Keep) else tuple(tags),
            "security_tags": security_tags if isinstance(security_tags, Keep) else tuple(security_tags),
            "license": license,
            "auto_register": auto_register,
            "max_things": max_things,
            "expires_at_us": expires_at_us,
        }

        def work(tx: Transaction) -> Token:
            before = _take_living(tx, tenant, id)
            fields = changed(before, given)
            if not fields:
                return before
            after: Token = replace(before, **fields)  # type: ignore[arg-type]
            _check(tx, after)
            tx.run("update_token", **token_values(after))
            detail = {"fields": sorted(fields), "kind": after.kind.value, "ground": after.ground}
            tx.change(Name(Kind.TOKEN, tenant, id), "updated", detail)
            return after

        return await self._database.write(work)

    async def regenerate(
        self, tenant: str, id: str, *, digest: bytes, prefix: str, overlap_us: int = 0
    ) -> Written[Token]:
        """Give the token a new secret; the living ones end now (what rests on them is wiped) or after the overlap.

        Raises:
            NotFound: no such token, or revoked. Conflict: ``already_exists`` (digest).
        """

        def work(tx: Transaction) -> Token:
            token = replace(_take_living(tx, tenant, id), prefix=prefix)
            end_secrets(tx, token, overlap_us=overlap_us)
            insert_secret(tx, token, digest)
            tx.run("update_token", **token_values(token))
            return token

        return await self._database.write(work)

    async def delete(self, tenant: str, id: str) -> Written[None]:
        """Revoke the token and wipe what rests on it. Raises NotFound."""
        return await self._database.write(lambda tx: revoke(tx, tenant, TokenKind.APP, id))


def _take_living(tx: Transaction, tenant: str, id: str) -> Token:
    token = take_token(tx, tenant, TokenKind.APP, id)
    if token.revoked_at_us is not None:
        raise NotFound("token", id)
    return token


def _check(tx: Transaction, token: Token) -> None:
    if token.definition:
        require_definition(tx, token.tenant, token.definition)
    elif token.auto_register:
        detail = "a token that registers things must say of which definition: give `thing_definition`"
        raise InvalidInput("definition_required", detail, field="thing_definition")
    if token.ground:
        require_ground(tx, token.tenant, token.ground)
    if token.license:
        require_license(tx, token.tenant, token.license)
    for number, role in enumerate(token.roles):
        require_role(tx, token.tenant, role, field=f"roles.{number}")
    if token.max_things is not None and not 0 <= token.max_things < 2**63:
        detail = f"`max_things` is {token.max_things}; it must be 0 or more"
        raise InvalidInput("max_things_invalid", detail, field="max_things")
