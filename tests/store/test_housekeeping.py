"""What the store does by itself: batches of seen times, and patience while the file cannot be written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from authsvc.core.errors import StoreReadOnly
from authsvc.store import Store, housekeeping
from tests.store.conftest import Clock, World


async def test_seen_times_are_written_by_themselves(
    database_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody calls for it: the store's own task flushes at its interval."""
    monkeypatch.setattr(housekeeping, "INTERVAL_S", 0.01)
    store = await Store.open(database_path, now_us=clock)
    await store.tenants.create("acme")
    await store.things.create("acme", "t1")
    store.note_seen("acme", "t1")
    async with asyncio.timeout(5):
        while True:
            thing = await store.thing("acme", "t1")
            assert thing is not None
            if thing.last_seen_us == clock.now_us:
                break
    await store.close()


async def test_an_error_of_its_own_does_not_end_the_housekeeping(
    database_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next turn does what the failed one did not; a task that ended would let the feed grow for ever."""
    monkeypatch.setattr(housekeeping, "INTERVAL_S", 0.01)
    forget, turns, again = housekeeping._forget, [], asyncio.Event()

    def fails_at_first(*args: object) -> int:
        turns.append(args)
        if len(turns) == 1:
            raise RuntimeError("a mistake of ours")
        again.set()
        return forget(*args)

    monkeypatch.setattr(housekeeping, "_forget", fails_at_first)
    store = await Store.open(database_path, now_us=clock)
    async with asyncio.timeout(5):
        await again.wait()
    await store.close()


async def test_seen_times_survive_a_time_without_writing_and_the_close(world: World, database_path: Path) -> None:
    """What could not be flushed is kept, and the close flushes what is left."""
    keys = [f"t{number}" for number in range(1200)]
    await asyncio.gather(*(world.store.things.create("acme", key) for key in keys))
    for key in keys:
        world.store.note_seen("acme", key)
    await world.store.database._writer.execute_fetchall("PRAGMA query_only = ON")
    with pytest.raises(StoreReadOnly):
        await world.store.flush()
    await world.store.database._writer.execute_fetchall("PRAGMA query_only = OFF")
    await world.store.close()
    reopened = await Store.open(database_path, now_us=Clock())
    page = await reopened.things.list("acme", limit=1000)
    assert all(thing.last_seen_us is not None for thing in page.items)
    await reopened.close()


async def test_a_flush_ends_while_things_go_on_connecting(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is noted again during each commit: it is written once, later than that by the next flush, and expired
    sessions and old changes have their turn.
    """
    keys = [f"t{number}" for number in range(5)]
    await asyncio.gather(*(world.store.things.create("acme", key) for key in keys))
    written: list[int] = []
    write_seen, forget, forgotten = housekeeping._write_seen, housekeeping._forget, asyncio.Event()

    def noted_again(*args: object) -> None:
        write_seen(*args)
        written.append(clock.now_us)
        clock.now_us += 1_000
        for key in keys:
            world.store.note_seen("acme", key)
            world.store.note_session_end(key, expiry_s=1, expires_at_us=clock.now_us)

    def forgets(*args: object) -> int:
        forgotten.set()
        return forget(*args)

    monkeypatch.setattr(housekeeping, "_write_seen", noted_again)
    monkeypatch.setattr(housekeeping, "_forget", forgets)
    for key in keys:
        world.store.note_seen("acme", key)
    async with asyncio.timeout(5):
        await world.store.flush()
    assert len(written) == 1
    assert forgotten.is_set()
    assert {(await world.store.thing("acme", key)).last_seen_us for key in keys} == set(written)  # type: ignore[union-attr]
    monkeypatch.setattr(housekeeping, "_write_seen", write_seen)
    await world.store.flush()
    assert {(await world.store.thing("acme", key)).last_seen_us for key in keys} == {clock.now_us}  # type: ignore[union-attr]


async def test_a_flood_of_seen_things_stays_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound new ones are let go; those that wait are still brought up to date."""
    monkeypatch.setattr(housekeeping, "MAX_SEEN", 10)
    for number in range(1000):
        world.store.note_seen("acme", f"t{number}")
    assert len(world.store._housekeeping._seen) == 10
