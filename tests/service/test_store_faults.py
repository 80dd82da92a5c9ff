"""With the real store broken: fail closed on CONNECT, bounded staleness for the living, recovery without restart."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

from authsvc.core.facts import Refusal
from authsvc.core.reasons import Reason
from tests.service.conftest import T, World


async def _refused_within(world: World, seconds: float, text: str) -> bool:
    """Return whether a known thing comes to be refused as store_unavailable."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                outcome = await world.admit(text, "gw-1")
                if isinstance(outcome, Refusal):
                    return outcome.reason is Reason.STORE_UNAVAILABLE
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False


async def test_a_deleted_database_refuses_every_new_connection(world: World, tmp_path: Path):
    """Also known things that are cached, soon; live sessions go on; no empty database appears in its place."""
    _, text = await world.app_token()
    _, wire = await world.connect(text, "gw-1")
    (tmp_path / "authsvc.db").unlink()
    assert await _refused_within(world, 5, text)
    assert wire.ends == []
    assert await world.refused(text, "gw-2", client_id="c2") is Reason.STORE_UNAVAILABLE
    assert not (tmp_path / "authsvc.db").exists()


async def test_a_replaced_database_refuses_every_new_connection(world: World, tmp_path: Path):
    """A copy put in its place is another file: what is revoked in one is not in the other."""
    _, text = await world.app_token()
    await world.connect(text, "gw-1")
    shutil.copy(tmp_path / "authsvc.db", tmp_path / "copy.db")
    (tmp_path / "copy.db").replace(tmp_path / "authsvc.db")
    assert await _refused_within(world, 5, text)


async def test_a_locked_database_admits_known_things_only(world: World, tmp_path: Path):
    """While another process holds the write lock: known things in, first connections refused, then all as before."""
    _, text = await world.app_token()
    await world.connect(text, "gw-1")
    await world.settle()
    with sqlite3.connect(tmp_path / "authsvc.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        await world.connect(text, "gw-1")
        async with asyncio.timeout(4):
            assert await world.refused(text, "gw-2", client_id="c2") is Reason.STORE_UNAVAILABLE
        await world.connect(text, "gw-1")
        other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(5):
        while isinstance(await world.admit(text, "gw-2", client_id="c2"), Refusal):
            await asyncio.sleep(0.05)
    assert (await world.store.thing(T, "gw-2")) is not None
