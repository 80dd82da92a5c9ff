"""A gate with a scripted service in front of a real broker: what the tests of the gate hold in their hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.service import Service
from authsvc.sessions import Session
from broker.gate import Gate
from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.raw_client import RawClient, close_all
from tests.broker.scripted import EVERYTHING, OWN, ScriptedService
from tests.broker.upstreams import started

LOOPBACK = Listener(name="default", host="127.0.0.1", port=0)


class Rig:
    """Things `a` and `b` may use their own place, `spy` everything; the password is the thing's key."""

    def __init__(self, gate: Gate, service: ScriptedService, upstream: Upstream, address: tuple[str, int]) -> None:
        self.gate = gate
        self.service = service
        self.upstream = upstream
        self.address = address

    async def open(self) -> RawClient:
        return await RawClient.open(self.address)

    async def client(self, thing: str, client_id: str | None = None, **fields: Any) -> RawClient:
        return await RawClient.connected(self.address, client_id or thing, thing, **fields)

    async def lost(self, client: RawClient, thing: str = "a") -> None:
        """Cut a thing's only connection, and wait until the broker has let go of its session.

        amqtt does not send again what it sent to a connection that was gone already.
        """
        (session,) = self.service.sessions.find("t", thing=thing)
        client.cut()
        async with asyncio.timeout(5):
            while self.service.sessions.find("t", thing=thing):
                await asyncio.sleep(0.001)
            await session.connection.wait_ended()

    async def spy(self) -> RawClient:
        spy = await self.client("spy")
        assert await spy.subscribe(("t/#", 2)) == [2]
        return spy

    async def seen_by(self, spy: RawClient) -> list[tuple[str, bytes]]:
        """Return what the spy got until now: a message that comes last makes sure of it."""
        await spy.publish("t/sentinel", qos=1)
        return [(p.topic, p.payload) for p in await spy.deliveries_until("t/sentinel")]


@asynccontextmanager
async def rig_on(upstream: Upstream, *, limits: Limits | None = None, **options: Any) -> AsyncIterator[Rig]:
    """Open a gate in front of a started upstream."""
    service = ScriptedService({"a": OWN, "b": OWN, "spy": EVERYTHING})
    gate = Gate(cast("Service", service), upstream, limits or Limits(), **options)
    address = await gate.listen(LOOPBACK)
    try:
        yield Rig(gate, service, upstream, address)
    finally:
        await close_all()
        await gate.close()


@pytest.fixture(params=["amqtt", "mosquitto"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    async with started(request.param, tmp_path) as running:
        yield running


@pytest.fixture
async def rig(upstream: Upstream) -> AsyncIterator[Rig]:
    async with rig_on(upstream) as running:
        yield running


def session_of(rig: Rig, thing: str = "a") -> Session:
    (session,) = rig.service.sessions.find("t", thing=thing)
    return session


def will(topic: str = "t/g/a/will", qos: int = 0, *, retain: bool = False) -> WillMessage:
    return WillMessage(topic=topic, payload=b"w", qos=qos, retain=retain)
