"""Locks by key, first come first served, that leave nothing behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLocks(Generic[K]):
    """One FIFO lock per key; a key that nobody holds takes no memory. Not reentrant; for one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[K, deque[asyncio.Future[None]]] = {}  # a key is held while it is in here

    def __len__(self) -> int:
        """Return how many keys are held."""
        return len(self._waiting)

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[None]:
        """Hold the lock of `key`. A waiter that is cancelled gives up its place."""
        queue = self._waiting.get(key)
        if queue is None:
            self._waiting[key] = deque()
        else:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._hand_on(key)  # the lock came in the same turn as the cancellation
                elif place in queue:  # whoever let go in this turn has passed over it already
                    queue.remove(place)
                raise
        try:
            yield
        finally:
            self._hand_on(key)

    def _hand_on(self, key: K) -> None:
        queue = self._waiting[key]
        while queue:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._waiting[key]
