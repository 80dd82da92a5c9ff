"""When things end by themselves: one heap and one timer for all, right even when the wall clock jumps."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import structlog

T = TypeVar("T", bound=Hashable)

log = structlog.get_logger(__name__)

TICK_S = 0.5  # how soon a jump of the wall clock is noticed
JUMP_US = 1_000_000  # less is drift
_BATCH = 100  # ends in one turn of the loop


class Expiry(Generic[T]):
    """Calls `expired(item)` once an item's time has come, at most `TICK_S` late; an item has one time or none.

    The time has come when the wall clock says so or when as much time has passed as was left when it was scheduled:
    a clock that is set forward ends items at once, one that is set back prolongs nothing.
    """

    def __init__(
        self, *, now_us: Callable[[], int], monotonic: Callable[[], float], expired: Callable[[T], None]
    ) -> None:
        self._now_us = now_us
        self._monotonic = monotonic
        self._expired = expired
        self._heap: list[tuple[float, int, T]] = []  # (monotonic deadline, number, item); stale ones stay until met
        self._current: dict[T, tuple[int, float, int]] = {}  # item -> (number, deadline, wall clock time)
        self._number = 0
        self._offset_us = now_us() - int(monotonic() * 1_000_000)
        self._sooner = asyncio.Event()

    def __len__(self) -> int:
        return len(self._current)

    def schedule(self, item: T, at_us: int | None) -> None:
        """Set or replace the item's time; None cancels it."""
        if at_us is None:
            self.cancel(item)
            return
        current = self._current.get(item)
        if current is not None and current[2] == at_us:
            return  # what was left then still is: asked again, a clock that was set back would prolong it
        self._push(item, at_us, self._monotonic() + (at_us - self._now_us()) / 1_000_000)
        if self._heap[0][2] is item:
            self._sooner.set()

    def cancel(self, item: T) -> None:
        """Forget the item's time, if it has one."""
        self._current.pop(item, None)
        if len(self._heap) > 2 * len(self._current) + 1_000:
            self._rebuild()

    def due(self, limit: int = _BATCH) -> int:
        """End up to `limit` items whose time has come and return how many."""
        self._watch_the_clock()
        now = self._monotonic()
        count = 0
        while self._heap and self._heap[0][0] <= now and count < limit:
            _, number, item = heapq.heappop(self._heap)
            current = self._current.get(item)
            if current is None or current[0] != number:
                continue
            del self._current[item]
            self._expired(item)
            count += 1
        return count

    async def run(self) -> None:
        """End items as their time comes, for ever."""
        while True:
            if self.due() == _BATCH:
                await asyncio.sleep(0)  # others are served between batches
                continue
            wait_s = min(TICK_S, max(0.0, self._heap[0][0] - self._monotonic())) if self._heap else TICK_S
            self._sooner.clear()
            try:
                await asyncio.wait_for(self._sooner.wait(), wait_s + 0.001)
            except TimeoutError:
                continue

    def _push(self, item: T, at_us: int, deadline: float) -> None:
        self._number += 1
        self._current[item] = (self._number, deadline, at_us)
        heapq.heappush(self._heap, (deadline, self._number, item))

    def _watch_the_clock(self) -> None:
        offset_us = self._now_us() - int(self._monotonic() * 1_000_000)
        jump_us = offset_us - self._offset_us
        if abs(jump_us) < JUMP_US:
            return
        self._offset_us = offset_us
        log.warning("clock_jumped", seconds=round(jump_us / 1_000_000, 1))
        if jump_us > 0:
            now, wall = self._monotonic(), self._now_us()
            for item, (_, deadline, at_us) in tuple(self._current.items()):
                self._push(item, at_us, min(deadline, now + (at_us - wall) / 1_000_000))
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(deadline, number, item) for item, (number, deadline, _) in self._current.items()]
        heapq.heapify(self._heap)
