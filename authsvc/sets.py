"""The changing sets that grants refer to: a gateway's modules, a ground's members; each is one object for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple
from weakref import WeakValueDictionary

from authsvc.core.facts import Change, KeySet, Kind, ThingState
from authsvc.locks import KeyedLocks
from authsvc.store import Store


class Owner(NamedTuple):
    """Whose set it is."""

    kind: Kind  # THING: the modules of a gateway; GROUND: the members of a ground
    tenant: str
    key: str


class Move(NamedTuple):
    """Who joins or leaves which set."""

    owner: Owner
    thing: str | None  # None: everybody leaves
    joins: bool


class Sets:
    """Makes a set when the first grant needs it, keeps it true from the feed, and lets it go with the last grant."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sets: WeakValueDictionary[Owner, KeySet] = WeakValueDictionary()
        self._loading: dict[Owner, list[Move]] = {}  # what was applied while the set is being read
        self._locks: KeyedLocks[Owner] = KeyedLocks()
        self._watchers: list[Callable[[KeySet], None]] = []

    def __len__(self) -> int:
        return len(self._sets)

    def watch(self, changed: Callable[[KeySet], None]) -> None:
        """Have `changed` called with a set that is in use whenever it may have changed, in the same step."""
        self._watchers.append(changed)

    async def modules_of(self, tenant: str, gateway: str) -> KeySet:
        """Return the set of the gateway's modules. Raises StoreUnavailable."""
        return await self._get(Owner(Kind.THING, tenant, gateway))

    async def members_of(self, tenant: str, ground: str) -> KeySet:
        """Return the set of the ground's things. Raises StoreUnavailable."""
        return await self._get(Owner(Kind.GROUND, tenant, ground))

    def joined(self, tenant: str, ground: str, thing: str) -> None:
        """Take a registration whose change is not applied yet: the thing may use its grant at once."""
        known = self._sets.get(Owner(Kind.GROUND, tenant, ground))
        if known is not None:
            known.add(thing)
            self._say_changed(known)

    def apply(self, change: Change) -> None:
        """Let things join and leave the sets that are in use or being read."""
        if not self._sets and not self._loading:
            return
        for move in self._all_leave(change.name.key) if _is_end_of_tenant(change) else moves_of(change):
            known = self._sets.get(move.owner)
            if known is not None:
                _apply(known, move)
                self._say_changed(known)
            while_loading = self._loading.get(move.owner)
            if while_loading is not None:
                while_loading.append(move)

    def _say_changed(self, keys: KeySet) -> None:
        for changed in self._watchers:
            changed(keys)

    def _all_leave(self, tenant: str) -> list[Move]:
        """Return the moves that empty every set of a tenant: one row stands for the end of all that was in it."""
        owners = {*self._sets.keys(), *self._loading}
        return [Move(owner, None, joins=False) for owner in owners if owner.tenant == tenant]

    async def _get(self, owner: Owner) -> KeySet:
        found = self._sets.get(owner)
        if found is not None:
            return found
        async with self._locks.hold(owner):
            found = self._sets.get(owner)
            if found is None:
                found = await self._load(owner)
                self._sets[owner] = found
        return found

    async def _load(self, owner: Owner) -> KeySet:
        """Read the set and repeat what was applied meanwhile: it may or may not be in what was read."""
        moves = self._loading[owner] = []
        try:
            read = self._store.modules_of if owner.kind is Kind.THING else self._store.members_of
            loaded = KeySet(await read(owner.tenant, owner.key))
        finally:
            del self._loading[owner]
        for move in moves:
            _apply(loaded, move)
        return loaded


def _apply(keys: KeySet, move: Move) -> None:
    if move.thing is None:
        keys.replace(frozenset())
    elif move.joins:
        keys.add(move.thing)
    else:
        keys.discard(move.thing)


def _is_end_of_tenant(change: Change) -> bool:
    return change.name.kind is Kind.TENANT and change.op == "deleted"


def moves_of(change: Change) -> Iterator[Move]:
    """Yield who joins and leaves which set by this change; a row says it all, so that nothing is read here."""
    kind, tenant, key = change.name
    if kind is not Kind.THING:
        return
    detail = change.detail
    if change.op in ("registered", "created", "revived"):
        yield from _both(tenant, key, ground=detail.get("ground"), gateway=detail.get("gateway"), joins=True)
    elif change.op == "deleted":
        yield from _both(tenant, key, ground=detail.get("ground"), gateway=detail.get("gateway"), joins=False)
    elif change.op == "moved":
        yield from _both(tenant, key, ground=detail.get("from"), gateway=None, joins=False)
        yield from _both(tenant, key, ground=detail.get("to"), gateway=None, joins=True)
    elif change.op in ("blocked", "unblocked"):  # nobody speaks for a blocked module; it stays where it is
        yield from _both(tenant, key, ground=None, gateway=detail.get("gateway"), joins=change.op == "unblocked")
    if change.op != "deleted":
        yield from _both(tenant, key, ground=None, gateway=detail.get("gateway_from"), joins=False)
        if detail.get("state") != ThingState.BLOCKED:
            yield from _both(tenant, key, ground=None, gateway=detail.get("gateway_to"), joins=True)


def _both(tenant: str, thing: str, *, ground: object, gateway: object, joins: bool) -> Iterator[Move]:
    if isinstance(ground, str) and ground:
        yield Move(Owner(Kind.GROUND, tenant, ground), thing, joins)
    if isinstance(gateway, str) and gateway:
        yield Move(Owner(Kind.THING, tenant, gateway), thing, joins)
