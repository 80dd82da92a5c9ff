"""Which filters a broker was allowed by rules with sets, where it judges subscriptions once and deliveries never.

A set changes without a new grant: who leaves it must not be received by a filter that was granted while he was in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from authsvc.core.facts import Effect, KeySet, RuleAction
from authsvc.core.policy import Action, Grant

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

    def __len__(self) -> int:
        return len(self._held)

    def restored(self, client_id: str) -> None:
        """Note that the broker may keep filters of the client id that nobody here knows."""
        self._before.add(client_id)

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


def _denies(grant: Grant) -> bool:
    """Return whether somebody who joins a set may be denied by it."""
    return any(
        rule.filter.sets and rule.effect is Effect.DENY and rule.action is RuleAction.SUBSCRIBE for rule in grant.rules
    )


def _all_allowed(held: _Held) -> bool:
    return all(
        held.grant.decide(Action.SUBSCRIBE, filter_, deliveries_checked=False).allowed for filter_ in held.filters
    )
