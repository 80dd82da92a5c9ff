"""Every engine: the feed of changes, its wake-ups and how long it is kept."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.store import Store
from tests.store.conftest import Clock, OpenStore, World

DAY_S = 24 * 3600


async def test_a_reader_that_loses_every_wake_up_still_reads_every_change_once(world: World) -> None:
    """Polling by position is enough: no gap, no repetition, in the order of the commits."""
    start = await world.store.last_position()
    seen: list[str] = []
    position = start
    writing = asyncio.gather(*(world.store.grounds.create("acme", f"g{n:03}") for n in range(100)))
    while len(seen) < 100:
        for change in await world.store.changes_after(position, 7):
            assert change.position == position + 1
            position = change.position
            seen.append(change.name.key)
    await writing
    assert sorted(seen) == [f"g{n:03}" for n in range(100)]
    assert await world.store.changes_after(position) == []
    assert await world.store.last_position() == position


async def test_a_commit_with_changes_wakes_the_listeners_and_one_without_does_not(world: World) -> None:
    """The callback runs on the loop after the commit; cancelled, it stays silent."""
    woken = asyncio.Event()
    cancel = world.store.on_commit(woken.set)
    await world.store.grounds.create("acme", "g1")
    async with asyncio.timeout(1):
        await woken.wait()
    woken.clear()
    await world.store.grounds.update("acme", "g1", name="g1")
    world.store.note_seen("acme", "g1")
    await world.store.flush()
    await asyncio.sleep(0)
    assert not woken.is_set()
    cancel()
    cancel()
    await world.store.grounds.create("acme", "g2")
    await asyncio.sleep(0)
    assert not woken.is_set()


async def test_a_change_is_visible_to_readers_when_its_write_is_answered(world: World, open_store: OpenStore) -> None:
    """In this process and in another: the answer comes after the commit."""
    other = await open_store()
    written = await world.store.grounds.create("acme", "g1")
    for store in (world.store, other):
        assert await store.last_position() == written.position
        assert await store.ground("acme", "g1") == written.value


async def test_a_refused_write_takes_no_position(world: World) -> None:
    """A rollback gives positions back, so that a gap always means that rows were deleted."""
    before = await world.store.last_position()
    answers = await asyncio.gather(
        *(world.store.grounds.create("acme", key) for key in ("a", "a", "b", "a", "b", "c")), return_exceptions=True
    )
    assert sum(not isinstance(answer, Exception) for answer in answers) == 3
    changes = await world.store.changes_after(before)
    assert [change.position for change in changes] == [before + 1, before + 2, before + 3]


async def positions(store: Store) -> list[int]:
    oldest = (await store.database.read("change_range"))[0][0]
    return [change.position for change in await store.changes_after(oldest - 1)]


async def test_old_changes_go_when_every_reader_has_passed_them(world: World, clock: Clock) -> None:
    """Not before a day, not before the slowest reader, and never the newest."""
    newest = await world.store.last_position()
    world.store.reader_passed("fast", newest)
    world.store.reader_passed("slow", 3)
    await world.store.flush()
    clock.advance(DAY_S - 10)
    world.store.reader_passed("fast", newest)
    world.store.reader_passed("slow", 3)
    await world.store.flush()
    assert await positions(world.store) == list(range(1, newest + 1))
    clock.advance(20)
    await world.store.flush()
    assert await positions(world.store) == list(range(4, newest + 1))
    world.store.reader_passed("slow", newest)
    await world.store.flush()
    assert await positions(world.store) == [newest]
    assert (await world.store.grounds.create("acme", "next")).position == newest + 1


async def test_without_a_reader_nothing_is_forgotten(world: World, clock: Clock) -> None:
    """A service that is only just starting must not lose what it has not read."""
    newest = await world.store.last_position()
    clock.advance(3 * DAY_S)
    await world.store.flush()
    assert await positions(world.store) == list(range(1, newest + 1))


async def test_a_reader_that_vanished_does_not_hold_the_feed_for_ever_and_is_told_on_return(
    world: World, open_store: OpenStore, clock: Clock
) -> None:
    """After a day of silence it is forgotten; what it would miss is an error, never a silent gap."""
    other = await open_store()
    other.reader_passed("vanished", 2)
    await other.flush()
    await other.close()
    newest = await world.store.last_position()
    clock.advance(DAY_S + 10)
    world.store.reader_passed("here", newest)
    await world.store.flush()
    assert await positions(world.store) == [newest]
    with pytest.raises(StoreUnavailable, match=f"changes 3 to {newest - 1} are no longer kept"):
        await world.store.changes_after(2)


async def test_what_a_write_reports_is_its_own_range_of_changes(world: World) -> None:
    """`first` and `position` enclose exactly the rows of that work, however many works share its commit."""
    written = await asyncio.gather(
        *(world.store.tenants.create(f"t{n}") for n in range(10)),
        *(world.store.grounds.create("acme", f"g{n}") for n in range(10)),
    )
    for answer in written:
        changes = [c for c in await world.store.changes_after(answer.first - 1) if c.position <= answer.position]
        owner = answer.value.key if hasattr(answer.value, "state") else answer.value.tenant
        assert {change.name.tenant for change in changes} == {owner}
    assert sum(answer.position - answer.first + 1 for answer in written) == 10 * 5 + 10
