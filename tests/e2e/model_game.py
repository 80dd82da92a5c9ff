"""The model test's game: moves of clients and operators by the dice, compared after each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from tests.e2e.model_operators import Operators
from tests.e2e.model_table import TENANTS
from tests.e2e.process import Process


class Game(Operators):
    """One game."""

    def __init__(self, process: Process, seed: int) -> None:
        super().__init__(process, seed)
        self.moves: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (14, self.connect),
            (12, self.subscribe),
            (3, self.unsubscribe),
            (26, self.publish),
            (5, self.leave),
            (3, self.move),
            (2, self.block),
            (1, self.delete),
            (3, self.change_rules),
            (3, self.change_role),
            (2, self.revoke),
            (2, self.regenerate),
            (3, self.modules),
            (1, self.suspend),
            (1, self.kick),
        ]

    async def play(self, *, seconds: float) -> int:
        """Make random moves for a while; return how many. Fails at the first difference."""
        until = time.monotonic() + seconds
        count = 0
        while time.monotonic() < until:
            weights = [weight for weight, _ in self.moves]
            (move,) = self.dice.choices([move for _, move in self.moves], weights)
            await move()
            self.check()
            count += 1
            if count % 20 == 0:
                await self.settled()
                await self._seats()
        await asyncio.sleep(0.3)
        self.check()
        return count

    async def _seats(self) -> None:
        for tenant in TENANTS:
            pool = await self.process.get(f"/v1/tenants/{tenant}/licenses/pool")
            assert pool["used"] == self.world.used(tenant)

    async def over(self) -> None:
        for player in self.players:
            with contextlib.suppress(TimeoutError):
                await player.end()
