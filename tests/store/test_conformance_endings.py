"""Every engine: the table of what ends what, in the transaction of the ending itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authsvc.core.errors import NotFound
from authsvc.core.facts import RETIRED, TenantState, ThingState
from authsvc.store.clearings import UpstreamSession
from tests.store.conftest import SECOND_US, Clock, World, new_digest

PLACE = ("retained", "acme/default/g1")
WIPED = ("session", "upstream-of-g1")


@pytest.fixture
async def living(world: World) -> World:
    """Thing `g1` with a persistent session; another principal's session stands beside it."""
    await world.register("g1", "c1")
    await world.open_session("thing/acme/g1", "c1", thing="g1", upstream_id="upstream-of-g1")
    return world


async def session_of(world: World) -> UpstreamSession | None:
    return await world.store.upstream_session("thing/acme/g1", "c1")


def regenerate(overlap_us: int) -> Callable[[World], Awaitable[object]]:
    async def event(world: World) -> None:
        await world.store.app_tokens.regenerate(
            "acme", world.token.id, digest=new_digest(), prefix="asapp_new0", overlap_us=overlap_us
        )

    return event


EVENTS = {
    "regenerate": (regenerate(0), [WIPED]),
    "regenerate with overlap": (regenerate(60 * SECOND_US), []),
    "revoke": (lambda world: world.store.app_tokens.delete("acme", world.token.id), [WIPED]),
    "suspend": (lambda world: world.store.tenants.update("acme", state=TenantState.SUSPENDED), [WIPED]),
    "block": (lambda world: world.store.things.update("acme", "g1", state=ThingState.BLOCKED), [WIPED, PLACE]),
    "delete": (lambda world: world.store.things.delete("acme", "g1"), [WIPED, PLACE]),
    "forget": (lambda world: world.store.things.forget("acme", "g1"), [WIPED, PLACE]),
    "reset client id": (lambda world: world.store.things.reset_client_id("acme", "g1"), [WIPED]),
    "rename": (lambda world: world.store.things.update("acme", "g1", name="x"), []),
    "delete tenant": (lambda world: world.store.tenants.delete("acme", cascade=True), [WIPED, ("retained", "acme")]),
}


@pytest.mark.parametrize("event", EVENTS)
async def test_an_event_wipes_and_clears_exactly_what_the_table_says(event: str, living: World) -> None:
    """What is wiped has left the table in the same commit, and the gate is told once."""
    act, expected = EVENTS[event]
    before = await living.store.last_position()
    await act(living)
    assert await living.targets() == expected
    assert (await session_of(living) is None) is (WIPED in expected)
    cleared = [op for kind, _, op in await living.ops_since(before) if kind == "clearing"]
    assert bool(cleared) is bool(expected)


async def test_a_move_keeps_the_session_and_says_from_where_to_where(living: World) -> None:
    """The feed carries both grounds, for the sets of members."""
    await living.store.grounds.create("acme", "north")
    before = await living.store.last_position()
    await living.store.things.update("acme", "g1", ground="north")
    (change,) = await living.store.changes_after(before)
    assert (change.op, change.detail) == ("moved", {"from": "default", "to": "north"})
    assert await session_of(living) is not None
    assert await living.store.members_of("acme", "north") == {"g1"}


async def test_a_session_belongs_to_the_secret_that_opened_it_last(living: World) -> None:
    """After a regenerate with overlap, a reconnect by the new secret survives the end of the old one."""
    digest = new_digest()
    await living.store.app_tokens.regenerate(
        "acme", living.token.id, digest=digest, prefix="asapp_new0", overlap_us=60 * SECOND_US
    )
    new_secret = await living.secret_id(digest)
    row = await session_of(living)
    assert row is not None
    kept = await living.store.open_upstream_session(
        "thing/acme/g1",
        "c1",
        tenant="acme",
        thing="g1",
        token_id=living.token.id,
        secret_id=new_secret,
        clean=False,
        upstream_id="another",
    )
    assert kept.value is not None
    assert (kept.value.upstream_id, kept.value.secret_id) == ("upstream-of-g1", new_secret)
    assert kept.value.since_us == row.since_us


async def test_a_clean_session_wipes_the_row_and_answers_none(living: World) -> None:
    """CONNECT with clean session: the old upstream session is to be cleared, no new row is kept."""
    written = await living.store.open_upstream_session(
        "thing/acme/g1",
        "c1",
        tenant="acme",
        thing="g1",
        token_id=living.token.id,
        secret_id=await living.secret_id(),
        clean=True,
        upstream_id="x",
    )
    assert written.value is None
    assert await living.targets() == [WIPED]
    assert await living.store.persistent_count("thing/acme/g1") == 0


@pytest.mark.parametrize("event", ["revoke", "regenerate", "suspend", "block", "delete", "delete tenant"])
async def test_who_was_ended_a_moment_ago_leaves_no_session_behind(event: str, living: World) -> None:
    """The row is written only while token, secret, tenant and thing stand, whoever was faster."""
    secret_id = await living.secret_id()
    act, _ = EVENTS[event]
    await act(living)
    written = await living.store.open_upstream_session(
        "thing/acme/g1",
        "c1",
        tenant="acme",
        thing="g1",
        token_id=living.token.id,
        secret_id=secret_id,
        clean=False,
        upstream_id="late",
    )
    assert written.value is not None
    assert written.value.upstream_id == "late"
    assert await session_of(living) is None


