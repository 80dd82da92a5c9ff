"""The facts of an admission, read through bounded caches that the change feed invalidates.

An entry is kept only if no change that names it was applied since its read began; what does not exist is never kept,
so that a token, a thing or a role is known the moment its change is applied, and nobody fills memory with guesses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from authsvc.core.facts import (
    Change,
    Ground,
    Kind,
    Name,
    Retired,
    Role,
    Secret,
    Tenant,
    Thing,
    ThingDefinition,
    Token,
)
from authsvc.known_secrets import KnownSecrets
from authsvc.sessions import tenant_name
from authsvc.shared_reads import SharedReads
from authsvc.store import Store

K = TypeVar("K")
V = TypeVar("V")

SMALL = 10_000  # tenants, grounds, definitions and roles: few, and shared by many things

Pair = tuple[Token, Secret]


class Cache(Generic[K, V]):
    """A bounded dictionary that drops its oldest entry; a plain one is what a CONNECT has time for."""

    __slots__ = ("_entries", "_max", "get")

    def __init__(self, max_entries: int) -> None:
        self._entries: dict[K, V] = {}
        self._max = max_entries
        self.get = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V) -> V | None:
        """Keep the value; return the one that had to go, if one had to."""
        if self._max <= 0:
            return value
        self._entries[key] = value
        if len(self._entries) > self._max:
            return self._entries.pop(next(iter(self._entries)))
        return None

    def drop(self, key: K) -> V | None:
        return self._entries.pop(key, None)

    def drop_where(self, gone: Callable[[K, V], bool]) -> list[V]:
        """Drop the entries of which `gone` is true, and return their values."""
        return [self._entries.pop(key) for key, value in tuple(self._entries.items()) if gone(key, value)]


class Facts:
    """What the store knows, or a cache of it. Every read raises StoreUnavailable.

    `position` is the feed's, `touched_since(position, names)` its answer whether a later change named one of them.
    """

    def __init__(
        self,
        store: Store,
        *,
        position: Callable[[], int],
        touched_since: Callable[[int, Iterable[Name]], bool],
        known_secrets: KnownSecrets,
        max_things: int = 100_000,
    ) -> None:
        self._store = store
        self._known_secrets = known_secrets
        self._position = position
        self._touched_since = touched_since
        self._reads = SharedReads(position)
        self._pairs: Cache[bytes, Pair] = Cache(max_things)
        self._digests: dict[str, set[bytes]] = {}  # token id and secret id -> digests of the pairs that name it
        self._tokens: Cache[tuple[str, str], Token] = Cache(max_things)
        self._things: Cache[tuple[str, str], Thing] = Cache(max_things)
        self._tenants: Cache[str, Tenant] = Cache(SMALL)
        self._grounds: Cache[tuple[str, str], Ground] = Cache(SMALL)
        self._definitions: Cache[tuple[str, str], ThingDefinition] = Cache(SMALL)
        self._roles: Cache[tuple[str, str], Role] = Cache(SMALL)

    async def token_by_digest(self, digest: bytes) -> Pair | None:
        """Return the token and the secret with this digest, ended ones too."""
        pair = self._pairs.get(digest)
        if pair is None:
            if self._known_secrets.surely_unknown(digest):
                return None
            position = self._position()
            pair = await self._reads.ask(digest, lambda: self._store.token_by_digest(digest))
            if pair is not None:
                token, secret = pair
                names = (
                    Name(Kind.TOKEN, token.tenant, token.id),
                    Name(Kind.SECRET, token.tenant, secret.id),
                    tenant_name(token.tenant),  # one row stands for the end of all that was in a tenant
                )
                if not self._touched_since(position, names):
                    self._keep_pair(digest, pair)
        return pair

    async def token(self, tenant: str, id_: str) -> Token | None:
        return await self._read(self._tokens, (tenant, id_), Kind.TOKEN, self._store.token)

    async def thing(self, tenant: str, key: str) -> Thing | None:
        return await self._read(self._things, (tenant, key), Kind.THING, self._store.thing)

    async def thing_or_retired(self, tenant: str, key: str) -> Thing | Retired | None:
        """Return the thing, or whether its key is remembered as deleted, which is never cached."""
        found = self._things.get((tenant, key))
        if found is not None:
            return found
        position = self._position()
        answer = await self._store.thing_or_retired(tenant, key)
        if isinstance(answer, Thing):
            self._keep(self._things, (tenant, key), Kind.THING, answer, position)
        return answer

    async def ground(self, tenant: str, key: str) -> Ground | None:
        return await self._read(self._grounds, (tenant, key), Kind.GROUND, self._store.ground)

    async def definition(self, tenant: str, key: str) -> ThingDefinition | None:
        return await self._read(self._definitions, (tenant, key), Kind.DEFINITION, self._store.definition)

    async def role(self, tenant: str, key: str) -> Role | None:
        """Return a tenant's role, or the platform role if `tenant` is empty."""
        kind = Kind.ROLE if tenant else Kind.PLATFORM_ROLE
        return await self._read(self._roles, (tenant, key), kind, self._store.role)

    async def tenant(self, key: str) -> Tenant | None:
        found = self._tenants.get(key)
        if found is None:
            position = self._position()
            found = await self._reads.ask((Kind.TENANT, key), lambda: self._store.tenant(key))
            if found is not None and not self._touched_since(position, (tenant_name(key),)):
                self._tenants.put(key, found)
        return found

    def apply(self, change: Change) -> None:
        """Drop what the change names."""
        kind, tenant, key = change.name
        match kind:
            case Kind.TOKEN:
                self._tokens.drop((tenant, key))
                self._drop_pairs(key)
            case Kind.SECRET:
                self._drop_pairs(key)
            case Kind.THING:
                self._things.drop((tenant, key))
            case Kind.TENANT:
                self._tenants.drop(key)
                if change.op == "deleted":
                    self._drop_all_of(key)
            case Kind.GROUND:
                self._grounds.drop((tenant, key))
            case Kind.DEFINITION:
                self._definitions.drop((tenant, key))
            case Kind.ROLE | Kind.PLATFORM_ROLE:
                self._roles.drop((tenant, key))
            case Kind.LICENSE | Kind.ADMIN_KEY | Kind.CLEARING:
                pass  # never read through a cache

    async def _read(
        self,
        cache: Cache[tuple[str, str], V],
        key: tuple[str, str],
        kind: Kind,
        read: Callable[[str, str], Awaitable[V | None]],
    ) -> V | None:
        found = cache.get(key)
        if found is None:
            position = self._position()
            found = await self._reads.ask((kind, *key), lambda: read(*key))
            if found is not None:
                self._keep(cache, key, kind, found, position)
        return found

    def _keep(
        self, cache: Cache[tuple[str, str], V], key: tuple[str, str], kind: Kind, found: V, position: int
    ) -> None:
        """Keep what was read after `position`, unless a change since may have made it old."""
        if not self._touched_since(position, (Name(kind, *key), tenant_name(key[0]))):
            cache.put(key, found)

    def _drop_all_of(self, tenant: str) -> None:
        """Drop what was in a tenant that is no more: another may get its key, and must not find it."""
        for pair in self._pairs.drop_where(lambda _, pair: pair[0].tenant == tenant):
            self._forget_digest(pair)
        for cache in (self._tokens, self._things, self._grounds, self._definitions, self._roles):
            cache.drop_where(lambda key, _: key[0] == tenant)

    def _keep_pair(self, digest: bytes, pair: Pair) -> None:
        for id_ in (pair[0].id, pair[1].id):
            self._digests.setdefault(id_, set()).add(digest)
        gone = self._pairs.put(digest, pair)
        if gone is not None:
            self._forget_digest(gone)

    def _drop_pairs(self, id_: str) -> None:
        for digest in tuple(self._digests.get(id_, ())):
            pair = self._pairs.drop(digest)
            if pair is not None:
                self._forget_digest(pair)

    def _forget_digest(self, pair: Pair) -> None:
        for id_ in (pair[0].id, pair[1].id):
            digests = self._digests.get(id_)
            if digests is not None:
                digests.discard(pair[1].digest)
                if not digests:
                    del self._digests[id_]
