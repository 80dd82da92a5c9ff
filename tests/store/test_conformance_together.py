"""Every engine: first connections that wait at one moment are registered together, as exactly as one by one."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Refusal, Thing
from authsvc.core.reasons import Reason
from authsvc.store import Written, registration
from tests.store.conftest import World, make_world, new_digest

FLEET = 60


async def test_each_of_a_fleet_is_its_own_thing_and_its_own_change(world: World) -> None:
    """Every answer names the one change row that speaks of its thing; positions have no gap and no double."""
    before = await world.store.last_position()
    answers = await asyncio.gather(
        *(world.store.register(world.plan(f"g{n}", name=f"näme {n}"), bind_client_id=f"c/{n} ü") for n in range(FLEET))
    )
    changes = {change.position: change for change in await world.store.changes_after(before)}
    assert sorted(changes) == list(range(before + 1, before + 1 + FLEET))
    for number, written in enumerate(answers):
        assert (written.value.key, written.value.name) == (f"g{number}", f"näme {number}")
        assert written.value.client_id == f"c/{number} ü"
        assert written.value == await world.store.thing("acme", f"g{number}")
        assert written.first == written.position
        change = changes[written.position]
        assert (change.name.key, change.op) == (f"g{number}", "registered")
        assert change.detail == {"definition": "gateway", "ground": "default", "gateway": ""}
    assert (await world.store.app_tokens.get("acme", world.token.id)).registered == FLEET


async def test_what_stands_in_the_way_of_one_is_told_to_that_one_alone(world: World) -> None:
    """A retired key, a bound one, the same key twice and a token that is gone, all at one moment."""
    await world.store.things.create("acme", "gone")
    await world.store.things.delete("acme", "gone")
    await world.register("held", client_id="holder")
    other = await world.store.app_tokens.create(
        "acme", digest=new_digest(), prefix="asapp_x", name="other", definition="gateway"
    )
    await world.store.app_tokens.delete("acme", other.value.id)
    asked = [
        (world.plan("a"), "c"),
        (world.plan("gone"), "c"),
        (world.plan("held"), "thief"),
        (world.plan("twice"), "first"),
        (world.plan("twice"), "second"),
        (world.plan("revoked", token_id=other.value.id), "c"),
        (world.plan("b", tags=("x",)), None),
    ]
    asked[5] = (type(asked[5][0])(thing=asked[5][0].thing, license="", max_things=None, token_id=other.value.id), "c")
    answers = await asyncio.gather(*(world.store.register(plan, bind_client_id=bound) for plan, bound in asked))
    told = [answer.value.reason if isinstance(answer.value, Refusal) else answer.value.key for answer in answers]
    mismatch = Reason.CLIENT_ID_MISMATCH
    assert told == ["a", Reason.THING_RETIRED, mismatch, "twice", mismatch, Reason.TOKEN_REVOKED, "b"]
    assert await world.store.thing("acme", "revoked") is None
    assert (await world.store.thing("acme", "b")).tags == ("x",)
    assert (await world.store.app_tokens.get("acme", world.token.id)).registered == 4


async def test_a_retired_key_among_new_ones_stays_retired(world: World) -> None:
    """No device brings back what an operator deleted, in whatever company it comes."""
    await world.store.things.create("acme", "gone")
    await world.store.things.delete("acme", "gone")
    keys = ["a", "gone", "b"]
    answers = await asyncio.gather(*(world.store.register(world.plan(key), bind_client_id=None) for key in keys))
    assert [isinstance(answer.value, Thing) for answer in answers] == [True, False, True]
    assert answers[1].value.reason is Reason.THING_RETIRED
    assert await world.store.thing("acme", "gone") is None


@pytest.mark.parametrize("client_id", ["a\0b", "\0", "line\nfeed", "tab\t", "\ud800", '"],["', "💡", "'; --"], ids=repr)
async def test_a_strange_client_id_is_bound_as_it_is_or_harms_nobody_else(world: World, client_id: str) -> None:
    """What one device calls itself is neither cut nor read as anything else, and its neighbours do not suffer."""
    strange = world.store.register(world.plan("strange"), bind_client_id=client_id)
    others = [world.store.register(world.plan(f"g{n}"), bind_client_id=f"c{n}") for n in range(5)]
    answer, *neighbours = await asyncio.gather(strange, *others, return_exceptions=True)
    assert [written.value.client_id for written in neighbours] == [f"c{n}" for n in range(5)]
    if isinstance(answer, Exception):
        assert client_id == "\ud800"  # no text at all
    else:
        assert (await world.store.thing("acme", "strange")).client_id == client_id


async def test_nearly_full_pools_give_out_what_is_left(store) -> None:
    """Where not all that wait can have a seat, as many get one as there are, and the quota counts those."""
    world = await make_world(store, license="pool", seats=7, max_things=50)
    answers = await asyncio.gather(*(store.register(world.plan(f"g{n}"), bind_client_id=None) for n in range(20)))
    assert sum(isinstance(answer.value, Thing) for answer in answers) == 7
    assert (await store.licenses.get("acme", "pool")).used == 7
    assert (await store.app_tokens.get("acme", world.token.id)).registered == 7


async def test_a_work_of_many_that_raises_does_nothing_and_leaves_each_to_itself(world: World, monkeypatch) -> None:
    """Whatever goes wrong for all of them together is rolled back, and they are registered one by one."""

    def half(tx, asked):
        registration_all(tx, asked)
        raise KeyError("mistake")

    registration_all = registration.register_all
    monkeypatch.setattr(registration, "register_all", half)
    before = await world.store.last_position()
    answers = await asyncio.gather(*(world.store.register(world.plan(f"g{n}"), bind_client_id=None) for n in range(5)))
    assert [answer.value.key for answer in answers] == [f"g{n}" for n in range(5)]
    assert [answer.position for answer in answers] == list(range(before + 1, before + 6))
    assert (await world.store.app_tokens.get("acme", world.token.id)).registered == 5


async def test_who_has_gone_before_the_commit_is_not_registered(world: World) -> None:
    """A device that hangs up while it waits leaves no thing; those who wait with it are registered."""
    waiting = [asyncio.create_task(world.store.register(world.plan(f"g{n}"), bind_client_id=None)) for n in range(6)]
    await asyncio.sleep(0)
    waiting[2].cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(answer, Written) for answer in answers] == [True, True, False, True, True, True]
    assert await world.store.thing("acme", "g2") is None
    assert (await world.store.app_tokens.get("acme", world.token.id)).registered == 5


async def test_a_close_answers_every_registration_that_waits(world: World) -> None:
    """Each is registered or told that it was not; nobody hangs."""
    waiting = [asyncio.create_task(world.store.register(world.plan(f"g{n}"), bind_client_id=None)) for n in range(300)]
    await asyncio.sleep(0)
    await world.store.close()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, Written | StoreUnavailable), answer
