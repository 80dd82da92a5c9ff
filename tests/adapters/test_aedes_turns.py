"""Aedes with our package attached, hammered by revokes and reconnects: no question waits for a report behind it.

The service answers a CONNECT when the order to end the connection before it is done, and takes who left after that:
the agent's word that it is done must not queue behind either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.adapters.aedes_broker import aedes_broker
from tests.adapters.aedes_proxy import Proxy, proxy_to
from tests.adapters.aedes_rig import SECRET, Rig
from tests.broker.raw_client import RawClient
from tests.e2e.process import running

pytestmark = pytest.mark.alone  # it measures time

SOON_S = 3.0  # five seconds is what a question costs that waits for another
FLEET = 100  # more than the connections on which an agent asks


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[Rig, Proxy]]:
    """A pair of which the events arrive one by one."""
    async with (
        running(tmp_path, brokers__aedes__secret=SECRET) as service,
        proxy_to(int(service.url.rpartition(":")[2])) as proxy,
    ):
        stack = aedes_broker(tmp_path, proxy.url, secret=SECRET)
        rig = Rig(service, await asyncio.to_thread(stack.__enter__))  # it waits for what this loop passes on
        try:
            await rig.cast()
            yield rig, proxy
        finally:
            await service.leave()
            await asyncio.to_thread(stack.__exit__, None, None, None)


async def timed(rig: Rig, key: str, secret: str) -> tuple[RawClient, int | None, float]:
    """Connect a thing with a persistent session; return the client, the code and the seconds that it took."""
    client = await RawClient.open(rig.service.address)
    began = time.monotonic()
    code = await client.connect(rig.id(key), secret, username=key, clean=False)
    return client, code, time.monotonic() - began


async def test_a_client_that_comes_back_after_a_revoke_is_answered_at_once(slow: tuple[Rig, Proxy]) -> None:
    """The end of its connection is heard before the order to wipe: that it left is told between the two."""
    rig, proxy = slow
    proxy.pause_s = 0.1
    client, code, _ = await timed(rig, "a", rig.secret["a"])
    for _ in range(3):
        revoked, secret = rig.token_id["a"], await rig.token("a")
        await rig.service.delete(f"{rig.at}/things/a/tokens/{revoked}")
        assert await client.closed(2)
        client, code, took_s = await timed(rig, "a", secret)
        assert code == 0
        assert took_s < SOON_S


async def test_a_fleet_whose_secret_is_replaced_comes_back_at_once(slow: tuple[Rig, Proxy]) -> None:
    """All connections of a token end together, and all come back together, while some are being wiped."""
    rig, _ = slow
    fleet = await rig.service.app_token()
    things = [f"f{number}" for number in range(FLEET)]
    first = await asyncio.gather(*(timed(rig, thing, fleet["token"]) for thing in things))
    clients = {thing: client for thing, (client, _, _) in zip(things, first, strict=True)}
    for _ in range(2):
        regenerated = f"{rig.at}/app-tokens/{fleet['id']}/regenerate"
        fleet = await rig.service.post(regenerated, {"overlap_s": 0}, status=200)
        slowest_s = await asyncio.gather(*(back(rig, thing, fleet["token"], clients) for thing in things))
        assert max(slowest_s) < SOON_S


async def back(rig: Rig, thing: str, secret: str, clients: dict[str, RawClient]) -> float:
    """Connect again when the connection has ended, until admitted; return the longest wait for an answer."""
    assert await clients[thing].closed(5)
    slowest_s = 0.0
    for _ in range(5):  # a busy machine may say once that the session before is being ended
        clients[thing], code, took_s = await timed(rig, thing, secret)
        slowest_s = max(slowest_s, took_s)
        if code == 0:
            return slowest_s
    raise AssertionError(f"{thing} was not admitted: {code}")
