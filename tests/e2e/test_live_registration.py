"""Promise 7 through the front door: races of first connections for one key, for seats and for a quota."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.e2e.crowd import Login, codes, join, leave
from tests.e2e.process import Process

NOT_AUTHORISED = 5


@pytest.fixture
async def process(shared: Process) -> Process:
    await shared.open_definition()
    return shared


async def _registered(process: Process) -> list[str]:
    return sorted(thing["key"] for thing in await process.every(f"{process.at}/things"))


async def test_two_hundred_first_connections_of_one_key_make_one_thing(process: Process) -> None:
    """One thing, one change row, one seat; every client with an id of its own is admitted and stays."""
    await process.post(f"{process.at}/licenses", {"key": "l", "seats": 10})
    app = (await process.app_token(license="l", max_things=10))["token"]
    members = await join(process.address, [Login("one", app, f"c{n}") for n in range(200)], at_once=200)
    assert Counter(codes(members)) == {0: 200}
    assert await _registered(process) == ["one"]
    assert (await process.get(f"{process.at}/licenses/l"))["used"] == 1
    assert process.query("SELECT count(*) FROM changes WHERE op = 'registered' AND tenant = ?", process.tenant) == [
        (1,)
    ]
    assert not any(member.closed.done() for member in members), "a CONNACK 0 was withdrawn"
    assert len(await process.every(f"{process.at}/sessions")) == 200
    await leave(members)


async def test_two_hundred_first_connections_of_one_key_and_client_id_leave_one_session(process: Process) -> None:
    """With equal client ids: everybody is answered 0, the last one lives, all others were taken over."""
    app = (await process.app_token())["token"]
    members = await join(process.address, [Login("one", app)] * 200, at_once=200)
    assert Counter(codes(members)) == {0: 200}
    assert await _registered(process) == ["one"]
    async with asyncio.timeout(5):
        while sum(member.closed.done() for member in members) < 199:
            await asyncio.sleep(0.01)
    assert len(await process.every(f"{process.at}/sessions")) == 1
    await leave(members)


async def test_the_first_client_id_of_a_race_is_bound_and_everybody_else_refused(process: Process) -> None:
    """With `bind_client_id` the race has one winner, and the thing is bound to what the winner said."""
    await process.post(f"{process.at}/thing-definitions", {"key": "bound", "bind_client_id": "app_token"})
    app = (await process.app_token(thing_definition="bound"))["token"]
    members = await join(process.address, [Login("one", app, f"c{n}") for n in range(100)], at_once=100)
    found = codes(members)
    assert Counter(found) == {0: 1, NOT_AUTHORISED: 99}
    (session,) = await process.every(f"{process.at}/sessions")
    assert session["client_id"] == f"c{found.index(0)}"
    assert process.query("SELECT client_id FROM things WHERE tenant = ?", process.tenant) == [(session["client_id"],)]
    await leave(members)


@pytest.mark.parametrize("limit", ["license", "max_things"])
async def test_four_hundred_racing_keys_take_exactly_fifty_places(process: Process, limit: str) -> None:
    """Exactly 50 get in, the counter says 50, who is in comes back, a freed place is taken once."""
    await process.post(f"{process.at}/licenses", {"key": "l", "seats": 50 if limit == "license" else 1000})
    quota = {"max_things": 50} if limit == "max_things" else {}
    app = (await process.app_token(license="l", **quota))["token"]
    members = await join(process.address, [Login(f"k{n}", app) for n in range(400)], at_once=400)
    found = codes(members)
    assert Counter(found) == {0: 50, NOT_AUTHORISED: 350}
    winners = sorted(f"k{n}" for n, code in enumerate(found) if code == 0)
    losers = sorted(f"k{n}" for n, code in enumerate(found) if code != 0)
    assert await _registered(process) == winners
    assert (await process.get(f"{process.at}/licenses/l"))["used"] == 50
    await leave(members)
    again = await join(process.address, [Login(key, app) for key in winners + losers[:50]], at_once=100)
    assert codes(again) == [0] * 50 + [NOT_AUTHORISED] * 50
    await leave(again)
    reasons = {r["reason"] for r in (await process.get(f"{process.at}/refusals?limit=1000"))["items"]}
    assert reasons == {"license_exhausted" if limit == "license" else "quota_exhausted"}
    await process.delete(f"{process.at}/things/{winners[0]}")
    assert (await process.get(f"{process.at}/licenses/l"))["used"] == 49
    race = await join(process.address, [Login(key, app) for key in losers[:100]], at_once=100)
    assert Counter(codes(race)) == {0: 1, NOT_AUTHORISED: 99}
    assert (await process.get(f"{process.at}/licenses/l"))["used"] == 50
    await leave(race)
    await process.kill()
    await process.start()
    assert (await process.get(f"{process.at}/licenses/l"))["used"] == 50
    assert len(await _registered(process)) == 50


async def test_seats_are_exact_while_things_are_deleted_and_the_licence_shrinks(process: Process) -> None:
    """Registrations, deletions and a smaller licence at once: used is what has a seat, nobody new comes in above it."""
    await process.post(f"{process.at}/licenses", {"key": "l", "seats": 60})
    app = (await process.app_token(license="l"))["token"]
    first = await join(process.address, [Login(f"a{n}", app) for n in range(40)], at_once=40)
    assert codes(first) == [0] * 40

    async def delete() -> None:
        for n in range(20):
            await process.delete(f"{process.at}/things/a{n}")

    async def shrink() -> None:
        await process.patch(f"{process.at}/licenses/l", {"seats": 30})

    race = join(process.address, [Login(f"b{n}", app) for n in range(200)], at_once=50)
    members, _, _ = await asyncio.gather(race, delete(), shrink())
    license_ = await process.get(f"{process.at}/licenses/l")
    seated = process.query("SELECT count(*) FROM things WHERE license = 'l' AND tenant = ?", process.tenant)[0][0]
    assert license_["seats"] == 30
    assert license_["used"] == seated == 20 + codes(members).count(0)
    assert license_["used"] <= 60
    late = await join(process.address, [Login(f"late{n}", app) for n in range(5)])
    assert codes(late) == ([NOT_AUTHORISED] * 5 if seated >= 30 else codes(late))
    await leave([*first, *members, *late])


async def test_keys_that_differ_in_case_are_two_things_and_odd_ones_are_none(process: Process) -> None:
    """Promise 6: keys are compared byte by byte; what cannot be one topic level registers nothing."""
    app = (await process.app_token())["token"]
    odd = ["Dev1 ", "a/b", "+", "#", "a\n", "", "ü", "-x", "x" * 65, "ＤＥＶ1", "Dev1\u200b", "{module}", "..", "."]
    members = await join(process.address, [Login(key, app, f"c{n}") for n, key in enumerate(["Dev1", "dev1", *odd])])
    assert codes(members)[:2] == [0, 0]
    assert set(codes(members)[2:]) <= {4, 5, None}
    assert await _registered(process) == ["Dev1", "dev1"]
    await leave(members)
