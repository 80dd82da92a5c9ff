"""The table of what ends what, for clients of MQTT 5.0 that are away: real store, real broker, restarts of either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.core.facts import TenantState, ThingState
from broker import wire
from broker.gate import Gate
from broker.limits import Limits
from broker.listeners import Listener
from broker.tcp import TcpUpstream
from broker.upstream import Upstream
from tests.broker.mosquitto import Mosquitto
from tests.broker.raw_client import RawClient
from tests.broker.upstreams import started
from tests.e2e.system import System, own, system_on

V5 = wire.codec_of(wire.MQTT_5_0)
FIVE = {"level": wire.MQTT_5_0}
End = Callable[[System], Awaitable[object]]


async def revoke(system: System) -> None:
    await system.do(system.store.device_tokens.delete("t1", "A1", system.token_id["A1"]))


async def block(system: System) -> None:
    await system.do(system.store.things.update("t1", "A1", state=ThingState.BLOCKED))


async def delete(system: System) -> None:
    await system.do(system.store.things.delete("t1", "A1"))


async def suspend(system: System) -> None:
    await system.do(system.store.tenants.update("t1", state=TenantState.SUSPENDED))


async def nothing(_: System) -> None: ...


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with started("mosquitto", tmp_path) as running:
        yield running


@pytest.fixture
async def system(upstream: Upstream, tmp_path: Path) -> AsyncIterator[System]:
    async with system_on(upstream, tmp_path) as running:
        yield running


def will(delay_s: int) -> WillMessage:
    return WillMessage(topic=f"{own('A1')}/will", payload=b"w", qos=1, retain=True, delay_s=delay_s)


async def away(system: System, delay_s: int = 1, **fields: object) -> None:
    """Let A1 be away, with a will that waits."""
    a1 = await system.client("A1", clean=False, will=will(delay_s), **FIVE, **fields)
    await a1.subscribe((f"{own('A1')}/#", 1))
    await system.lost(a1, "A1")
    assert len(system.gate.delayed_wills) == 1


@pytest.mark.parametrize("end", [revoke, block, delete, suspend, nothing])
async def test_a_will_that_waits_is_never_sent_after_an_end_that_wipes(system: System, end: End) -> None:
    """Though its client is away when it comes; without one the will is sent, or this would prove nothing."""
    spy = await system.spy()
    await away(system)
    await end(system)
    await system.until(lambda: len(system.gate.delayed_wills) == 0)
    await asyncio.sleep(0.1)
    seen = await system.seen_by(spy)
    assert (f"{own('A1')}/will" in [topic for topic, _ in seen]) is (end is nothing)


@pytest.mark.parametrize("kept", [{"clean": True}, {"clean": True, "session_expiry_s": 60}], ids=["", "to stay"])
@pytest.mark.parametrize("end", [revoke, nothing])
async def test_a_clean_start_does_not_send_the_will_of_a_session_that_was_wiped(
    system: System, end: End, kept: dict[str, object]
) -> None:
    """Whoever comes next with the thing's other token: its grant does not speak for what the revoked one left."""
    await system.device_token("A1-next", "t1", "A1")
    spy = await system.spy()
    await away(system, delay_s=1_000)
    await end(system)
    await system.client("A1-next", "A1", username="A1", **kept, **FIVE)
    await system.until(lambda: len(system.gate.delayed_wills) == 0)
    await asyncio.sleep(0.1)
    seen = await system.seen_by(spy)
    assert (f"{own('A1')}/will" in [topic for topic, _ in seen]) is (end is nothing)


async def test_a_secret_that_is_replaced_at_once_takes_the_will_with_it(system: System) -> None:
    """Regenerate without overlap: never."""
    spy = await system.spy()
    secret = await system.app_token("APP", "t1", ground="g1")
    a = await RawClient.connected(
        system.address,
        "new1",
        secret,
        username="new1",
        clean=False,
        **FIVE,
        will=WillMessage(topic="t1/g1/new1/will", payload=b"w", qos=1, retain=False, delay_s=1),
    )
    await system.lost(a, "new1")
    await system.do(
        system.store.app_tokens.regenerate(
            "t1", system.token_id["APP"], digest=b"x" * 32, prefix="asapp_x", overlap_us=0
        )
    )
    await system.until(lambda: len(system.gate.delayed_wills) == 0)
    await asyncio.sleep(0.1)
    assert await system.seen_by(spy) == []


async def test_a_moved_things_will_is_judged_where_it_is_now(system: System) -> None:
    """Its old place is not its own any more."""
    spy = await system.spy()
    await away(system)
    await system.do(system.store.things.update("t1", "A1", ground="g2"))
    await system.until(lambda: len(system.gate.delayed_wills) == 0)
    await asyncio.sleep(0.1)
    assert await system.seen_by(spy) == []


