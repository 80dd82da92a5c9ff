"""Locks by key, first come first served, that leave nothing behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLocks(Generic[K]):
    """One FIFO lock per key; a key that nobody holds takes no memory. Not reentrant; for one event loop."""

    def __init__(self) -> None:
        # A key is held while it is in here; None: nobody has waited for it yet.
        self._waiting: dict[K, deque[asyncio.Future[None]] | None] = {}

    def __len__(self) -> int:
        """Return how many keys are held."""
        return len(self._waiting)

    def hold(self, key: K) -> AbstractAsyncContextManager[None]:
        """Hold the lock of `key`. A waiter that is cancelled gives up its place."""
        return _Held(self, key)

    def try_take(self, key: K) -> bool:
        """Take the lock if it is free, and return whether it was; whoever has it gives it back by `give`."""
        if key in self._waiting:
            return False
        self._waiting[key] = None
        return True

    async def wait(self, key: K) -> None:
        """Wait for a lock that is not free; whoever has it gives it back by `give`."""
        queue = self._waiting[key]
        if queue is None:
            queue = self._waiting[key] = deque()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give(key)  # the lock came in the same turn as the cancellation
            elif place in queue:  # whoever let go in this turn has passed over it already
                queue.remove(place)
            raise

    def give(self, key: K) -> None:
        """Hand the lock on to who waits longest."""
        queue = self._waiting[key]
        while queue:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._waiting[key]


class _Held(AbstractAsyncContextManager[None]):
    """One lock while it is held; a class, for a generator costs more than the lock."""

    __slots__ = ("_key", "_locks")

    def __init__(self, locks: KeyedLocks[K], key: K) -> None:
        self._locks: KeyedLocks[K] = locks
        self._key: K = key

    async def __aenter__(self) -> None:
        if not self._locks.try_take(self._key):
            await self._locks.wait(self._key)

    async def __aexit__(self, *_: object) -> None:
        self._locks.give(self._key)
