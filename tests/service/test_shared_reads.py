"""Reads under way are shared by those who may share them, and by nobody else."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core.errors import StoreUnavailable
from authsvc.shared_reads import SharedReads
from tests.service.conftest import World


class Shelf:
    """A store whose answers come when the test says so; each names the read that it came of."""

    def __init__(self) -> None:
        self.position = 1
        self.reads = SharedReads(lambda: self.position)
        self.waiting: list[asyncio.Future[None]] = []

    async def _read(self) -> str:
        number = len(self.waiting)
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[number]
        return f"read {number}"

    def ask(self, key: str = "k") -> asyncio.Task[str]:
        return asyncio.create_task(self.reads.ask(key, self._read))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_for_the_same_waits_for_the_one_answer():
    """Another key is another read; and what has been answered is read anew."""
    shelf = Shelf()
    asked = [shelf.ask() for _ in range(50)]
    other = shelf.ask("other")
    await turns()
    assert len(shelf.waiting) == 2
    for one in shelf.waiting:
        one.set_result(None)
    assert set(await asyncio.gather(*asked)) == {"read 0"}
    assert await other == "read 1"
    assert len(shelf.reads) == 0
    late = shelf.ask()
    await turns()
    shelf.waiting[2].set_result(None)
    assert await late == "read 2"


async def test_after_a_change_nobody_waits_for_a_read_that_began_before_it():
    """What the change made may be missing there; those who ask after it share the newer one."""
    shelf = Shelf()
    before = shelf.ask()
    await turns()
    shelf.position += 1
    after = [shelf.ask() for _ in range(3)]
    await turns()
    assert len(shelf.waiting) == 2
    shelf.waiting[0].set_result(None)
    assert await before == "read 0"
    more = shelf.ask()
    await turns()
    shelf.waiting[1].set_result(None)
    assert set(await asyncio.gather(*after, more)) == {"read 1"}
    assert len(shelf.reads) == 0


async def test_who_reads_may_be_cancelled_and_who_waits_too():
    """The next of those who wait reads; one who goes takes the answer from nobody."""
    shelf = Shelf()
    reader, *others = [shelf.ask() for _ in range(4)]
    await turns()
    others.pop().cancel()
    reader.cancel()
    await turns()
    assert len(shelf.waiting) == 2
    shelf.waiting[1].set_result(None)
    assert set(await asyncio.gather(*others)) == {"read 1"}
    assert len(shelf.reads) == 0


async def test_an_accident_is_everybodys_and_is_not_kept():
    """All are told, each by an error of his own, for raising changes it; the next who asks, asks the store."""
    shelf = Shelf()
    asked = [shelf.ask() for _ in range(3)]
    await turns()
    shelf.waiting[0].set_exception(StoreUnavailable("gone"))
    told = []
    for one in asked:
        with pytest.raises(StoreUnavailable, match="gone") as raised:
            await one
        told.append(raised.value)
    assert len({id(error) for error in told}) == 3
    again = shelf.ask()
    await turns()
    shelf.waiting[1].set_result(None)
    assert await again == "read 1"


async def test_a_fleet_that_comes_back_at_once_reads_what_it_shares_once(world: World, monkeypatch: pytest.MonkeyPatch):
    """Token, tenant and definition of fifty things are three reads."""
    _, text = await world.app_token()
    for n in range(50):
        await world.admitted(text, f"gw-{n}")
    await world.stop()
    again = World(world.store, world.clock)  # nothing is in its caches
    await again.start()
    asked: list[str] = []

    def counted(name: str):
        read = getattr(world.store, name)

        def call(*key: object):
            asked.append(name)
            return read(*key)

        return call

    for name in ("token_by_digest", "tenant", "definition"):
        monkeypatch.setattr(world.store, name, counted(name))
    admitted = await asyncio.gather(*(again.admitted(text, f"gw-{n}") for n in range(50)))
    assert sorted(asked) == ["definition", "tenant", "token_by_digest"]
    assert len({id(one.grant) for one in admitted}) == 50
    await again.stop()
