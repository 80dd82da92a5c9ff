"""A CONNECT that was admitted before is not judged from the start again: only as long as nothing of it has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from authsvc.core.credentials import WillMessage
from authsvc.core.facts import Refusal, TenantState, ThingState
from authsvc.core.policy import Action
from authsvc.core.reasons import Reason
from tests.service.conftest import T, World, request, started


async def known(world: World, **fields: object) -> tuple[str, str]:
    """Return the id and text of an app token by which the thing `gw-1` has connected, and is remembered."""
    token, text = await world.app_token(expires_at_us=world.clock.now_us() + 3_600_000_000)
    await world.connect(text, "gw-1", **fields)
    await world.settle()
    first = await world.admitted(text, "gw-1", **fields)
    assert await world.admitted(text, "gw-1", **fields) is first, "it is not remembered: nothing is tested here"
    return token.id, text


async def _blocked(world: World, _: str) -> None:
    await world.store.things.update(T, "gw-1", state=ThingState.BLOCKED)


async def _deleted(world: World, _: str) -> None:
    await world.store.things.delete(T, "gw-1")


async def _revoked(world: World, token: str) -> None:
    await world.store.app_tokens.delete(T, token)


async def _suspended(world: World, _: str) -> None:
    await world.store.tenants.update(T, state=TenantState.SUSPENDED)


async def _expired(world: World, _: str) -> None:
    world.clock.move(3_601)


CHANGES: list[tuple[Callable[[World, str], Awaitable[None]], Reason]] = [
    (_blocked, Reason.THING_BLOCKED),
    (_deleted, Reason.THING_RETIRED),
    (_revoked, Reason.TOKEN_REVOKED),
    (_suspended, Reason.TENANT_SUSPENDED),
    (_expired, Reason.TOKEN_EXPIRED),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=[reason.value for _, reason in CHANGES])
async def test_what_ends_a_principal_refuses_the_next_connect(world: World, change, reason: Reason):
    """By the change feed as soon as it is settled, by the clock at once; and it stays so."""
    token, text = await known(world)
    await change(world, token)
    await world.settle()
    assert await world.refused(text, "gw-1") is reason
    assert await world.refused(text, "gw-1") is reason


async def test_the_next_connect_has_the_grant_of_the_moved_thing(world: World):
    """And of a changed definition: nothing of the older grant is left."""
    await world.store.grounds.create(T, "north")
    _, text = await known(world)
    await world.store.things.update(T, "gw-1", ground="north")
    await world.settle()
    moved = await world.admitted(text, "gw-1")
    assert moved.ground == "north"
    assert moved.grant.decide(Action.PUBLISH, f"{T}/north/gw-1/state/x").allowed
    assert not moved.grant.decide(Action.PUBLISH, f"{T}/default/gw-1/state/x").allowed


async def test_a_will_is_judged_each_time(world: World):
    """It is no part of what is remembered, nor what makes a CONNECT another one."""
    _, text = await known(world)
    own, other = (
        WillMessage(topic=f"{T}/default/{thing}/state/x", payload=b"", qos=0, retain=False) for thing in ("gw-1", "x")
    )
    await world.admitted(text, "gw-1", will=own)
    assert await world.refused(text, "gw-1", will=other) is Reason.WILL_DENIED


async def test_another_thing_client_id_or_kind_of_session_is_another_connect(world: World):
    """Each has an admission of its own."""
    _, text = await known(world)
    assert (await world.admitted(text, "gw-2")).thing == "gw-2"
    _, ground = await world.ground_token("default")
    assert [(await world.admitted(ground, client_id=id_)).client_id for id_ in ("a", "b", "a")] == ["a", "b", "a"]
    assert [(await world.admitted(text, "gw-1", clean=clean)).persistent for clean in (False, True)] == [True, False]


async def test_the_number_of_persistent_sessions_is_asked_each_time(tmp_path):
    """An admission that is remembered from before the limit was reached opens none above it."""
    async with started(tmp_path, max_persistent_sessions=1) as world:
        _, text = await world.ground_token("default")
        await world.admitted(text, client_id="c2", clean=False)  # remembered, never opened
        await world.connect(text, client_id="c1", clean=False)
        assert await world.refused(text, client_id="c2", clean=False) is Reason.SESSION_LIMIT


async def test_who_holds_the_client_id_is_asked_each_time(world: World):
    """Where a client id is one session of a broker."""
    _, text = await known(world)

    async def taken(principal: str, client_id: str) -> Refusal:
        return Refusal(reason=Reason.CLIENT_ID_TAKEN, detail=f"{principal} {client_id}")

    outcome = await world.service.admit(request(text, "gw-1"), peer="192.0.2.1:5000", broker="b", may_hold=taken)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.CLIENT_ID_TAKEN