async def test_revocations_race_with_wills_that_fire(system: System) -> None:
    """Whatever comes first: after the answered revocation none is sent any more."""
    spy = await system.spy()
    for n in range(20):
        await system.do(system.store.things.create("t1", f"R{n}", definition="dev", ground="g1"))
        await system.device_token(f"R{n}", "t1", f"R{n}")
        message = WillMessage(topic=f"t1/g1/R{n}/will", payload=b"w", qos=0, retain=False, delay_s=1)
        client = await system.client(f"R{n}", clean=False, will=message, **FIVE)
        client.cut()
    await system.until(lambda: len(system.gate.delayed_wills) == 20)
    await asyncio.sleep(0.85)
    for n in range(20):
        await system.do(system.store.device_tokens.delete("t1", f"R{n}", system.token_id[f"R{n}"]))
    before = {topic for topic, _ in await system.seen_by(spy)}
    await system.until(lambda: len(system.gate.delayed_wills) == 0)
    await asyncio.sleep(0.2)
    assert await system.seen_by(spy) == []
    assert all(topic.endswith("/will") for topic in before)


@pytest.mark.parametrize("end", [revoke, block, delete, suspend])
async def test_a_queue_of_a_client_that_is_away_is_gone_with_its_right(system: System, end: End) -> None:
    """Wiped here at once and at the broker a moment later; the upstream id is never used again."""
    await away(system, delay_s=100)
    row = await system.store.upstream_session("thing/t1/A1", "A1")
    assert row is not None
    spy = await system.spy()
    await spy.publish(f"{own('A1')}/x", b"secret", qos=1)
    await end(system)
    assert await system.store.upstream_session("thing/t1/A1", "A1") is None
    for _ in range(300):
        if not await system.store.clearings():
            break
        await asyncio.sleep(0.01)
    assert await system.store.clearings() == []


async def test_traffic_stops_with_the_answered_revocation(system: System) -> None:
    """A client that floods while it is revoked: what arrives later than the answer is nothing."""
    spy = await system.spy()
    a1 = await system.client("A1", **FIVE)
    await a1.publish(f"{own('A1')}/n", qos=1)  # its link is open: no burst that the broker still works off later

    async def flood() -> None:
        n = 0
        while not a1.writer.is_closing():
            n += 1
            a1.writer.write(V5.encode_publish(f"{own('A1')}/n", b"%d" % n) * 20)
            try:
                await a1.writer.drain()
            except ConnectionError:
                return
            await asyncio.sleep(0.002)  # Mosquitto 2.0 drops acknowledgements too where a client's queue is full

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.1)
    await revoke(system)
    link_gone = await system.seen_by(spy)  # what was on its way before the answer
    assert link_gone
    await asyncio.sleep(0.2)
    assert await system.seen_by(spy) == []
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    assert await system.code("A1", system.secret["A1"], username="A1", **FIVE) == 0x86


@pytest.mark.parametrize("level", [4, 5])
async def test_sessions_survive_restarts_of_gate_and_broker(tmp_path: Path, level: int) -> None:
    """Queue, retained message and a QoS 2 exchange under way; a session that was revoked meanwhile does not."""
    mosquitto = Mosquitto(tmp_path, persistence=True)
    await mosquitto.start()
    try:
        upstream = TcpUpstream(port=mosquitto.port)
        await upstream.start()
        async with system_on(upstream, tmp_path) as system:
            fields = {"clean": False, "level": level}
            for thing in ("A1", "A2"):
                client = await system.client(thing, **fields)
                await client.subscribe((f"{own(thing)}/in", 1))
                await client.publish(f"{own(thing)}/kept", b"kept", qos=1, retain=True)
                await client.send(client.codec.encode_publish(f"{own(thing)}/once", b"once", qos=2, packet_id=9))
                await client.expect_ack(wire.PUBREC, 9)
                await system.lost(client, thing)
            spy = await system.spy()
            for thing in ("A1", "A2"):
                await spy.publish(f"{own(thing)}/in", b"queued", qos=1)
            await system.gate.close()
            await upstream.stop()
            await mosquitto.stop()
            await revoke(system)
            await mosquitto.start()
            again = TcpUpstream(port=mosquitto.port)
            await again.start()
            async with gate_again(system, again) as address:
                refused = await RawClient.open(address)
                assert await refused.connect("A1", system.secret["A1"], username="A1", **fields) == (
                    4 if level == 4 else 0x86
                )
                client = await RawClient.connected(address, "A2", system.secret["A2"], username="A2", **fields)
                assert client.session_present
                assert (await client.delivery()).payload == b"queued"
                await client.send(client.codec.encode_ack(wire.PUBREL, 9))
                assert await client.expect_ack(wire.PUBCOMP, 9) == 0
                await client.subscribe((f"{own('A2')}/kept", 1))
                kept = await client.delivery()
                assert (kept.payload, kept.retain) == (b"kept", True)
                for _ in range(500):
                    if not await system.store.clearings():
                        break
                    await asyncio.sleep(0.01)
                assert await system.store.clearings() == []
            await again.stop()
    finally:
        await mosquitto.stop()


@asynccontextmanager
async def gate_again(system: System, upstream: Upstream) -> AsyncIterator[tuple[str, int]]:
    """Open another gate of the same service, as after a restart."""
    gate = Gate(system.service, upstream, Limits())
    try:
        yield await gate.listen(Listener(name="again", host="127.0.0.1", port=0))
    finally:
        await gate.close()
