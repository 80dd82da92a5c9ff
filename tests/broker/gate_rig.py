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
from broker import wire
from broker.gate import Gate
from broker.limits import Limits
from broker.listeners import Listener
from broker.upstream import Upstream
from tests.broker.raw_client import RawClient, close_all
from tests.broker.scripted import EVERYTHING, OWN, ScriptedService
from tests.broker.upstreams import started

LEVELS: dict[Upstream, int] = {}  # what clients of `rig_on` speak, where it is not 3.1.1
LOOPBACK = Listener(name="default", host="127.0.0.1", port=0)


class Rig:
    """Things `a` and `b` may use their own place, `spy` everything; the password is the thing's key.

    Clients speak `level` unless they are told another one.
    """

    def __init__(
        self, gate: Gate, service: ScriptedService, upstream: Upstream, address: tuple[str, int], level: int
    ) -> None:
        self.gate = gate
        self.level = level
        self.codec = wire.codec_of(level)
        self.service = service
        self.upstream = upstream
        self.address = address

    @property
    def is5(self) -> bool:
        return self.level == wire.MQTT_5_0

    async def open(self) -> RawClient:
        """Open a socket that speaks the level when it says CONNECT."""
        client = await RawClient.open(self.address)
        client.level = self.level
        return client

    async def client(self, thing: str, client_id: str | None = None, **fields: Any) -> RawClient:
        fields.setdefault("level", self.level)
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
async def rig_on(
    upstream: Upstream, *, limits: Limits | None = None, level: int | None = None, **options: Any
) -> AsyncIterator[Rig]:
    """Open a gate in front of a started upstream; clients speak the level that the upstream was started for."""
    service = ScriptedService({"a": OWN, "b": OWN, "spy": EVERYTHING})
    gate = Gate(cast("Service", service), upstream, limits or Limits(), **options)
    address = await gate.listen(LOOPBACK)
    try:
        yield Rig(gate, service, upstream, address, LEVELS.get(upstream, wire.MQTT_3_1_1) if level is None else level)
    finally:
        await close_all()
        await gate.close()


# For a test of what 3.1.1 alone does.
of_3_1_1 = pytest.mark.parametrize("upstream", ["amqtt", "mosquitto"], indirect=True)


@pytest.fixture(params=["amqtt", "mosquitto", "mosquitto-5.0"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """Each broker, and the one that speaks 5.0 a second time for clients of 5.0."""
    kind, _, five = request.param.partition("-")
    async with started(kind, tmp_path) as running:
        if five:
            LEVELS[running] = wire.MQTT_5_0
        yield running
    LEVELS.pop(running, None)


@pytest.fixture
async def rig(upstream: Upstream) -> AsyncIterator[Rig]:
    async with rig_on(upstream) as running:
        yield running


def session_of(rig: Rig, thing: str = "a") -> Session:
    (session,) = rig.service.sessions.find("t", thing=thing)
    return session


def will(topic: str = "t/g/a/will", qos: int = 0, *, retain: bool = False) -> WillMessage:
    return WillMessage(topic=topic, payload=b"w", qos=qos, retain=retain)


def refused(rig: Rig) -> int:
    """Return the code of a filter that is not permitted."""
    return wire.reason_codes.NOT_AUTHORIZED if rig.is5 else wire.SUBACK_REFUSED
