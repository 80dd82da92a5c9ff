"""A CONNECT whose client goes while its session's row is being written: what it wrote is found by whoever is next."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import Refusal
from authsvc.core.reasons import Reason
from authsvc.service import Admitted
from tests.service.conftest import T, World, started

BUSY_S = 0.1  # well below what a commit waits for another process's lock


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One persistent session for each principal."""
    async with started(tmp_path, max_persistent_sessions=1) as made:
        yield made


@asynccontextmanager
async def busy(folder: Path) -> AsyncIterator[None]:
    """Another process writes: what is to be committed here waits within its commit."""
    other = sqlite3.connect(folder / "authsvc.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(BUSY_S, other.execute, "ROLLBACK")
    try:
        yield
    finally:
        while other.in_transaction:
            await asyncio.sleep(0.01)
        other.close()


async def admitted(world: World, text: str, client_id: str, *, clean: bool, expiry_s: int | None = None) -> Admitted:
    request = ConnectRequest(
        client_id=client_id,
        clean_session=clean,
        password=text.encode(),
        level=4 if expiry_s is None else 5,
        session_expiry_s=expiry_s,
    )
    outcome = await world.service.admit(request, peer="192.0.2.1:5000", broker="gate")
    assert isinstance(outcome, Admitted), outcome
    return outcome


async def upstream(world: World, connect: Admitted) -> tuple[str, bool] | Refusal:
    """Do what the gate does: ask for the session's row under its lock."""
    async with world.service.sessions.lock(connect.principal, connect.client_id, broker="gate"):
        return await world.service.upstream_session(connect)


async def cut(world: World, connect: Admitted) -> asyncio.Task[tuple[str, bool] | Refusal]:
    """Begin a CONNECT and cancel it while its row is being committed; return what may still be doing something."""
    task = asyncio.create_task(upstream(world, connect))
    while not world.store.database._under_way:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    return task


async def test_a_clean_session_wipes_what_a_connect_that_was_cut_wrote(world: World, tmp_path: Path):
    """Or the row would stay for ever, and count, while every later clean session takes it not to be there."""
    token, text = await world.ground_token("default")
    kept = await admitted(world, text, "c", clean=False)
    clean = await admitted(world, text, "c", clean=True)
    async with busy(tmp_path):
        await cut(world, kept)
        _, starts_clean = await upstream(world, clean)
    assert starts_clean
    await world.store.flush()
    assert await world.store.upstream_session(kept.principal, "c") is None
    assert len(await world.store.clearings()) == 1
    assert await world.store.persistent_count(f"ground/{T}/{token.id}") == 0


async def test_a_connect_that_was_cut_counts_against_the_limit(world: World, tmp_path: Path):
    """A client that cuts each of its CONNECTs at that moment gets no more sessions than others."""
    _, text = await world.ground_token("default")
    first = await admitted(world, text, "a", clean=False)
    second = await admitted(world, text, "b", clean=False)
    async with busy(tmp_path):
        await cut(world, first)
        refusal = await upstream(world, second)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.SESSION_LIMIT
    assert await world.store.persistent_count(first.principal) == 1


async def test_a_session_that_was_never_entered_expires_all_the_same(world: World, tmp_path: Path):
    """Nobody is connected to it, and nobody will say that its client has left."""
    _, text = await world.ground_token("default")
    connect = await admitted(world, text, "c", clean=False, expiry_s=10)
    async with busy(tmp_path):
        await asyncio.wait({await cut(world, connect)})
    row = await world.store.upstream_session(connect.principal, "c")
    assert row is not None
    assert row.expires_at_us is not None
    world.clock.move(11)
    assert await world.store.persistent_count(connect.principal) == 0


async def test_a_session_ends_when_it_would_have_before_a_connect_that_was_cut(world: World, tmp_path: Path):
    """By another secret of the same thing: the row rests on that one then, and keeps its end."""
    await world.store.things.create(T, "gw-1")
    texts = [(await world.device_token("gw-1"))[1] for _ in range(2)]
    connect = await admitted(world, texts[0], "c", clean=False, expiry_s=10)
    found = await upstream(world, connect)
    assert not isinstance(found, Refusal)
    world.service.session_left(found[0], expiry_s=10)
    before = await world.store.upstream_session(connect.principal, "c")
    assert before is not None
    await world.store.flush()
    again = await admitted(world, texts[1], "c", clean=False, expiry_s=1_000)
    async with busy(tmp_path):
        await asyncio.wait({await cut(world, again)})
    await world.store.flush()
    after = await world.store.upstream_session(connect.principal, "c")
    assert after is not None
    assert (after.upstream_id, after.secret_id) == (before.upstream_id, again.secret_id)
    assert (after.expiry_s, after.expires_at_us) == (before.expiry_s, before.expires_at_us)


async def test_a_connect_that_was_cut_before_its_turn_writes_nothing(world: World, tmp_path: Path):
    """What waits for the writer is let go at once, and nothing of it is done."""
    _, text = await world.ground_token("default")
    connect = await admitted(world, text, "c", clean=False)
    async with busy(tmp_path):
        other = asyncio.create_task(world.store.grounds.create(T, "g"))
        while not world.store.database._under_way:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(upstream(world, connect))
        while not world.store.database._waiting:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=BUSY_S / 2)
        assert waiting.cancelled()
        assert not other.done()
        await other
    assert await world.store.upstream_session(connect.principal, "c") is None
