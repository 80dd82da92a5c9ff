"""Rows of persistent sessions that expire (MQTT 5.0, 3.1.2.11.2): kept in time, neither resumed late nor in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from authsvc.core.credentials import NEVER_EXPIRES, ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.reasons import Reason
from authsvc.service import Admitted
from authsvc.store import Store
from authsvc.store.clearings import UpstreamSession
from tests.service.conftest import Clock, T, World, started


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    """Two persistent sessions for each principal."""
    async with started(tmp_path, max_persistent_sessions=2) as made:
        yield made


async def admit(world: World, text: str, client_id: str, *, clean: bool, expiry_s: int | None) -> Admitted | Refusal:
    level = 4 if expiry_s is None else 5
    request = ConnectRequest(
        client_id=client_id, clean_session=clean, password=text.encode(), level=level, session_expiry_s=expiry_s
    )
    return await world.service.admit(request, peer="192.0.2.1:5000", broker="gate")


async def enter(
    world: World, text: str, client_id: str, *, clean: bool = False, expiry_s: int | None
) -> tuple[str, bool]:
    """Do what the gate does at a CONNECT; return the upstream id and whether to connect clean."""
    admitted = await admit(world, text, client_id, clean=clean, expiry_s=expiry_s)
    assert isinstance(admitted, Admitted), admitted
    upstream = await world.service.upstream_session(admitted)
    assert not isinstance(upstream, Refusal), upstream
    if admitted.persistent or not upstream[1]:
        world.service.session_entered(upstream[0], expiry_s=admitted.session_expiry_s)
    return upstream


async def row_of(world: World, client_id: str, token_id: str) -> UpstreamSession | None:
    return await world.store.upstream_session(f"ground/{T}/{token_id}", client_id)


async def targets(world: World) -> list[str]:
    return [clearing.target for clearing in await world.store.clearings()]


async def test_a_session_is_resumed_in_its_time_and_not_after_it(world: World):
    """The same upstream id, then another one; what was left upstream is cleared."""
    _, text = await world.ground_token("default")
    first, clean = await enter(world, text, "c", expiry_s=100)
    assert not clean
    world.service.session_left(first, expiry_s=100)
    world.clock.move(99)
    assert await enter(world, text, "c", expiry_s=100) == (first, False)
    world.service.session_left(first, expiry_s=100)
    world.clock.move(101)
    second, _ = await enter(world, text, "c", expiry_s=100)
    assert second != first
    assert await targets(world) == [first]


@pytest.mark.parametrize("flushed", [True, False])
async def test_while_its_client_is_connected_a_session_does_not_expire(world: World, flushed: bool):
    """However long: neither by the time it was left before, nor because the end of an older connection came late."""
    token, text = await world.ground_token("default")
    upstream_id, _ = await enter(world, text, "c", expiry_s=10)
    world.service.session_left(upstream_id, expiry_s=10)
    if flushed:
        await world.store.flush()
    await enter(world, text, "c", expiry_s=10)
    world.clock.move(1_000)
    await world.store.flush()
    row = await row_of(world, "c", token.id)
    assert row is not None
    assert row.expires_at_us is None
    assert await targets(world) == []


@pytest.mark.parametrize("flushed", [True, False], ids=["written", "noted"])
async def test_an_expired_row_counts_no_more_and_goes(world: World, flushed: bool):
    """It does not stand against the limit, and a minute later it is wiped, so that the broker is cleared too."""
    token, text = await world.ground_token("default")
    ids = [(await enter(world, text, name, expiry_s=10))[0] for name in ("a", "b")]
    refused = await admit(world, text, "c", clean=False, expiry_s=10)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.SESSION_LIMIT
    for upstream_id in ids:
        world.service.session_left(upstream_id, expiry_s=10)
    if flushed:
        await world.store.flush()
    world.clock.move(9)
    assert isinstance(await admit(world, text, "c", clean=False, expiry_s=10), Refusal)
    world.clock.move(2)
    await enter(world, text, "c", expiry_s=10)
    world.clock.move(61)
    await world.store.flush()
    assert await row_of(world, "a", token.id) is None
    assert await row_of(world, "c", token.id) is not None
    assert sorted(await targets(world)) == sorted(ids)


async def test_a_session_without_expiry_takes_no_row_and_keeps_none(world: World):
    """Clean start: wiped at once. Resumed: the row goes when its connection has ended."""
    token, text = await world.ground_token("default")
    for clean in (True, False):
        fresh, starts_clean = await enter(world, text, "c", clean=clean, expiry_s=0)
        assert starts_clean
        assert await row_of(world, "c", token.id) is None
    kept, _ = await enter(world, text, "c", expiry_s=100)
    assert await enter(world, text, "c", expiry_s=0) == (kept, False)
    world.service.session_left(kept, expiry_s=0)
    world.clock.move(1)
    fresh, starts_clean = await enter(world, text, "c", expiry_s=0)
    assert starts_clean
    assert fresh != kept
    assert await targets(world) == [kept]


async def test_a_clean_start_that_is_kept_has_the_row_and_starts_clean(world: World):
    """The broker empties it; a CONNECT that it does not answer has wiped nothing."""
    _, text = await world.ground_token("default")
    kept, _ = await enter(world, text, "c", expiry_s=100)
    assert await enter(world, text, "c", clean=True, expiry_s=100) == (kept, True)
    assert await targets(world) == []


@pytest.mark.parametrize("expiry_s", [None, NEVER_EXPIRES], ids=["3.1.1", "5.0-never"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_session_resumed_for_ever_has_no_end(world: World, expiry_s: int | None, late: bool):
    """Whichever level says so; an older connection's end that is noted during the take-over changes nothing."""
    token, text = await world.ground_token("default")
    upstream_id, _ = await enter(world, text, "c", expiry_s=10)
    world.service.session_left(upstream_id, expiry_s=10)
    await world.store.flush()
    admitted = await admit(world, text, "c", clean=False, expiry_s=expiry_s)
    assert isinstance(admitted, Admitted)
    assert await world.service.upstream_session(admitted) == (upstream_id, False)
    if late:
        world.service.session_left(upstream_id, expiry_s=10)
        await world.store.flush()
        world.service._expiring.add(upstream_id)  # as it was when the admission read the row
    world.service.session_entered(upstream_id, expiry_s=admitted.session_expiry_s)
    world.clock.move(10_000)
    await world.store.flush()
    row = await row_of(world, "c", token.id)
    assert row is not None
    assert (row.upstream_id, row.expiry_s, row.expires_at_us) == (upstream_id, None, None)


