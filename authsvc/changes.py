"""The change feed: what was committed, applied in this process in order — caches, then sets, then sessions.

    rows after `position` ──► touched names, caches, sets (one synchronous step) ──► ends ──► recompiled grants
                                                       position moves here               settled: here

A lost wake-up delays, never loses: the feed reads what stands after its position, and polls every half second.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Change, Kind, Name
from authsvc.sessions import tenant_name
from authsvc.store import Store

log = structlog.get_logger(__name__)

POLL_S = 0.5
UNHEALTHY_S = 2.0  # design section 4: a feed that could not be read for so long makes the caches unusable
SETTLE_S = 5.0  # an API call that waits longer answers 503: durable, not yet applied
READ_TIMEOUT_S = 1.5  # a read that hangs longer counts as failed, well before the feed counts as unhealthy
RETRY_S = 0.1
BATCH = 500
REMEMBERED = 20_000  # names of the latest changes; an admission that began before them starts again
READER = "service"


class Applier(Protocol):
    """Takes changes in one synchronous step: caches, sets, and what is remembered of a tenant."""

    def apply(self, change: Change) -> None: ...


class Follower(Protocol):
    """Works off what changes mean for live sessions; `take` is synchronous, `work` may read the store."""

    def take(self, change: Change) -> None: ...

    async def work(self, interrupted: Callable[[], bool]) -> None:
        """Do what was taken, until done or `interrupted`. Raises StoreUnavailable; what is left stays taken."""

    @property
    def unfinished(self) -> int | None:
        """The position of the first change that is not done, or None."""


class Touched:
    """Which records the latest changes named, by position; bounded, and honest about what it has forgotten."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._names: set[Name] = set()
        self._positions: dict[Name, list[int]] = {}
        self._log: deque[tuple[int, Name]] = deque()
        self.floor = 0  # changes up to here are forgotten

    def add(self, position: int, name: Name) -> None:
        self._names.add(name)
        self._positions.setdefault(name, []).append(position)
        self._log.append((position, name))
        if len(self._log) > self._remembered:
            self.floor, oldest = self._log.popleft()
            positions = self._positions[oldest]
            del positions[0]
            if not positions:
                del self._positions[oldest]
                self._names.discard(oldest)

    def since(self, position: int, names: Iterable[Name], except_: frozenset[int]) -> bool:
        """Return whether a change after `position`, none of `except_`, named one of `names` (True if unknown)."""
        if position < self.floor:
            return True
        for name in self._names.intersection(names):
            for at in reversed(self._positions[name]):
                if at <= position:
                    break
                if at not in except_:
                    return True
        return False


class ChangeFeed:
    """Reads and applies change rows. `position` is the last one that caches and sets have taken."""

    def __init__(
        self,
        store: Store,
        *,
        appliers: Sequence[Applier],
        follower: Follower,
        monotonic: Callable[[], float],
    ) -> None:
        self.position = 0
        self._store = store
        self._appliers = list(appliers)
        self._follower = follower
        self._monotonic = monotonic
        self._touched = Touched()
        self._wake = asyncio.Event()
        self._read_at = float("-inf")
        self._failing = False
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiter_number = 0

    @property
    def healthy(self) -> bool:
        """Whether the rows could be read within the last two seconds; otherwise no cache may be trusted."""
        return self._monotonic() - self._read_at < UNHEALTHY_S

    @property
    def settled_position(self) -> int:
        """Return the position up to which everything is applied: caches, sets, grants, sessions."""
        unfinished = self._follower.unfinished
        return self.position if unfinished is None else min(self.position, unfinished - 1)

    def follow(self, applier: Applier) -> None:
        """Have the applier take every change from now on, after those that were there before it."""
        self._appliers.append(applier)

    async def start(self) -> None:
        """Take up position at the end of the feed. Raises StoreUnavailable."""
        self.position = self._touched.floor = await self._store.last_position()
        self._read_at = self._monotonic()

    async def run(self) -> None:
        """Apply changes for ever; owned by the caller's task group."""
        cancel_wake_up = self._store.on_commit(self.wake)
        try:
            while True:
                await self._wait(await self._turn())
        finally:
            cancel_wake_up()

    def wake(self) -> None:
        """Look for new rows now."""
        self._wake.set()

    async def settle(self, position: int) -> None:
        """Return when every change up to `position` is applied in this process: caches, sets, grants, sessions.

        Raises:
            StoreUnavailable: it was not within 5 s; the change is durable and will be applied.
        """
        if position <= self.settled_position:
            return
        self._waiter_number += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (position, self._waiter_number, done))
        self.wake()
        try:
            async with asyncio.timeout(SETTLE_S):
                await done
        except TimeoutError:
            raise StoreUnavailable(
                f"change {position} is stored but was not applied within {SETTLE_S:.0f} s; "
                "it will be as soon as the store can be read"
            ) from None

    def touched_since(self, position: int, footing: Iterable[Name], except_: frozenset[int] = frozenset()) -> bool:
        """Return whether a change after `position`, none of `except_`, named a record of `footing`."""
        return position != self.position and self._touched.since(position, footing, except_)

    async def _turn(self) -> float:
        """Read one batch and do what is to be done; return how long to wait for the next turn unless woken."""
        self._wake.clear()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                changes = await self._store.changes_after(self.position, BATCH)
        except (StoreUnavailable, TimeoutError) as error:
            self._failed("change_feed_unreadable", error)
            return RETRY_S
        self._read_at = self._monotonic()
        for change in changes:
            self._apply(change)
        if changes:
            self._store.reader_passed(READER, self.position)
        try:
            await self._follower.work(self._interrupted)
        except StoreUnavailable as error:
            self._failed("change_not_applied", error)
            return RETRY_S
        finally:
            self._release_waiters()
        if self._failing:
            self._failing = False
            log.info("change_feed_recovered", position=self.position)
        return 0.0 if len(changes) == BATCH or self._follower.unfinished is not None else POLL_S

    def _apply(self, change: Change) -> None:
        if change.name.kind is Kind.TENANT:  # one spelling, whether the row names the tenant once or twice
            change = replace(change, name=tenant_name(change.name.key or change.name.tenant))
        self._touched.add(change.position, change.name)
        for applier in self._appliers:
            applier.apply(change)
        self._follower.take(change)
        self.position = change.position

    def _interrupted(self) -> bool:
        return self._wake.is_set() or self._monotonic() - self._read_at > POLL_S

    async def _wait(self, seconds: float) -> None:
        if seconds == 0.0 or (self._wake.is_set() and seconds != RETRY_S):
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                if seconds == RETRY_S:
                    await asyncio.sleep(seconds)  # wake-ups do not hurry what has just failed
                await self._wake.wait()
        except TimeoutError:
            return

    def _failed(self, event: str, error: BaseException) -> None:
        if not self._failing:
            self._failing = True
            log.error(event, position=self.position, error=str(error) or "the read took too long")

    def _release_waiters(self) -> None:
        settled = self.settled_position
        while self._waiters and (self._waiters[0][0] <= settled or self._waiters[0][2].done()):
            done = heapq.heappop(self._waiters)[2]
            if not done.done():
                done.set_result(None)
