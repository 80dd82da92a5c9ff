"""Attacks by mass: silence, trickles, floods of refusals, of denials and of sessions (threats OVL)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from authsvc.core import tokens
from authsvc.core.facts import TokenKind
from broker import wire
from broker.limits import Limits
from broker.upstream import Upstream
from tests.e2e.system import System, own, system_on

pytestmark = pytest.mark.alone  # it measures time


async def test_silent_and_trickling_sockets_keep_nobody_out(upstream: Upstream, tmp_path: Path) -> None:
    """200 that say nothing, 200 that say one byte; a valid client is in at once; then all are closed."""
    async with system_on(upstream, tmp_path, limits=Limits(connect_s=1.5)) as system:
        idle = [await system.open() for _ in range(400)]
        for client in idle[200:]:
            await client.send(b"\x10")
        started = time.perf_counter()
        a1 = await system.client("A1")
        assert time.perf_counter() - started < 1
        assert all(await asyncio.gather(*(client.closed(5) for client in idle)))
        await a1.ping()
        await system.sound()


async def test_two_thousand_bad_connects_leave_nothing(system: System) -> None:
    """No row, no session; a live client and a new valid one go on meanwhile."""
    position = await system.store.last_position()
    a1 = await system.client("A1")
    codes = []
    for first in range(0, 2000, 100):
        clients = await asyncio.gather(*(system.open() for _ in range(100)))
        codes += await asyncio.gather(
            *(c.connect(f"x{first}", tokens.mint(TokenKind.APP), username=f"N{n}") for n, c in enumerate(clients))
        )
        for client in clients:
            client.cut()
        await a1.ping()
    assert set(codes) == {3, 4}  # beyond the burst: rate limited, the valid ones never
    await system.client("A1", "another")
    assert await system.store.last_position() == position
    assert len(system.service.sessions) == 2


@pytest.mark.parametrize("head", ["30ffffff7f", "82ffffff7f", "30ffffffff7f", "40ffffff7f"])
async def test_a_huge_length_is_refused_before_its_bytes_come(system: System, head: str) -> None:
    """At the head of the packet, whatever its type."""
    a1 = await system.client("A1")
    await a1.send(bytes.fromhex(head))
    assert await a1.closed(1)


async def test_the_largest_packet_passes_and_one_more_byte_does_not(system: System) -> None:
    """256 KiB for a packet as a whole, however it trickles in."""
    a1 = await system.client("A1")
    await a1.subscribe(f"{own('A1')}/#")
    topic = f"{own('A1')}/big"
    overhead = len(wire.encode_publish(topic, b"x" * 100_000)) - 100_000
    packet = wire.encode_publish(topic, b"x" * (262_144 - overhead))
    assert len(packet) == 262_144
    for n in range(0, len(packet), 10_000):
        await a1.send(packet[n : n + 10_000])
    assert len((await a1.delivery()).payload) == 262_144 - overhead
    await a1.send(wire.encode_publish(topic, b"x" * (262_144 - overhead + 1)))
    assert await a1.closed(2)


async def test_a_trickle_takes_linear_time(system: System) -> None:
    """A packet of 200 kB in pieces of 20 bytes is no reason to stall anybody."""
    a1, a2 = await system.client("A1"), await system.client("A2")
    packet = wire.encode_publish(f"{own('A1')}/big", b"x" * 200_000, qos=1, packet_id=1)
    started = time.perf_counter()
    for n in range(0, len(packet), 20):
        a1.writer.write(packet[n : n + 20])
        if n % 2000 == 0:
            await a1.writer.drain()
    await a1.expect(wire.PUBACK)
    assert time.perf_counter() - started < 5
    await a2.ping()


async def test_a_flood_of_denials_stalls_nobody(system: System) -> None:
    """50,000 denied publishes of ever new topics: others are answered throughout, records are bounded."""
    a1, a2 = await system.client("A1"), await system.client("A2")
    flood = b"".join(wire.encode_publish(f"{own('A2')}/{n}", b"") for n in range(50_000))
    sending = asyncio.create_task(a1.send(flood))
    worst = 0.0
    while not sending.done():
        started = time.perf_counter()
        await a2.ping()
        worst = max(worst, time.perf_counter() - started)
        await asyncio.sleep(0.005)
    await sending
    await a1.ping()
    assert worst < 1.0
    assert system.gate.denials_not_recorded > 40_000
    assert len(system.service.refusals.last("t1", limit=100_000)) <= 1000


async def test_all_qos_2_ids_are_not_taken(system: System) -> None:
    """PUBLISH after PUBLISH without PUBREL ends the connection at the limit."""
    a1 = await system.client("A1")
    await a1.send(b"".join(wire.encode_publish(f"{own('A1')}/x", b"", qos=2, packet_id=n) for n in range(1, 2000)))
    assert await a1.closed(5)


async def test_persistent_sessions_of_a_principal_are_bounded(upstream: Upstream, tmp_path: Path) -> None:
    """The one beyond the limit is refused; known ones come again; clean ones are not counted."""
    async with system_on(upstream, tmp_path, limits=Limits(max_persistent_sessions=5)) as system:
        for n in range(5):
            await (await system.client("A1", f"p{n}", clean=False)).disconnect()
        assert await system.code("p5", system.secret["A1"], username="A1", clean=False) == 5
        await system.client("A1", "p0", clean=False)
        await system.client("A1", "clean")
        await system.client("A2", "p0", clean=False)


async def test_an_upstream_that_is_gone_refuses_and_comes_back(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """C: no CONNACK 0 without a broker; live sessions end; nobody is admitted into nothing."""
    a1 = await system.client("A1")
    connect = system.upstream.connect

    async def refused(*_: object, **__: object) -> None:
        from authsvc.core.errors import UpstreamUnavailable

        raise UpstreamUnavailable("gone")

    system.upstream.connect = refused  # type: ignore[method-assign]
    monkeypatch.setattr(system.upstream, "postponed", lambda *_, **__: None)  # as where it is known to be away
    assert await system.code("x", system.secret["A2"], username="A2") == 3
    system.upstream.connect = connect  # type: ignore[method-assign]
    await a1.ping()
