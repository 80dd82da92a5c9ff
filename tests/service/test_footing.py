"""Whatever happens in whatever order: after the feed has settled no session rests on what has ended."""

from __future__ import annotations

import asyncio
import random

import pytest

from authsvc.core.errors import AuthsvcError
from authsvc.core.facts import Effect, Kind, Refusal, Rule, RuleAction, TenantState, ThingState
from authsvc.core.policy import Action
from authsvc.sessions import Session
from tests.service.conftest import T, Wire, World

THINGS = [f"gw-{n}" for n in range(6)]
GROUNDS = ["default", "north"]


async def _connect(world: World, texts: list[str], dice: random.Random) -> None:
    """Connect as the gate does, with as many turns of the loop between the steps as chance will have."""
    text, thing = dice.choice(texts), dice.choice(THINGS)
    admitted = await world.admit(text, thing, client_id=f"c-{thing}", clean=dice.random() < 0.5)
    if isinstance(admitted, Refusal):
        return
    for _ in range(dice.randrange(4)):
        await asyncio.sleep(0)
    async with world.service.sessions.lock(admitted.principal, admitted.client_id, broker="gate"):
        if not isinstance(await world.service.upstream_session(admitted), Refusal):
            world.service.sessions.open(admitted, Wire(), broker="gate", peer="p")


async def _change(world: World, token_ids: list[str], dice: random.Random) -> None:
    """Change something at random, without waiting for the feed."""
    thing, token, store = dice.choice(THINGS), dice.choice(token_ids), world.store
    rules = (
        Rule(
            effect=dice.choice(list(Effect)),
            action=RuleAction.PUBLISH,
            topic="{tenant}/{ground}/{thing}/" + dice.choice(["state/#", "x"]),
        ),
    )
    acts = [
        lambda: store.things.update(T, thing, ground=dice.choice(GROUNDS)),
        lambda: store.things.update(T, thing, ground=dice.choice(GROUNDS)),
        lambda: store.things.update(T, thing, state=dice.choice(list(ThingState))),
        lambda: store.things.delete(T, thing),
        lambda: store.things.forget(T, thing),
        lambda: store.things.reset_client_id(T, thing),
        lambda: store.definitions.update(T, "thing", rules=rules),
        lambda: store.roles.update(T, "r", rules=rules),
        lambda: store.app_tokens.update(T, token, roles=dice.choice([(), ("r",)])),
        lambda: store.app_tokens.regenerate(
            T, token, digest=dice.randbytes(32), prefix="asapp_xxxx", overlap_us=dice.choice([0, 10**9])
        ),
        lambda: store.tenants.update(T, state=dice.choice([TenantState.SUSPENDED, *[TenantState.ACTIVE] * 4])),
    ]
    if dice.random() < 0.05:
        acts = [lambda: store.app_tokens.delete(T, token)]
    try:
        await dice.choice(acts)()
    except AuthsvcError:
        return  # what is gone cannot be changed


async def _wrong(world: World, session: Session) -> str:
    """Return what is wrong with a live session, judged by the store alone."""
    tenant = await world.store.tenant(T)
    token = await world.store.token(T, session.token_id)
    thing = await world.store.thing(T, session.thing or "")
    if tenant.state is not TenantState.ACTIVE or token is None or token.revoked_at_us is not None:
        return "tenant or token has ended"
    if thing is None or thing.state is ThingState.BLOCKED:
        return "thing has ended"
    if thing.client_id is not None and thing.client_id != session.client_id:
        return "another client id is bound"
    fresh = await World(world.store, world.clock).service._regrant(session)
    if isinstance(fresh, Refusal):
        return f"would be refused: {fresh.reason}"
    if session.ground != thing.ground or session.footing != fresh.footing:
        return "rests on something else"
    if session.grant.rules != fresh.grant.rules:
        return "has an old grant"
    topic = f"{T}/{thing.ground}/{thing.key}/state/x"
    if session.grant.decide(Action.PUBLISH, topic) != fresh.grant.decide(Action.PUBLISH, topic):
        return "decides otherwise"
    return ""


@pytest.mark.parametrize("seed", range(12))
async def test_no_session_rests_on_what_has_ended(world: World, seed: int):
    """Admissions and changes race at random; the survivors have exactly the grant that the store's facts give."""
    dice = random.Random(seed)
    await world.store.grounds.create(T, "north")
    await world.store.roles.create(T, "r", rules=())
    made = [await world.app_token(roles=("r",)), await world.app_token(), await world.app_token(ground="north")]
    texts, token_ids = [text for _, text in made], [token.id for token, _ in made]
    survivors = 0
    for _ in range(12):
        jobs = [_connect(world, texts, dice) for _ in range(8)] + [_change(world, token_ids, dice) for _ in range(3)]
        dice.shuffle(jobs)
        await asyncio.gather(*jobs)
        await world.settle()
        for session in world.service.sessions:
            assert await _wrong(world, session) == "", session
            survivors += 1
        assert len(world.service.sessions._locks) == 0
    indexed = {session for found in world.service.sessions._by_name.values() for session in found}
    assert indexed == set(world.service.sessions)
    assert all(name.kind is not Kind.CLEARING for name in world.service.sessions._by_name)
    assert survivors or seed
