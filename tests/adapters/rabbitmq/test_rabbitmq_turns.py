"""RabbitMQ asks on two connections and queues the rest: no answer of ours may wait for a question behind it."""

from __future__ import annotations

import asyncio
import time

from authsvc.core.facts import RuleAction
from tests.adapters.rabbitmq.rig import allow, device
from tests.service.conftest import T

SOON_S = 2.0  # five seconds is what a question costs that waits for another
CONNACK_ACCEPTED = 0


async def test_a_client_whose_rights_changed_while_it_was_away_stalls_nobody(rig):
    """Its queue has to be wiped first, which takes questions of RabbitMQ's own: it is told to come again, at once."""
    secret = await device(rig.world, "a1", allow(RuleAction.SUBSCRIBE, "{tenant}/a/#"))
    other = await device(rig.world, "b1")
    client = await rig.connect("a1-client", secret, "a1", clean=False)
    await client.subscribe((f"{T}/a/#", 1))
    client.cut()
    await rig.world.store.definitions.update(T, "of-a1", rules=(allow(RuleAction.SUBSCRIBE, "{tenant}/b/#"),))
    await rig.world.settle()
    for round_ in range(3):
        began = time.perf_counter()
        codes = await asyncio.gather(
            rig.code("a1-client", secret, "a1", clean=False),
            rig.code("b1-client", other, "b1"),
            rig.code("c1-client", other, "b1"),
        )
        assert time.perf_counter() - began < SOON_S, (round_, codes)
        assert codes[1:] == [CONNACK_ACCEPTED, CONNACK_ACCEPTED]
    await rig.management_idle()
    assert await rig.code("a1-client", secret, "a1", clean=False) == CONNACK_ACCEPTED


async def test_a_client_that_comes_while_it_is_kicked_stalls_nobody(rig):
    """Every client of a ground is moved, and each connects again the moment its connection ends."""
    others = await device(rig.world, "b1")
    await rig.world.store.grounds.create(T, "g2")
    secrets = {f"t{number}": await device(rig.world, f"t{number}") for number in range(6)}
    clients = {thing: await rig.connect(thing, secret, thing, clean=False) for thing, secret in secrets.items()}
    for thing in secrets:
        await rig.world.store.things.update(T, thing, ground="g2")
    await rig.world.settle()

    async def again(thing: str) -> None:
        assert await clients[thing].closed(10)
        async with asyncio.timeout(10):
            while await rig.code(thing, secrets[thing], thing, clean=False) != CONNACK_ACCEPTED:
                await asyncio.sleep(0.05)

    came_back = asyncio.gather(*(again(thing) for thing in secrets))
    while not came_back.done():
        began = time.perf_counter()
        assert await rig.code("b1-client", others, "b1") == CONNACK_ACCEPTED
        assert time.perf_counter() - began < SOON_S
        await asyncio.sleep(0.1)
    await came_back


async def test_who_asks_for_the_client_id_of_another_stalls_nobody(rig):
    """Whether RabbitMQ still has something under it is asked beside the CONNECT; the next one finds the answer."""
    holder, thief = await device(rig.world, "a1"), await device(rig.world, "b1")
    client = await rig.connect("shared", holder, "a1")
    session = rig.session("shared")
    session.since_us -= 60_000_000
    began = time.perf_counter()
    codes = await asyncio.gather(*(rig.code("shared", thief, "b1") for _ in range(8)))
    assert CONNACK_ACCEPTED not in codes
    assert time.perf_counter() - began < SOON_S
    await client.ping()
