"""Ends that race with those who come back at once: what is taken away is away when the call has answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.broker.raw_client import RawClient
from tests.e2e.crowd import Login, Member
from tests.e2e.process import Process

BOUND_S = 0.1
HAMMERS = 20


class Hammer:
    """One client that connects again as soon as it is refused, cut off or answered; it notes when it was let in."""

    def __init__(self, process: Process, login: Login) -> None:
        self.process = process
        self.login = login
        self.admitted: list[tuple[float, Member]] = []  # when its CONNECT was sent, and the connection
        self.stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.stop.is_set():
            member = Member(self.login.packet())
            sent = time.perf_counter()
            await loop.create_connection(lambda member=member: member, *self.process.address)
            if await asyncio.wait_for(asyncio.shield(member.answered), 5) == 0:
                self.admitted.append((sent, member))
                await asyncio.wait([member.closed, asyncio.ensure_future(self.stop.wait())], timeout=0.02)
                if not self.stop.is_set() and len(self.admitted) % 2:
                    member.cut()  # or it is taken over by its own next connection


async def _hammered(process: Process, logins: list[Login], end: Callable[[], Awaitable[Any]]) -> None:
    """Let everybody hammer, end what they rest on, and look at what was open or let in after the answer."""
    hammers = [Hammer(process, login) for login in logins]
    tasks = [asyncio.create_task(hammer.run()) for hammer in hammers]
    await asyncio.sleep(0.5)
    await end()
    answered = time.perf_counter()
    await asyncio.sleep(0.5)
    for hammer in hammers:
        hammer.stop.set()
    await asyncio.gather(*tasks)
    everybody = [entry for hammer in hammers for entry in hammer.admitted]
    assert len(everybody) > len(hammers), "nobody was let in before: the case proves nothing"
    late = [member for sent, member in everybody if sent > answered]
    assert not late, f"{len(late)} were let in after the answer"
    living = [member for _, member in everybody if not member.closed.done()]
    assert not living, f"{len(living)} of {len(everybody)} connections live on"
    worst = max(member.closed.result() for _, member in everybody) - answered
    assert worst < BOUND_S, f"the last one was closed {worst * 1000:.0f} ms after the answer"
    assert await process.every(f"{process.at}/sessions") == []


@pytest.mark.parametrize("end", ["revoke", "regenerate", "block", "delete", "suspend", "revoke a device token"])
async def test_nobody_slips_in_while_the_right_ends(shared: Process, end: str) -> None:
    """20 clients that hammer with a valid token: none is admitted after the answer, none lives on 100 ms later."""
    await shared.open_definition()
    await shared.post(f"{shared.at}/things", {"key": "one", "thing_definition": "dev"})
    app, device = await shared.app_token(), await shared.device_token("one")
    ends: dict[str, Callable[[], Awaitable[Any]]] = {
        "revoke": lambda: shared.delete(f"{shared.at}/app-tokens/{app['id']}"),
        "regenerate": lambda: shared.post(f"{shared.at}/app-tokens/{app['id']}/regenerate", {}, status=200),
        "block": lambda: shared.patch(f"{shared.at}/things/one", {"state": "blocked"}),
        "delete": lambda: shared.delete(f"{shared.at}/things/one"),
        "suspend": lambda: shared.patch(shared.at, {"state": "suspended"}),
        "revoke a device token": lambda: shared.delete(f"{shared.at}/things/one/tokens/{device['id']}"),
    }
    secret = device["token"] if end == "revoke a device token" else app["token"]
    logins = [Login("one", secret, f"c{n // 2}") for n in range(HAMMERS)]  # two each: take-overs race as well
    await _hammered(shared, logins, ends[end])


async def test_nobody_registers_while_the_token_ends(shared: Process) -> None:
    """First connections race with the revocation: after the answer no new thing appears."""
    await shared.open_definition()
    app = await shared.app_token()
    number = 0
    stop = asyncio.Event()

    async def register() -> None:
        nonlocal number
        while not stop.is_set():
            number += 1
            await shared.code(f"n{number}", app["token"])

    tasks = [asyncio.create_task(register()) for _ in range(10)]
    await asyncio.sleep(0.4)
    await shared.delete(f"{shared.at}/app-tokens/{app['id']}")
    things = len(await shared.every(f"{shared.at}/things"))
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*tasks)
    assert things > 10
    assert len(await shared.every(f"{shared.at}/things")) == things


async def test_a_thing_that_moves_back_and_forth_is_never_at_two_places(shared: Process) -> None:
    """Moves race with publishes: after each answer nothing of the thing arrives at the place that it left."""
    await shared.open_definition()
    await shared.post(f"{shared.at}/grounds", {"key": "hall"})
    app = (await shared.app_token())["token"]
    spy = await shared.spy()
    thing = await shared.client("one", app)
    stop = asyncio.Event()

    async def chatter() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for ground in ("default", "hall"):
                await thing.publish(f"{shared.tenant}/{ground}/one/x", b"%d" % number)
            await asyncio.sleep(0.001)

    talking = asyncio.create_task(chatter())
    for ground in ("hall", "default") * 5:
        await shared.patch(f"{shared.at}/things/one", {"ground": ground})
        await _flushed(spy)  # what passed before the answer
        await asyncio.sleep(0.05)
        topics = {topic.split("/")[1] for topic in await _flushed(spy)}
        assert topics == {ground}
    stop.set()
    await talking


async def _flushed(spy: RawClient) -> list[str]:
    await spy.publish("end", qos=1)
    return [publish.topic for publish in await spy.deliveries_until("end")]
