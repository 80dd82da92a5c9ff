"""More than it can bear, from outside: silence, trickles, stuck readers, floods, beside a client that works."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from broker import wire
from tests.broker.raw_client import RawClient
from tests.e2e.crowd import Login, codes, join, leave, pulse_of
from tests.e2e.process import Process

pytestmark = pytest.mark.alone  # it measures time

LATE_S = 1.0  # what a client that behaves may have to wait


class Place:
    """A service with one client that behaves."""

    def __init__(self, process: Process, app: str, good: RawClient) -> None:
        self.process = process
        self.app = app
        self.good = good

    async def worst_connect(self, seconds: float) -> float:
        """Connect again and again for that long; return the longest time that an admission took."""
        worst, number = 0.0, 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            number += 1
            began = time.monotonic()
            client = await self.process.client("good", self.app, f"again-{number}")
            worst = max(worst, time.monotonic() - began)
            await client.disconnect()
            await asyncio.sleep(0.05)
        return worst

    async def is_as_before(self, files: int, memory_mb: float, *, more_mb: float) -> None:
        """Wait until descriptors and memory are back where they were."""
        async with asyncio.timeout(5):
            while self.process.open_files() > files + 5:
                await asyncio.sleep(0.05)
        grown = self.process.memory_mb() - memory_mb
        print(f"memory: {grown:+.1f} MB")
        assert grown < more_mb
        await self.process.sound("good", self.app)


@pytest.fixture
async def place(shared: Process) -> Place:
    await shared.open_definition()
    app = (await shared.app_token())["token"]
    return Place(shared, app, await shared.client("good", app))


async def _settled(place: Place) -> tuple[int, float]:
    """Return open files and memory after a round that has filled pools and caches."""
    warm = await join(place.process.address, [Login("good", place.app, f"w{n}") for n in range(300)])
    assert codes(warm) == [0] * 300
    await leave(warm)
    async with asyncio.timeout(5):
        while place.process.open_files() > 100:
            await asyncio.sleep(0.05)
    return place.process.open_files(), place.process.memory_mb()


async def test_sockets_that_say_nothing_half_or_little_are_closed_and_cost_nobody(place: Place) -> None:
    """300 silent, 300 half packets, 300 that trickle: gone within 10 s, others connect within a second."""
    files, memory = await _settled(place)
    began = time.monotonic()
    silent = [await RawClient.open(place.process.address) for _ in range(300)]
    half = [await RawClient.open(place.process.address) for _ in range(300)]
    slow = [await RawClient.open(place.process.address) for _ in range(300)]
    for client in half:
        await client.send(b"\x10")
    packet = Login("good", place.app, "trickle").packet()

    async def trickle() -> None:
        for n in range(len(packet)):
            for client in slow:
                client.writer.write(packet[n : n + 1])
            await asyncio.sleep(1)

    dripping = asyncio.create_task(trickle())
    async with pulse_of(place.good) as pulse:
        everybody = asyncio.gather(*(client.closed(10) for client in (*silent, *half, *slow)))
        worst = await place.worst_connect(3)
        assert all(await everybody)
    dripping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await dripping
    print(f"all closed after {time.monotonic() - began:.1f} s; worst connect {worst * 1000:.0f} ms")
    assert time.monotonic() - began < 10
    assert worst < LATE_S
    assert pulse.worst_s < LATE_S
    await place.is_as_before(files, memory, more_mb=15)


@pytest.mark.parametrize(
    "start",
    [b"\x30\xff\xff\xff\x7f", b"\x10\xff\xff\xff\x7f", b"\x10\xff\xff\xff\xff\x7f", b"\x10\x81\x80\x04"],
    ids=["a PUBLISH of 256 MB", "a CONNECT of 256 MB", "a length of five bytes", "a CONNECT over the limit"],
)
async def test_a_packet_over_the_limit_is_refused_at_its_first_bytes(place: Place, start: bytes) -> None:
    """Before CONNECT and after it, nothing of such a packet is waited for."""
    stranger = await RawClient.open(place.process.address)
    await stranger.send(start)
    assert await stranger.closed(1)
    if start[0] != 0x10:
        await place.good.send(start)
        assert await place.good.closed(1)


async def test_readers_that_do_not_read_are_bounded_and_hold_nobody_up(place: Place) -> None:
    """20 subscribers stop reading while 20 MB come for each: they end or lose, others are served, memory is bounded."""
    files, memory = await _settled(place)
    stuck = []
    for n in range(20):
        client = await place.process.client("good", place.app, f"stuck-{n}")
        assert await client.subscribe((f"{place.process.tenant}/default/good/flood", n % 2)) == [n % 2]
        client.writer.transport.pause_reading()
        stuck.append(client)
    listening = await place.process.client("good", place.app, "listening")
    assert await listening.subscribe((f"{place.process.tenant}/default/good/news", 1)) == [1]
    sender = await place.process.client("good", place.app, "sender")
    packet = wire.encode_publish(f"{place.process.tenant}/default/good/flood", b"x" * 20_000)
    most = memory
    async with pulse_of(place.good) as pulse:
        for n in range(100):
            await sender.send(packet * 10)
            if n % 10 == 0:
                await listening.publish(f"{place.process.tenant}/default/good/news", b"%d" % n, qos=1)
                assert (await listening.delivery(2)).payload == b"%d" % n
                most = max(most, place.process.memory_mb())
        async with asyncio.timeout(10):
            await sender.ping()
    most = max(most, place.process.memory_mb())
    print(f"20 stuck readers, 20 MB each: {most - memory:+.0f} MB at most, PING {pulse.worst_s * 1000:.0f} ms at worst")
    assert most - memory < 20 * 3 + 20, "the buffer towards a client is 1 MiB"
    assert pulse.worst_s < LATE_S
    for client in stuck:
        client.cut()
    for client in (listening, sender):
        client.cut()
    await place.is_as_before(files, memory, more_mb=60)


async def test_a_flood_of_bad_logins_never_touches_a_valid_client(place: Place) -> None:
    """3,000 wrong credentials from the good ones' address: no row, no growth, nobody locked out."""
    process = place.process
    files, memory = await _settled(place)
    log = process.log.stat().st_size
    wrong = "asapp_" + "0" * 49
    kinds = [Login(f"bad-{n}", place.app[:-1] + "!" if n % 2 else wrong, "good") for n in range(3000)]
    async with pulse_of(place.good) as pulse:
        flood = asyncio.create_task(join(process.address, kinds, at_once=64))
        worst = 0.0
        while not flood.done():
            worst = max(worst, await place.worst_connect(0.2))
        members = await flood
    found = codes(members)
    assert set(found) <= {3, 4}
    assert found.count(3) > 1000, "nothing was throttled"
    print(f"3,000 bad logins beside: worst connect {worst * 1000:.0f} ms, worst PING {pulse.worst_s * 1000:.0f} ms")
    assert worst < LATE_S
    assert pulse.worst_s < LATE_S
    assert [t["key"] for t in await process.every(f"{process.at}/things")] == ["good"]
    assert process.query("SELECT count(*) FROM upstream_sessions WHERE tenant = ?", place.process.tenant) == [(0,)]
    assert process.log.stat().st_size - log < 1_000_000
    await leave(members)
    await place.is_as_before(files, memory, more_mb=15)


