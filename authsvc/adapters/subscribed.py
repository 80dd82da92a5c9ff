"""Which filters a broker was allowed by rules with sets, where it judges subscriptions once and deliveries never.

A set changes without a new grant: who leaves it must not be received by a filter that was granted while he was in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from authsvc.core.facts import Change, Effect, KeySet, Kind, RuleAction
from authsvc.core.policy import Action, Grant
from authsvc.core.topics import SetLevel
from authsvc.sets import Owner, moves_of

if TYPE_CHECKING:
    from authsvc.adapters.rows import Rows

MOST: Final = 1_000  # filters of one client id that are told apart


@dataclass(slots=True)
class _Held:
    grant: Grant
    filters: set[str] = field(default_factory=set)
    unknown: bool = False  # more, from before the service was started


class Subscribed:
    """The filters by client id, for as long as the broker may keep them: connected or not."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._by_set: WeakKeyDictionary[KeySet, set[str]] = WeakKeyDictionary()
        self._sizes: WeakKeyDictionary[KeySet, int] = WeakKeyDictionary()
        self._before: set[str] = set()
        self._left: set[Owner] = set()  # the sets that somebody left or joined since the start
        self._joined: set[Owner] = set()

    def __len__(self) -> int:
        return len(self._held)

    def restored(self, client_id: str) -> None:
        """Note that the broker may keep filters of the client id that nobody here knows."""
        self._before.add(client_id)

    def apply(self, change: Change) -> None:
        """Note which sets change: those of clients that are away since before the start are in nobody's use here."""
        if self._before:
            for move in moves_of(change):
                (self._joined if move.joins else self._left).add(move.owner)

    def is_doubtful(self, client_id: str, grant: Grant) -> bool:
        """Return whether a set of the grant of a client id that is away since before the start has changed since.

        Then the broker may keep filters which it would not be allowed any more, and nobody here knows them.
        """
        if client_id not in self._before or client_id in self._held:
            return False
        owners = {_owner_of(grant, level) for level in grant.sets}
        return not owners.isdisjoint(self._left) or (_denies(grant) and not owners.isdisjoint(self._joined))

    def opened(self, client_id: str, grant: Grant) -> None:
        """Judge what the client id holds by this grant from now on."""
        if not grant.sets:
            return
        held = self._held.get(client_id)
        if held is not None:
            held.grant = grant
        elif client_id in self._before:
            held = self._held[client_id] = _Held(grant, unknown=True)
        else:
            return
        self._watch(client_id, grant)

    def granted(self, client_id: str, grant: Grant, filter_: str) -> None:
        """Note that the broker was allowed to subscribe the client to the filter."""
        if not grant.sets:
            return
        held = self._held.setdefault(client_id, _Held(grant))
        held.grant = grant
        if len(held.filters) < MOST:
            held.filters.add(filter_)
        elif filter_ not in held.filters:
            held.unknown = True
        self._watch(client_id, grant)

    def forget(self, client_id: str) -> None:
        """Note that the broker keeps nothing of the client id."""
        self._held.pop(client_id, None)
        self._before.discard(client_id)

    def keep_only(self, rows: Rows) -> None:
        """Forget every client id that has no row."""
        for client_id in [known for known in (*self._held, *self._before) if rows.get(known) is None]:
            self.forget(client_id)
        if not self._before:
            self._left.clear()
            self._joined.clear()

    def lost(self, keys: KeySet) -> list[str]:
        """Return, and forget, the client ids that hold a filter which the set as it is now does not allow them."""
        watching = self._by_set.get(keys)
        if watching is None:
            return []
        size = len(keys)
        shrunk, self._sizes[keys] = size < self._sizes[keys], size
        lost = []
        for client_id in tuple(watching):
            held = self._held.get(client_id)
            if held is None or keys not in held.grant.sets.values():
                watching.discard(client_id)
            elif (shrunk or _denies(held.grant)) and (held.unknown or not _all_allowed(held)):
                lost.append(client_id)
                self.forget(client_id)
        return lost

    def _watch(self, client_id: str, grant: Grant) -> None:
        for keys in grant.sets.values():
            self._sizes.setdefault(keys, len(keys))
            self._by_set.setdefault(keys, set()).add(client_id)


def _owner_of(grant: Grant, level: SetLevel) -> Owner:
    if level is SetLevel.MEMBER:
        return Owner(Kind.GROUND, grant.tenant, grant.ground)
    return Owner(Kind.THING, grant.tenant, grant.thing or "")


def _denies(grant: Grant) -> bool:
    """Return whether somebody who joins a set may be denied by it."""
    return any(
        rule.filter.sets and rule.effect is Effect.DENY and rule.action is RuleAction.SUBSCRIBE for rule in grant.rules
    )


def _all_allowed(held: _Held) -> bool:
    return all(
        held.grant.decide(Action.SUBSCRIBE, filter_, deliveries_checked=False).allowed for filter_ in held.filters
    )
