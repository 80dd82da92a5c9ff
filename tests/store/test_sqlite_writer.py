"""The writer's promises that need no harmed file: closing, mistakes, callers who leave, and the rights of its files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from authsvc.core.errors import StoreUnavailable
from tests.store.conftest import World, refused


async def test_a_close_answers_everybody_who_waits(world: World) -> None:
    """What waited is committed and answered; what comes later is refused; nobody hangs."""
    writes = [asyncio.create_task(world.store.grounds.create("acme", f"g{n}")) for n in range(300)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(world.store.close())
    await asyncio.sleep(0)
    late = asyncio.create_task(world.store.grounds.create("acme", "late"))
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*writes, late, return_exceptions=True)
        await closing
    for answer in answers:
        assert not isinstance(answer, Exception) or isinstance(answer, StoreUnavailable), answer
    assert not isinstance(answers[0], Exception)


async def test_a_closed_store_answers_instead_of_hanging(world: World) -> None:
    """Reads and writes after `close` fail at once, and closing twice is fine."""
    await world.store.close()
    await world.store.close()
    await refused(world.store.tenant("acme"))
    await refused(world.store.tenants.update("acme", name="x"))


async def test_a_mistake_in_one_work_fails_that_work_alone(world: World) -> None:
    """A work that raises, or asks for a statement that is not there, rolls back by itself; its neighbours commit."""

    def broken(tx: object) -> None:
        tx.run("insert_ground", tenant="acme", key="half", name="half", now_us=1)
        raise KeyError("mistake")

    answers = await asyncio.gather(
        world.store.grounds.create("acme", "before"),
        world.store.database.write(broken),
        world.store.database.write(lambda tx: tx.run("no_such_statement")),
        world.store.grounds.create("acme", "after"),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, True, False]
    keys = [ground.key for ground in (await world.store.grounds.list("acme")).items]
    assert keys == ["after", "before", "default"]
    positions = [change.position for change in await world.store.changes_after(0)]
    assert positions == list(range(1, len(positions) + 1))


async def test_a_caller_who_left_before_the_commit_has_written_nothing(world: World, database_path: Path) -> None:
    """A cancelled write that still waited is skipped."""
    writing = asyncio.create_task(world.store.grounds.create("acme", "ghost"))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await world.store.grounds.create("acme", "real")
    assert [ground.key for ground in (await world.store.grounds.list("acme")).items] == ["default", "real"]


async def test_the_files_are_readable_by_their_owner_only(world: World, database_path: Path) -> None:
    """Database, log and index are 0600, also when they were wider before."""
    for path in database_path.parent.glob(database_path.name + "*"):
        assert path.stat().st_mode & 0o777 == 0o600, path
