"""A service on a real store in a fresh directory, its clocks under the test's hand, and a gate's part to play."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authsvc.core import tokens
from authsvc.core.credentials import ConnectRequest, WillMessage
from authsvc.core.facts import GroundAccess, Refusal, Token, TokenKind
from authsvc.core.policy import Grant
from authsvc.core.reasons import Reason
from authsvc.service import Admitted, Service
from authsvc.sessions import Session, Will
from authsvc.store import Store

T = "acme"


class Clock:
    """A wall clock that stands a constant away from the real one until it is moved."""

    def __init__(self) -> None:
        self.offset_us = 0

    def now_us(self) -> int:
        return time.time_ns() // 1_000 + self.offset_us

    def move(self, seconds: float) -> None:
        self.offset_us += int(seconds * 1_000_000)


@dataclass
class Wire:
    """Stands for the gate's side of a connection: remembers what the registry did to it."""

    ends: list[tuple[Reason, Will]] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    def end(self, reason: Reason, will: Will) -> None:
        self.ends.append((reason, will))
        self.ended_at = self.ended_at or time.perf_counter()
        self.ended.set()

    def swap(self, grant: Grant) -> None:
        self.grants.append(grant)

    async def wait_ended(self) -> None:
        await self.ended.wait()


class World:
    """A store, a service and the clock they share."""

    def __init__(self, store: Store, clock: Clock, **options: int) -> None:
        self.store = store
        self.clock = clock
        self.service = Service(store=store, now_us=clock.now_us, **options)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.service.start()
        self._task = asyncio.create_task(self.service.run(), name="service")

    async def start_again(self) -> None:
        self._task = asyncio.create_task(self.service.run(), name="service")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def settle(self, position: int | None = None) -> None:
        await self.service.feed.settle(await self.store.last_position() if position is None else position)

    async def app_token(self, **fields: object) -> tuple[Token, str]:
        text = tokens.mint(TokenKind.APP)
        fields = {"name": "t", "definition": "thing", **fields}
        written = await self.store.app_tokens.create(
            T, digest=tokens.digest(text), prefix=tokens.prefix(text), **fields
        )
        await self.settle(written.position)
        return written.value, text

    async def device_token(self, thing: str, **fields: object) -> tuple[Token, str]:
        text = tokens.mint(TokenKind.DEVICE)
        written = await self.store.device_tokens.create(
            T, thing, name="d", digest=tokens.digest(text), prefix=tokens.prefix(text), **fields
        )
        await self.settle(written.position)
        return written.value, text

    async def ground_token(self, ground: str, access: GroundAccess = GroundAccess.READ) -> tuple[Token, str]:
        text = tokens.mint(TokenKind.GROUND)
        written = await self.store.ground_tokens.create(
            T, ground, name="g", access=access, digest=tokens.digest(text), prefix=tokens.prefix(text)
        )
        await self.settle(written.position)
        return written.value, text

    async def admit(self, text: str, thing: str = "", **fields: object) -> Admitted | Refusal:
        return await self.service.admit(request(text, thing, **fields), peer="192.0.2.1:5000", broker="gate")

    async def admitted(self, text: str, thing: str = "", **fields: object) -> Admitted:
        outcome = await self.admit(text, thing, **fields)
        assert isinstance(outcome, Admitted), outcome
        return outcome

    async def refused(self, text: str, thing: str = "", **fields: object) -> Reason:
        outcome = await self.admit(text, thing, **fields)
        assert isinstance(outcome, Refusal), outcome
        return outcome.reason

    async def connect(self, text: str, thing: str = "", **fields: object) -> tuple[Session, Wire]:
        """Do what the gate does: admit, take the session's lock, open; again when the footing changed."""
        for _ in range(3):
            admitted = await self.admitted(text, thing, **fields)
            wire = Wire()
            async with self.service.sessions.lock(admitted.principal, admitted.client_id, broker="gate"):
                upstream = await self.service.upstream_session(admitted)
                assert not isinstance(upstream, Refusal), upstream
                session = self.service.sessions.open(admitted, wire, broker="gate", peer="192.0.2.1:5000")
            if session is not None:
                return session, wire
        raise AssertionError("the footing changed three times")


def request(
    text: str,
    thing: str = "",
    *,
    client_id: str = "c1",
    clean: bool = True,
    will: WillMessage | None = None,
) -> ConnectRequest:
    return ConnectRequest(client_id=client_id, clean_session=clean, username=thing, password=text.encode(), will=will)


@asynccontextmanager
async def started(folder: Path, **options: int) -> AsyncIterator[World]:
    """A world with tenant `T` whose store is in the folder; `options` are those of the service."""
    clock = Clock()
    store = await Store.open(folder / "authsvc.db", now_us=clock.now_us)
    made = World(store, clock, **options)
    await made.start()
    await store.tenants.create(T)
    await made.settle()
    yield made
    await made.stop()
    await store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with started(tmp_path) as made:
        yield made
