"""What an ended connection was made of is freed when it ends: the garbage collector has nothing to find."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from authsvc.core.policy import Memo
from authsvc.sessions import Session
from broker import wire
from broker.arrival import Arrival
from broker.connection import ClientConnection
from broker.packet_ids import OpenRequests, SessionState
from broker.stream import Stream
from broker.tcp.lazy import LazyLink
from broker.terms import Terms
from tests.broker.gate_rig import Rig, will

OURS = (Arrival, ClientConnection, LazyLink, Memo, OpenRequests, Session, SessionState, Stream, Terms)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def disconnects(rig: Rig) -> None:
    client = await rig.client("a")
    await client.send(wire.DISCONNECT_PACKET)


async def subscribes_and_publishes(rig: Rig) -> None:
    client = await rig.client("a")
    await client.subscribe(("t/g/a/#", 1))
    await client.publish("t/g/a/x", qos=1)
    await client.deliveries_until("t/g/a/x")
    await client.send(wire.DISCONNECT_PACKET)


async def is_lost_with_a_will(rig: Rig) -> None:
    client = await rig.client("a", will=will(qos=1))
    client.cut()


async def is_taken_over(rig: Rig) -> None:
    await rig.client("a")
    client = await rig.client("a")
    await client.send(wire.DISCONNECT_PACKET)


async def is_denied(rig: Rig) -> None:
    client = await rig.client("a")
    await client.publish("t/g/b/x")
    await client.send(wire.DISCONNECT_PACKET)


async def breaks_the_protocol(rig: Rig) -> None:
    client = await rig.client("a")
    await client.send(b"\xff\xff")


async def is_refused(rig: Rig) -> None:
    client = await rig.open()
    await client.send(rig.codec.encode_connect(client_id="a", username="a", password=b"wrong"))


async def says_nothing_of_sense(rig: Rig) -> None:
    client = await rig.open()
    await client.send(wire.PINGREQ_PACKET)


LIVES = [
    disconnects,
    subscribes_and_publishes,
    is_lost_with_a_will,
    is_taken_over,
    is_denied,
    breaks_the_protocol,
    is_refused,
    says_nothing_of_sense,
]


def _alive() -> list[str]:
    return sorted(type(there).__name__ for there in gc.get_objects() if isinstance(there, OURS))


@pytest.mark.parametrize("life", LIVES, ids=[life.__name__.replace("_", "-") for life in LIVES])
@pytest.mark.parametrize("upstream", ["mosquitto", "mosquitto-5.0"], indirect=True)
async def test_nothing_of_a_connection_is_left_to_the_collector(rig: Rig, no_collector: None, life):
    """Neither of one that ended in order nor of any other: connection, session, streams, memos and link are freed."""
    before = _alive()
    for _ in range(3):
        await life(rig)
        async with asyncio.timeout(10):
            while len(rig.gate):
                await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while _alive() != before:
            await asyncio.sleep(0.05)
