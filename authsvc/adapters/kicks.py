"""Kicks on their way to one broker: sent at once, tried again until it said yes, never for a newer session.

A kick names a client id, for brokers know nothing else. So a CONNECT of that client id and its kick take turns under
one lock, and a CONNECT that comes while a kick is owed has it done first (`settle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from authsvc.adapters.management import Management, ManagementUnavailable

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16  # requests to the management under way
RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 30.0
KICK_S: Final = 15.0  # of one attempt, however slowly the management answers: it holds the client id's lock


class Kick:
    """One client id to be kicked; `wipe` also what the broker keeps of it."""

    __slots__ = ("client_id", "taken", "tries", "under_way", "wipe")

    def __init__(self, client_id: str, *, wipe: bool) -> None:
        self.client_id = client_id
        self.wipe = wipe
        self.tries = 0
        self.taken = False  # somebody waits for the client id's lock to send it, or sends it
        self.under_way = False


class Kicks:
    """The kicks of one broker. `done` is called when the broker said yes; `lock` gives the client id's lock."""

    def __init__(
        self,
        broker: str,
        management: Management,
        *,
        lock: Callable[[str], AbstractAsyncContextManager[None]],
        done: Callable[[str, bool], None],
    ) -> None:
        self._broker = broker
        self._management = management
        self._lock = lock
        self._done = done
        self._owed: dict[str, Kick] = {}
        self._queue: asyncio.Queue[Kick] = asyncio.Queue()
        self._timers: dict[Kick, asyncio.TimerHandle] = {}
        self.failing = False

    def __len__(self) -> int:
        """Return how many kicks the broker has not confirmed."""
        return len(self._owed)

    def add(self, client_id: str, *, wipe: bool) -> None:
        """Owe a kick, and send it as soon as possible."""
        kick = self._owed.get(client_id)
        if kick is not None and not kick.under_way:
            kick.wipe |= wipe
            return
        kick = self._owed[client_id] = Kick(client_id, wipe=wipe or (kick is not None and kick.wipe))
        self._queue.put_nowait(kick)

    def drop(self, client_id: str) -> None:
        """Owe it no more: the client id is a newer session's, and its connection ended the older one."""
        kick = self._owed.pop(client_id, None)
        timer = None if kick is None else self._timers.pop(kick, None)
        if timer is not None:
            timer.cancel()

    def owes(self, client_id: str) -> bool:
        """Return whether a kick of the client id is not confirmed."""
        return client_id in self._owed

    def wipes(self, client_id: str) -> bool:
        """Return whether a kick that wipes is not confirmed."""
        kick = self._owed.get(client_id)
        return kick is not None and kick.wipe

    def blocks(self, client_id: str) -> bool:
        """Return whether a CONNECT of the client id would have to wait for its kick."""
        kick = self._owed.get(client_id)
        return kick is not None and (kick.wipe or kick.taken)

    def holds(self, client_id: str) -> bool:
        """Return whether a kick has the client id's lock, or is about to."""
        kick = self._owed.get(client_id)
        return kick is not None and kick.taken

    def hurry(self, client_id: str) -> None:
        """Send the kick now if it waits to be tried again."""
        kick = self._owed.get(client_id)
        timer = None if kick is None else self._timers.get(kick)
        if kick is not None and timer is not None:
            timer.cancel()
            self._retry(kick)

    async def settle(self, client_id: str, *, until: float) -> bool:
        """Have the kick of the client id done now, called under its lock; return False if something may be left there.

        It is waited for `until` then, by the loop's time. A kick that only ends the connection may fail: the broker
        does that by itself when the client id connects again. Whoever opens that session drops it.
        """
        kick = self._owed.get(client_id)
        if kick is None:
            return True
        try:
            async with asyncio.timeout_at(until):
                await self._management.disconnect(client_id, wipe=kick.wipe)
        except (ManagementUnavailable, TimeoutError):
            return not kick.wipe
        self._confirmed(kick)
        return True

    async def run(self) -> None:
        """Send kicks for ever, several side by side; owned by the caller's task group."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(AT_ONCE):
                tasks.create_task(self._send_forever(), name=f"kicks of {self._broker} {number}")

    async def _send_forever(self) -> None:
        while True:
            kick = await self._queue.get()
            kick.taken = True
            async with self._lock(kick.client_id):
                if self._owed.get(kick.client_id) is kick:  # or else a CONNECT had it done, or needs it no more
                    await self._send(kick)
            kick.taken = False

    async def _send(self, kick: Kick) -> None:
        kick.under_way = True
        try:
            async with asyncio.timeout(KICK_S):
                await self._management.disconnect(kick.client_id, wipe=kick.wipe)
        except ManagementUnavailable as error:
            self._again(kick, str(error))
        except Exception as error:  # noqa: BLE001  # one broken answer must not end the sending of others
            self._again(kick, type(error).__name__)
        else:
            if self._owed.get(kick.client_id) is kick:
                self._confirmed(kick)
        finally:
            kick.under_way = False

    def _confirmed(self, kick: Kick) -> None:
        self.drop(kick.client_id)
        if self.failing:
            self.failing = False
            log.info("kicks_recovered", broker=self._broker)
        self._done(kick.client_id, kick.wipe)

    def _again(self, kick: Kick, problem: str) -> None:
        if not self.failing:
            self.failing = True
            log.error("kick_failed", broker=self._broker, client_id=kick.client_id, problem=problem, owed=len(self))
        if self._owed.get(kick.client_id) is not kick:
            return
        delay_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2**kick.tries)
        kick.tries = min(kick.tries + 1, 16)
        self._timers[kick] = asyncio.get_running_loop().call_later(delay_s, self._retry, kick)

    def _retry(self, kick: Kick) -> None:
        self._timers.pop(kick, None)
        if self._owed.get(kick.client_id) is kick:
            self._queue.put_nowait(kick)
