"""Clients of MQTT 5.0 that want more than their share: of the memory, of the loop, of the gate's own connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from broker import wire
from broker.upstream import Upstream
from broker.wire.properties import (
    CONTENT_TYPE,
    TOPIC_ALIAS,
    USER_PROPERTY,
)
from broker.wire.sections import (
    encode,
)
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
    await a.publish("t/g/a/x", qos=1)  # its link is open
    await a.send(V5.encode_publish("t/g/a/" + "x" * 60_000, b"", properties=ALIAS))
    await a.ping()
    connection: Any = session_of(rig).connection
    packets = V5.encode_publish("", b"", properties=ALIAS) * 2_000
    await a.send(packets + V5.encode_publish("t/g/a/last", b"", qos=1, packet_id=1))
    most = 0
    delivery = asyncio.create_task(spy.delivery(30))
    while not delivery.done():
        most = max(most, connection.link._link._transport.get_write_buffer_size())
        await asyncio.sleep(0)
    assert (await delivery).topic == "t/g/a/last"
    assert most < 1_048_576, f"{most} bytes waited for the broker"
    await a.ping()


async def test_what_aliases_stand_for_is_bounded(rig: Rig) -> None:
    """Ten topics of 60 KB would be kept for each of ten thousand connections; short ones go on as long as they like."""
    a = await rig.client("a")
    for number in range(1, 11):
        for turn in range(20):
            section = encode([(TOPIC_ALIAS, number)])
            assert await a.publish(f"t/g/a/{turn}" + "x" * 5_000, b"", qos=1, properties=section) < 0x80
    await a.send(V5.encode_publish("t/g/a/" + "x" * 30_000, b"", properties=encode([(TOPIC_ALIAS, 1)])))
    assert await a.closed()
    assert a.disconnect_reason == wire.reason_codes.QUOTA_EXCEEDED


def waiting(topic: str, qos: int, properties: bytes) -> WillMessage:
    return WillMessage(topic=topic, payload=b"w", qos=qos, retain=False, delay_s=1, properties=properties)


DEADLY = [
    pytest.param("t/g/a/" + "x/" * 200, b"", id="more levels than mosquitto has"),
    pytest.param("t/g/a/\uffff", b"", id="a noncharacter in the topic"),
    pytest.param("t/g/a/w", encode([(USER_PROPERTY, ("k", "\x01"))]), id="a control character in a user property"),
    pytest.param("t/g/a/w", encode([(CONTENT_TYPE, "\ufffe")]), id="a noncharacter in the content type"),
]


@pytest.mark.parametrize(("topic", "properties"), DEADLY)
async def test_a_will_that_the_broker_ends_a_connection_for_costs_nobody_else_anything(
    rig: Rig, topic: str, properties: bytes
) -> None:
    """The broker stays there for everybody, and all wills that were sent around it arrive."""
    upstream: Any = rig.upstream
    spy = await rig.client("spy")
    await spy.subscribe(("t/g/a/ok/#", 2))
    talk = upstream._service._talk
    sections = {"with": encode([(CONTENT_TYPE, "text/plain")]), "without": b""}
    wanted = {f"t/g/a/ok/{qos}/{kind}": (qos, section) for qos in (0, 1, 2) for kind, section in sections.items()}
    wills = [
        waiting(topic, 1, properties),
        *(waiting(ok, qos, section) for ok, (qos, section) in wanted.items()),
        waiting(topic, 0, properties),
    ]
    clients = [
        await rig.client("a", f"a{n}", will=will, clean=False, session_expiry_s=100) for n, will in enumerate(wills)
    ]
    for client in clients:
        client.cut()
    assert {(await spy.delivery()).topic for _ in wanted} == set(wanted)
    assert upstream.reachable
    assert upstream._service._talk is talk, "the service connection was lost"
    await rig.client("a")


async def test_who_makes_the_broker_end_his_connection_has_only_his_own_will_lost(rig: Rig) -> None:
    """Its topic ends its own link, and its will after it a connection of the gate's: not the one that counts."""
    upstream: Any = rig.upstream
    talk = upstream._service._talk
    topic = "t/g/a/" + "x/" * 200
    for level in (wire.MQTT_3_1_1, wire.MQTT_5_0):
        a = await rig.client("a", level=level, will=WillMessage(topic=topic, payload=b"w", qos=1, retain=False))
        await a.send(wire.codec_of(level).encode_publish(topic, b""))
        assert await a.closed()
        await asyncio.gather(*rig.gate._farewells)
    await rig.client("a")
    assert upstream._service._talk is talk, "the service connection was lost"


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_will_on_its_way_when_the_broker_ends_the_link_goes_another_way(rig: Rig, qos: int) -> None:
    """What the client said last ends its own link, the will right behind it: neither lost nor waited for."""
    spy = await rig.client("spy")
    await spy.subscribe(("t/g/a/w", 2))
    a = await rig.client("a", will=WillMessage(topic="t/g/a/w", payload=b"w", qos=qos, retain=False))
    await a.publish("t/g/a/x", qos=1)  # its link is open
    connection: Any = session_of(rig).connection
    connection.data_received(V5.encode_publish("t/g/a/" + "x/" * 200, b""))
    connection.transport.abort()
    connection.end(Reason.CONNECTION_LOST, Will.SEND)
    began = asyncio.get_running_loop().time()
    assert (await spy.delivery()).topic == "t/g/a/w"
    await connection.wait_ended()
    assert asyncio.get_running_loop().time() - began < 0.8
