"""Deadlines of many things that all have the same time: one timer for all of them, armed for the oldest.

A timer of its own for each of a thousand connections a second costs more than what it watches over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Calls `late(item)` when an item has been in here for `after_s`; who leaves in time is not heard of."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float, late: Callable[[T], None]) -> None:
        self._loop = loop
        self._after_s = after_s
        self._late = late
        self._times: dict[T, float] = {}  # oldest first, for the time is the same for all
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._times)

    @property
    def oldest(self) -> T:
        """The item that has been here longest; StopIteration where there is none."""
        return next(iter(self._times))

    def add(self, item: T) -> None:
        """Begin the time of an item that is not in here."""
        self._times[item] = self._loop.time() + self._after_s
        if self._timer is None:
            self._arm()

    def discard(self, item: T) -> None:
        """Forget an item, if it is in here. The timer stays: for the next one, or for nothing."""
        self._times.pop(item, None)

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._times[self.oldest], self._due)

    def _due(self) -> None:
        now = self._loop.time()
        try:
            while self._times and self._times[item := self.oldest] <= now:
                del self._times[item]
                self._late(item)
        finally:  # an accident with one of them is not the others'
            self._timer = None
            if self._times:
                self._arm()
