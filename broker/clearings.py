"""Clears upstream what the store says is to be cleared: wiped sessions, and retained messages below a blocked place.

From the commit that wipes a session nobody can resume it; what is left upstream is cleared here until that succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from authsvc.core.errors import StoreUnavailable, UpstreamUnavailable
from authsvc.store.clearings import Clearing, ClearingKind
from broker.packet_ids import SessionStates
from broker.upstream import Upstream

if TYPE_CHECKING:
    from authsvc.service import Service

log = structlog.get_logger(__name__)

AGAIN_AFTER_S = 2.0  # when the store or the broker did not answer
AT_LEAST_EVERY_S = 30.0  # a wake-up may be lost


class Clearer:
    """One task that works off the store's list. `in_use` are upstream ids that a connection holds: not now."""

    def __init__(self, service: Service, upstream: Upstream, states: SessionStates) -> None:
        self.in_use: set[str] = set()
        self._service = service
        self._upstream = upstream
        self._states = states
        self._wake = asyncio.Event()
        self._waits_for_release = False
        self._task: asyncio.Task[None] | None = None
        self._forget_callback: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin; idempotent."""
        if self._task is None:
            self._forget_callback = self._service.store.on_commit(self._wake.set)
            self._task = asyncio.create_task(self._run(), name="clearing upstream")

    async def stop(self) -> None:
        """End; what is left is cleared after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._forget_callback is not None:
            self._forget_callback()
            self._forget_callback = None

    def released(self, upstream_id: str) -> None:
        """The upstream session is held by no connection any more."""
        self.in_use.discard(upstream_id)
        if self._waits_for_release:
            self._wake.set()

    async def _run(self) -> None:
        self._wake.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AT_LEAST_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._work_off()
            except (StoreUnavailable, UpstreamUnavailable) as error:
                log.warning("clearing_waits", problem=str(error))
                await asyncio.sleep(AGAIN_AFTER_S)
                self._wake.set()

    async def _work_off(self) -> None:
        store = self._service.store
        while clearings := await store.clearings():
            # The connections that rested on what was wiped end first: who clears a session that is still held takes
            # it over, and a retained message may come after its clearing.
            await self._service.feed.settle(await store.last_position())
            done = 0
            self._waits_for_release = False
            for clearing in clearings:
                if clearing.kind is ClearingKind.SESSION and clearing.target in self.in_use:
                    self._waits_for_release = True
                    continue
                if await self._is_clear(clearing):
                    await store.cleared(clearing.id)
                    done += 1
            if not done:
                return

    async def _is_clear(self, clearing: Clearing) -> bool:
        """Clear it; False if that went wrong for itself alone: it stays on the list, and the others have their turn."""
        try:
            await self._clear(clearing)
        except UpstreamUnavailable:
            raise
        except Exception as error:  # whatever the broker made of it
            log.exception("clearing_failed", kind=clearing.kind.value, problem=type(error).__name__)
            return False
        return True

    async def _clear(self, clearing: Clearing) -> None:
        if clearing.kind is ClearingKind.SESSION:
            await self._upstream.clear_session(clearing.target)
            self._states.forget(clearing.target)
        else:
            await self._upstream.clear_retained(clearing.target)
