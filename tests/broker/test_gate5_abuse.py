"""Clients of MQTT 5.0 that want more than their share: of the memory, of the loop, of the gate's own connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import wire
from broker.properties import TOPIC_ALIAS, encode
from broker.upstream import Upstream
from tests.broker.gate_rig import LEVELS, Rig, session_of
from tests.broker.upstreams import started

V5 = wire.codec_of(wire.MQTT_5_0)
ALIAS = encode([(TOPIC_ALIAS, 1)])


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with started("mosquitto", tmp_path) as running:
        LEVELS[running] = wire.MQTT_5_0
        yield running
    del LEVELS[running]


async def test_short_packets_that_stand_for_long_ones_wait_for_the_broker(rig: Rig) -> None:
    """An alias makes 60 KB of 8 bytes: what was read already goes on only as the broker takes it, to the last one."""
    spy = await rig.client("spy")
    await spy.subscribe(("t/g/a/last", 1))
    a = await rig.client("a")
    await a.send(V5.encode_publish("t/g/a/" + "x" * 60_000, b"", properties=ALIAS))
    await a.ping()
    connection: Any = session_of(rig).connection
    packets = V5.encode_publish("", b"", properties=ALIAS) * 2_000
    await a.send(packets + V5.encode_publish("t/g/a/last", b"", qos=1, packet_id=1))
    most = 0
    delivery = asyncio.create_task(spy.delivery(30))
    while not delivery.done():
        most = max(most, connection.link._transport.get_write_buffer_size())
        await asyncio.sleep(0)
    assert (await delivery).topic == "t/g/a/last"
    assert most < 1_048_576, f"{most} bytes waited for the broker"
    await a.ping()
