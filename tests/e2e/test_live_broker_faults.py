"""The broker behind stalls, dies and comes back: nobody waits for it in vain, nothing revoked returns with it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.broker.mosquitto import Mosquitto
from tests.e2e.crowd import Login, codes, join
from tests.e2e.process import Process, T, running

UNAVAILABLE = 3


class Behind:
    """The service before a Mosquitto that keeps what it has on disk."""

    def __init__(self, process: Process, broker: Mosquitto, app: str) -> None:
        self.process = process
        self.broker = broker
        self.app = app


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    broker = Mosquitto(tmp_path, persistence=True)
    await broker.start()
    try:
        async with running(tmp_path, upstream=broker.path, limits__admission_s=1) as process:
            await process.open_definition()
            yield Behind(process, broker, (await process.app_token())["token"])
    finally:
        if broker._process is not None and broker._process.returncode is None:
            broker.thaw()
        await broker.stop()


async def _ready(process: Process) -> int:
    try:
        return (await process.api.get("/readyz")).status_code
    except httpx.TransportError:
        return 0


async def test_a_frozen_broker_delays_no_revocation_and_no_end(behind: Behind) -> None:
    """Promise 9 does not rest on the broker: sockets close in time, CONNECT gets 3 within its limit, SIGTERM ends."""
    process = behind.process
    members = await join(process.address, [Login(f"t{n}", behind.app) for n in range(50)])
    assert codes(members) == [0] * 50
    await process.post(f"{T}/things", {"key": "d", "thing_definition": "dev"})
    device = await process.device_token("d")
    persistent = await process.client("d", device["token"], clean=False)
    assert await persistent.subscribe(("default/default/d/#", 1)) == [1]
    behind.broker.freeze()
    began = time.perf_counter()
    await process.delete(f"{T}/things/d/tokens/{device['id']}")
    assert time.perf_counter() - began < 1
    assert await persistent.closed(0.1)
    await process.delete(f"{T}/things/t0")
    answered = time.perf_counter()
    assert await asyncio.wait_for(members[0].closed, 1) - answered < 0.1
    began = time.perf_counter()
    assert codes(await join(process.address, [Login("t1", behind.app, "other", clean=False)])) == [UNAVAILABLE]
    assert time.perf_counter() - began < 2
    assert not any(member.closed.done() for member in members[1:])
    assert await process.terminate() < 5


async def test_what_was_revoked_while_the_broker_was_away_is_gone_when_it_is_back(behind: Behind) -> None:
    """The broker dies with a queue on its disk; the revocation then is remembered until it can be cleared."""
    process, topic = behind.process, "default/default/d/x"
    await process.post(f"{T}/things", {"key": "d", "thing_definition": "dev"})
    old, writer = await process.device_token("d"), await process.device_token("d")
    client = await process.client("d", old["token"], "phone", clean=False)
    assert await client.subscribe((topic, 1)) == [1]
    client.cut()
    sender = await process.client("d", writer["token"], "sender")
    await sender.publish(topic, b"queued", qos=1)
    await asyncio.sleep(1.5)  # the broker's own autosave interval
    await behind.broker.stop()
    assert await sender.closed(2), "a client outlived its broker"
    assert await _ready(process) == 503
    assert await process.code("d", writer["token"], "other") == UNAVAILABLE
    await process.delete(f"{T}/things/d/tokens/{old['id']}")
    ((upstream_id,),) = process.query("SELECT target FROM clearings WHERE kind = 'session'")
    await process.kill()
    process.spawn()
    await behind.broker.start()
    async with asyncio.timeout(15):
        while await _ready(process) != 200 or process.query("SELECT count(*) FROM clearings") != [(0,)]:
            await asyncio.sleep(0.05)
    new = await process.device_token("d")
    again = await process.client("d", new["token"], "phone", clean=False)
    assert not again.session_present
    await again.ping()
    assert again.received == []
    assert await _session_present(behind.broker, upstream_id) is False, "the broker still holds the session"


async def _session_present(broker: Mosquitto, upstream_id: str) -> bool:
    from tests.broker.raw_client import RawClient

    client = await RawClient.open(("127.0.0.1", broker.port))
    assert await client.connect(upstream_id, None, clean=False) == 0
    return client.session_present


async def test_a_persistent_session_survives_a_crash_of_the_service(behind: Behind) -> None:
    """Kill -9, and the client finds its session and what was queued, exactly once registered and still its own."""
    process, topic = behind.process, "default/default/a/x"
    client = await process.client("a", behind.app, "phone", clean=False)
    assert await client.subscribe((topic, 1)) == [1]
    client.cut()
    sender = await process.client("a", behind.app, "sender")
    await sender.publish(topic, b"queued", qos=1)
    await process.kill()
    await process.start()
    other = await process.client("b", behind.app, "phone", clean=False)
    assert not other.session_present, "an equal client id of another thing"
    again = await process.client("a", behind.app, "phone", clean=False)
    assert again.session_present
    assert (await again.delivery()).payload == b"queued"


async def test_a_broker_that_comes_back_is_used_again(behind: Behind) -> None:
    """Sessions end with it, CONNECT gets 3 and changes nothing, and soon after its return everything works."""
    process = behind.process
    members = await join(process.address, [Login(f"t{n}", behind.app) for n in range(50)])
    assert behind.broker._process is not None
    behind.broker._process.send_signal(signal.SIGKILL)
    await behind.broker._process.wait()
    async with asyncio.timeout(2):
        await asyncio.gather(*(member.closed for member in members))
    assert await process.code("t1", behind.app) == UNAVAILABLE
    behind.broker.path.unlink(missing_ok=True)
    await behind.broker.start()

    async def back() -> bool:
        return await process.code("t1", behind.app) == 0

    async with asyncio.timeout(7):
        while not await back():
            await asyncio.sleep(0.05)
    await process.sound("t1", behind.app)
    assert subprocess.run(["kill", "-0", str(process.pid)], check=False).returncode == 0


@pytest.mark.slow
async def test_a_thousand_clients_are_back_after_a_restart(tmp_path: Path) -> None:
    """1,000 sessions end within 5 s of SIGTERM, and all are in again at once, within ten seconds."""
    async with running(tmp_path) as process:
        await process.open_definition()
        app = (await process.app_token())["token"]
        logins = [Login(f"t{n}", app) for n in range(1000)]
        members = await join(process.address, logins, at_once=100)
        assert codes(members) == [0] * 1000
        await asyncio.sleep(0)
        took = await process.terminate()
        async with asyncio.timeout(1):
            await asyncio.gather(*(member.closed for member in members))
        await process.start()
        before = process.memory_mb()
        began = time.monotonic()
        members = await join(process.address, logins, at_once=1000)
        back = time.monotonic() - began
        print(f"1,000 sessions: ended in {took:.1f} s, back in {back:.1f} s, {process.memory_mb() - before:.0f} MB")
        assert took < 5
        assert codes(members) == [0] * 1000
        assert back < 10
        for member in members:
            member.cut()
        assert await process.terminate() < 5
