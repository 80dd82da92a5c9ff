"""What is gone stays gone: keys that are used again, scopes that end, and writes that an answered change forbids."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core import tokens
from authsvc.core.facts import Refusal, TokenKind
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from authsvc.sessions import Will
from tests.service.conftest import T, World


async def _delete_and_make_again(world: World) -> None:
    await world.store.tenants.delete(T, cascade=True)
    await world.store.tenants.create(T)
    await world.settle()


async def test_tokens_of_a_deleted_tenant_do_not_open_the_next_one_of_its_key(world: World):
    """One change row stands for all that was in the tenant: nothing of it answers from a cache any more."""
    _, app = await world.app_token()
    _, ground = await world.ground_token("default")
    await world.store.things.create(T, "gw-1")
    _, device = await world.device_token("gw-1")
    for _ in range(2):  # the second time everything comes from memory
        for text, thing in ((app, "gw-1"), (ground, ""), (device, "")):
            await world.connect(text, thing)
        await world.settle()
    await _delete_and_make_again(world)
    assert len(world.service.sessions) == 0
    for text, thing in ((app, "gw-1"), (app, "new"), (ground, ""), (device, "")):
        assert await world.refused(text, thing) is Reason.UNKNOWN_TOKEN
    assert await world.store.thing(T, "new") is None


async def test_a_read_that_the_end_of_its_tenant_overtakes_is_not_cached(world: World, monkeypatch):
    """The read began before the tenant went and answers after: it must not be what the next tenant is judged by."""
    _, text = await world.app_token()
    await world.store.things.create(T, "gw-1")
    await world.settle()
    read, began, go_on = world.store.thing, asyncio.Event(), asyncio.Event()

    async def held(tenant: str, key: str):
        found = await read(tenant, key)
        began.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(world.store, "thing", held)
    reading = asyncio.create_task(world.service.facts.thing(T, "gw-1"))
    await began.wait()
    monkeypatch.setattr(world.store, "thing", read)
    await _delete_and_make_again(world)
    go_on.set()
    await reading
    assert await world.service.facts.thing(T, "gw-1") is None


async def test_a_gateway_does_not_inherit_the_modules_of_a_deleted_tenant(world: World):
    """The sets of a tenant are emptied with it, though grants that are remembered still hold them."""
    for _ in range(2):
        await world.store.things.create(T, "gw", definition="gateway")
        await world.settle()
        _, text = await world.app_token()
        session, _ = await world.connect(text, "gw")
        assert not session.grant.decide(Action.PUBLISH, f"{T}/default/m-1/state/on").allowed
        await world.store.modules.bind(T, "gw", "m-1")
        await world.settle()
        assert session.grant.decide(Action.PUBLISH, f"{T}/default/m-1/state/on").allowed
        await _delete_and_make_again(world)
        assert not session.grant.decide(Action.PUBLISH, f"{T}/default/m-1/state/on").allowed


@pytest.mark.parametrize("how", ["the thing moves away", "the token is given another ground"])
async def test_a_session_ends_when_its_tokens_scope_does(world: World, how: str):
    """A token of one ground is no way to a thing that has left it: who may not come in may not stay either."""
    for ground in ("g1", "g2"):
        await world.store.grounds.create(T, ground)
    await world.store.things.create(T, "gw-1", ground="g1")
    await world.settle()
    token, text = await world.app_token(ground="g1")
    _, wire = await world.connect(text, "gw-1")
    _, own = await world.connect(text, "gw-2", client_id="c2")
    if how == "the thing moves away":
        await world.store.things.update(T, "gw-1", ground="g2")
        await world.store.things.update(T, "gw-2", ground="g2")
    else:
        await world.store.app_tokens.update(T, token.id, ground="g2")
    await world.settle()
    assert wire.ends == [(Reason.THING_OUT_OF_SCOPE, Will.NEVER)]
    assert await world.refused(text, "gw-1") is Reason.THING_OUT_OF_SCOPE
    assert own.ends == []  # the token registered it
    assert len(own.grants) >= 1


async def _regenerate(world: World, token_id: str):
    text = tokens.mint(TokenKind.APP)
    return await world.store.app_tokens.regenerate(T, token_id, digest=tokens.digest(text), prefix=tokens.prefix(text))


FORBIDS = {
    "registers no more": (
        lambda world, token: world.store.app_tokens.update(T, token.id, auto_register=False),
        Reason.THING_UNKNOWN,
    ),
    "another secret": (lambda world, token: _regenerate(world, token.id), Reason.TOKEN_REVOKED),
}


@pytest.mark.parametrize("change", FORBIDS)
@pytest.mark.parametrize("known", [False, True], ids=["first connection", "binding"])
async def test_nothing_is_registered_or_bound_against_a_change_that_was_answered(
    world: World, monkeypatch, change: str, known: bool
):
    """The admission read its facts before the change; what it writes after the answer must not rest on them."""
    act, reason = FORBIDS[change]
    token, text = await world.app_token()
    if known:
        await world.store.things.create(T, "gw-1")
        await world.settle()
    basis, done = world.service.granting.basis, []

    async def overtaken(*facts: object):
        found = await basis(*facts)
        if not done:
            done.append(True)
            await world.settle((await act(world, token)).position)
        return found

    monkeypatch.setattr(world.service.granting, "basis", overtaken)
    if known and change == "registers no more":
        await world.admitted(text, "gw-1")  # it admits what is there
        return
    assert await world.refused(text, "gw-1") is reason
    thing = await world.store.thing(T, "gw-1")
    assert (thing is not None and thing.client_id is None) if known else thing is None


async def test_sessions_that_were_wiped_count_anew(world: World):
    """A principal whose persistent sessions were wiped does not get twice as many by remembering their names."""
    world.service._admission._max_persistent = 2
    token, text = await world.ground_token("default")
    for client_id in ("a", "b"):
        await world.connect(text, client_id=client_id, clean=False)
    principal = f"ground/{T}/{token.id}"
    assert await world.store.persistent_count(principal) == 2
    await world.store.forget_upstream()
    for client_id in ("c", "d"):
        await world.connect(text, client_id=client_id, clean=False)
    outcome = await world.service.upstream_session(await world.admitted(text, client_id="a", clean=False))
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.SESSION_LIMIT
    assert await world.store.persistent_count(principal) == 2