async def test_after_a_crash_a_session_lives_for_its_expiry_from_the_start_on(tmp_path):
    """Nobody noted when its client went: it is neither kept for ever nor lost at once; one of 3.1.1 is kept."""
    clock = Clock()
    store = await Store.open(tmp_path / "authsvc.db", now_us=clock.now_us)
    world = World(store, clock)
    await world.start()
    await store.tenants.create(T)
    _, text = await world.ground_token("default")
    short, _ = await enter(world, text, "short", expiry_s=100)
    old, _ = await enter(world, text, "old", expiry_s=None)
    await world.stop()
    world = World(store, clock)
    await world.start()
    assert (await enter(world, text, "short", expiry_s=100))[0] == short
    await store.flush()
    await world.stop()
    world = World(store, clock)
    await world.start()
    clock.move(101)
    assert (await enter(world, text, "short", expiry_s=100))[0] != short
    assert (await enter(world, text, "old", expiry_s=None))[0] == old
    await world.stop()
    await store.close()


async def test_a_revoked_token_leaves_no_row_however_it_would_have_expired(world: World):
    """Wiped in the transaction of the revocation; an end that is noted afterwards brings nothing back."""
    token, text = await world.ground_token("default")
    upstream_id, _ = await enter(world, text, "c", expiry_s=100)
    world.service.session_left(upstream_id, expiry_s=100)
    await world.store.ground_tokens.delete(T, "default", token.id)
    world.service.session_left(upstream_id, expiry_s=100)
    await world.store.flush()
    assert await row_of(world, "c", token.id) is None
    assert await targets(world) == [upstream_id]