async def test_persistent_sessions_of_one_token_are_bounded(place: Place) -> None:
    """300 persistent client ids of one thing: 100 are kept, clean ones still come in, a kept one comes back."""
    members = await join(
        place.process.address, [Login("good", place.app, f"p{n}", clean=False) for n in range(300)], at_once=100
    )
    found = codes(members)
    assert found.count(0) == 100
    assert set(found) == {0, 5}
    assert place.process.query("SELECT count(*) FROM upstream_sessions WHERE tenant = ?", place.process.tenant) == [
        (100,)
    ]
    await leave(members)
    kept = f"p{found.index(0)}"
    assert await place.process.code("good", place.app, kept, clean=False) == 0
    assert await place.process.code("good", place.app, "one-more", clean=False) == 5
    await place.process.sound("good", place.app)


async def test_connections_come_and_go_without_growth(place: Place) -> None:
    """After 900 connections that come and go in every way, 900 more leave files and memory as they were."""
    files, memory = 0, 0.0
    for round_ in range(6):
        if round_ == 3:  # by then the allocator has what it takes for 300 at once
            files, memory = await _settled(place)
        members = await join(
            place.process.address, [Login("good", place.app, f"r{round_}-{n}") for n in range(300)], at_once=64
        )
        assert codes(members) == [0] * 300
        for member in members[::2]:
            assert member.transport is not None
            member.transport.write(wire.encode_subscribe(1, [(f"{place.process.tenant}/default/good/#", 1)]))
            member.transport.write(wire.encode_publish(f"{place.process.tenant}/default/good/x", b"x"))
        for member in members[::3]:
            assert member.transport is not None
            member.transport.write(wire.DISCONNECT_PACKET)
        await leave(members)
    await place.is_as_before(files, memory, more_mb=10)
    async with asyncio.timeout(5):
        while len(await place.process.every(f"{place.process.at}/sessions")) > 1:
            await asyncio.sleep(0.05)