async def test_no_client_id_meets_anothers_session(living: World) -> None:
    """The principal and the client id are two columns: no concatenation can make two pairs equal."""
    await living.open_session("thing/acme/g1c1", "", upstream_id="second")
    await living.open_session("thing/acme/g1", "c1/x", upstream_id="third")
    ids = {
        (await living.store.upstream_session(*pair)).upstream_id
        for pair in [("thing/acme/g1", "c1"), ("thing/acme/g1c1", ""), ("thing/acme/g1", "c1/x")]
    }
    assert ids == {"upstream-of-g1", "second", "third"}
    assert await living.store.persistent_count("thing/acme/g1") == 2


async def test_clearings_are_struck_off_one_by_one_or_forgotten_at_once(living: World) -> None:
    """Struck off twice is fine; with an upstream that keeps nothing both tables are emptied at start."""
    await living.store.things.update("acme", "g1", state=ThingState.BLOCKED)
    first, second = await living.store.clearings()
    await living.store.cleared(first.id)
    await living.store.cleared(first.id)
    assert list(await living.store.clearings()) == [second]
    await living.open_session("ground/acme/x", "c", upstream_id="again")
    await living.store.forget_upstream()
    assert list(await living.store.clearings()) == []
    assert await living.store.persistent_count("ground/acme/x") == 0


async def test_the_old_secret_ends_after_the_overlap_and_never_later_than_it_would_have(
    living: World, clock: Clock
) -> None:
    """A second regenerate with a longer overlap does not prolong the first secret's end."""
    await living.store.app_tokens.regenerate(
        "acme", living.token.id, digest=new_digest(), prefix="p", overlap_us=10 * SECOND_US
    )
    await living.store.app_tokens.regenerate(
        "acme", living.token.id, digest=new_digest(), prefix="p", overlap_us=100 * SECOND_US
    )
    found = await living.store.token_by_digest(living.digest)
    assert found is not None
    assert found[1].expires_at_us == clock.now_us + 10 * SECOND_US
    assert found[0].revoked_at_us is None


async def test_a_regenerate_now_wipes_also_what_rests_on_a_secret_that_has_ended_before(
    living: World, clock: Clock
) -> None:
    """Who regenerates without overlap distrusts the token's past; a session of an outlived secret is no exception."""
    await regenerate(10 * SECOND_US)(living)
    clock.advance(11)
    await regenerate(0)(living)
    assert await session_of(living) is None
    assert await living.targets() == [WIPED]


async def test_a_deleted_thing_gives_back_its_seat_and_ends_its_device_tokens(living: World) -> None:
    """Its key is retired, its tokens are revoked, its quota is free again."""
    digest = new_digest()
    device = await living.store.device_tokens.create("acme", "g1", name="d", digest=digest, prefix="asdev_abcd")
    before = await living.store.last_position()
    await living.store.things.delete("acme", "g1")
    assert await living.store.thing("acme", "g1") is None
    assert await living.store.thing_or_retired("acme", "g1") is RETIRED
    found = await living.store.token_by_digest(digest)
    assert found is not None
    assert found[0].revoked_at_us is not None
    assert found[1].revoked_at_us is not None
    assert (await living.store.app_tokens.get("acme", living.token.id)).registered == 0
    ops = await living.ops_since(before)
    assert ("token", device.value.id, "revoked") in ops
    assert ops[-1] == ("thing", "g1", "deleted")


async def test_a_retired_key_comes_back_only_by_an_operator(living: World) -> None:
    """Created again it is revived, without its old binding; forgotten it may register again."""
    await living.store.things.delete("acme", "g1")
    revived = await living.store.things.create("acme", "g1")
    assert revived.value.client_id is None
    assert await living.store.thing_or_retired("acme", "g1") is not RETIRED
    assert (await living.ops_since(revived.position - 1)) == [("thing", "g1", "revived")]
    await living.store.things.delete("acme", "g1")
    await living.store.things.forget("acme", "g1")
    await living.register("g1", "c2")
    with pytest.raises(NotFound):
        await living.store.things.forget("acme", "never-there")


async def test_a_deleted_gateway_lets_its_modules_go_or_takes_them_with_it(living: World) -> None:
    """Without cascade they stay as things of nobody; with it they are deleted and retired too."""
    for key in ("m1", "m2"):
        await living.store.modules.bind("acme", "g1", key)
    await living.register("g2")
    await living.store.modules.bind("acme", "g2", "m2")
    assert await living.store.modules_of("acme", "g1") == {"m1"}
    await living.store.things.delete("acme", "g1")
    module = await living.store.thing("acme", "m1")
    assert module is not None
    assert module.gateway == ""
    await living.store.things.delete("acme", "g2", cascade=True)
    assert await living.store.thing_or_retired("acme", "m2") is RETIRED


async def test_revocation_and_reconnect_race_to_a_state_that_agrees(living: World) -> None:
    """However they interleave, a revoked token is left without any session row."""
    secret_id = await living.secret_id()

    async def reconnect(number: int) -> None:
        await living.store.open_upstream_session(
            "thing/acme/g1",
            f"c{number}",
            tenant="acme",
            thing="g1",
            token_id=living.token.id,
            secret_id=secret_id,
            clean=False,
            upstream_id=f"u{number}",
        )

    revoke = living.store.app_tokens.delete("acme", living.token.id)
    await asyncio.gather(*(reconnect(n) for n in range(20)), revoke, *(reconnect(n) for n in range(20, 40)))
    assert await living.store.persistent_count("thing/acme/g1") == 0
