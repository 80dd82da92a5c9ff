"""What the three kinds of token share: inserting with a first secret, listing, revoking.

The caller mints; only digest and prefix come here. A revoked token leaves the lists and stays on record.
"""

from __future__ import annotations

from authsvc.core.errors import Conflict, NotFound
from authsvc.core.facts import Kind, Name, Token, TokenKind
from authsvc.core.tokens import DIGEST_BEGINS, new_id
from authsvc.store.database import ConstraintFailed, Database, Page, Transaction
from authsvc.store.endings import revoke_token
from authsvc.store.records import token_of, token_values
from authsvc.store.repositories.lists import page_of, take_one


def insert_token(tx: Transaction, token: Token, digest: bytes) -> Token:
    """Insert the token with its first secret. Raises Conflict ``already_exists`` if the digest is known."""
    tx.run("insert_token", **token_values(token))
    insert_secret(tx, token, digest)
    detail = {"kind": token.kind.value, "thing": token.thing, "ground": token.ground}
    tx.change(Name(Kind.TOKEN, token.tenant, token.id), "created", detail)
    return token


def insert_secret(tx: Transaction, token: Token, digest: bytes) -> None:
    """Add a secret to the token. Raises Conflict ``already_exists`` if the digest is known.

    Its change row tells the beginning of its digest, for those who remember which secrets there are.
    """
    id_ = new_id()
    try:
        tx.run("insert_secret", id=id_, token_id=token.id, digest=digest)
    except ConstraintFailed:
        raise Conflict("already_exists", "a token with this secret exists already") from None
    detail = {"token_id": token.id, "digest_begins": digest[:DIGEST_BEGINS].hex()}
    tx.change(Name(Kind.SECRET, token.tenant, id_), "created", detail)


def take_token(tx: Transaction, tenant: str, kind: TokenKind, id: str, *, thing: str = "", ground: str = "") -> Token:
    """Return the token of this kind (and thing, or ground), revoked ones too. Raises NotFound."""
    return _own(take_one(tx, "token", "token", token_of, id, tenant=tenant, id=id), kind, thing, ground)


async def read_token(
    database: Database, tenant: str, kind: TokenKind, id: str, *, thing: str = "", ground: str = ""
) -> Token:
    """Return the token of this kind (and thing, or ground), revoked ones too. Raises NotFound."""
    rows = await database.read("token", tenant=tenant, id=id)
    if not rows:
        raise NotFound("token", id)
    return _own(token_of(rows[0]), kind, thing, ground)


def _own(token: Token, kind: TokenKind, thing: str, ground: str) -> Token:
    if token.kind is not kind or (thing and token.thing != thing) or (ground and token.ground != ground):
        raise NotFound("token", token.id)
    return token


def revoke(tx: Transaction, tenant: str, kind: TokenKind, id: str, *, thing: str = "", ground: str = "") -> None:
    """Revoke the token. Raises NotFound, also for one that is revoked already: it has left."""
    token = take_token(tx, tenant, kind, id, thing=thing, ground=ground)
    if token.revoked_at_us is not None:
        raise NotFound("token", id)
    revoke_token(tx, token)


async def token_page(
    database: Database,
    tenant: str,
    kind: TokenKind,
    *,
    limit: int,
    cursor: str | None,
    q: str | None,
    revoked: bool,
    thing: str = "",
    ground: str = "",
) -> Page[Token]:
    """Return a page in the order of ids, of the living tokens or of the revoked ones."""
    return await page_of(
        database,
        "tokens",
        token_of,
        lambda token: token.id,
        limit=limit,
        cursor=cursor,
        q=q,
        tenant=tenant,
        kind=kind.value,
        revoked=int(revoked),
        thing=thing,
        ground=ground,
    )
